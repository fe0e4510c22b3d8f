"""Small copies of each shipped suite's questions, in the form of the published files.

The columns are those of the data sets' own cards and files at the pinned revisions (recipes/suites): math-ai/aime25 and
aime26 (JSON lines), MathArena/hmmt_feb_2026 (parquet), simple-evals' gpqa_diamond.csv, livecodebench's test6.jsonl,
zai-org/LongBench-v2's data.json, TIGER-Lab/MMLU-Pro (parquet) and google/IFEval (JSON lines). All rows are made up.
"""

import base64
import csv
import json
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def _jsonl(rows: list[dict[str, Any]], path: Path) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(text.encode("utf-8", "backslashreplace"))


def _json(rows: list[dict[str, Any]], path: Path) -> None:
    path.write_text(json.dumps(rows), encoding="utf-8")


def _parquet(rows: list[dict[str, Any]], path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


def _csv(rows: list[dict[str, Any]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _packed(tests: list[dict[str, str]]) -> str:
    """Return hidden tests as LiveCodeBench packs them: base64 of zlib of a pickled JSON text."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


AIME = [
    {"problem": f"Find $2^{{{n}}} + {n}$ — with $\\theta = 60^\\circ$.", "answer": str(2**n + n), "id": str(n)}
    for n in range(3)
]
HMMT = [
    {"problem_idx": 1, "answer": "\\frac{3}{7}", "problem_type": ["Algebra"], "problem": "What is $3 : 7$?"},
    {"problem_idx": 2, "answer": "2\\sqrt{2}", "problem_type": ["Geometry"], "problem": "What is $\\sqrt 8$?"},
]
GPQA = [
    {
        "Record ID": f"rec{n}",
        "Question": f"Which number is {n}?\nChoose.",
        "Correct Answer": f"{n}",
        "Incorrect Answer 1": f"{n + 1}, or more",
        "Incorrect Answer 2": f'"{n + 2}"',
        "Incorrect Answer 3": f"{n + 3}\n",
        "High-level domain": "Physics",
        "Subdomain": "Counting",
    }
    for n in range(4)
]
CODE = [
    {
        "question_title": "Sum",
        "question_content": "Print the sum of the numbers in the line.",
        "platform": "atcoder",
        "question_id": "abc_a",
        "contest_id": "abc",
        "contest_date": "2025-02-01T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps([{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]),
        "private_test_cases": _packed([{"input": "5 6 7\n", "output": "18", "testtype": "stdin"}]),
        "metadata": "{}",
    },
    {
        "question_title": "Double",
        "question_content": "Return twice the number.",
        "platform": "leetcode",
        "question_id": "3001",
        "contest_id": "weekly",
        "contest_date": "2025-03-30T00:00:00",
        "starter_code": "class Solution:\n    def double(self, n: int) -> int:\n        ",
        "difficulty": "medium",
        "public_test_cases": json.dumps([{"input": "4", "output": "8", "testtype": "functional"}]),
        "private_test_cases": _packed([{"input": "-3", "output": "-6", "testtype": "functional"}]),
        "metadata": json.dumps({"func_name": "double"}),
    },
    {
        "question_title": "Old",
        "question_content": "Too old to be asked.",
        "platform": "atcoder",
        "question_id": "abc_0",
        "contest_id": "abc",
        "contest_date": "2025-01-31T00:00:00",
        "starter_code": "",
        "difficulty": "hard",
        "public_test_cases": "[]",
        "private_test_cases": _packed([]),
        "metadata": "{}",
    },
]
LONG = [
    {
        "_id": f"id{n}",
        "domain": "Single-Document QA",
        "sub_domain": "Legal",
        "difficulty": "easy",
        "length": length,
        "question": f"Which colour is {n}?",
        "choice_A": "red",
        "choice_B": "green",
        "choice_C": "blue",
        "choice_D": "grey",
        "answer": "ABCD"[n],
        "context": f"{n} has the colour of a thing. " * 3,
    }
    for n, length in enumerate(("short", "medium", "short", "long"))
]
MMLU_PRO = [
    {
        "question_id": 70 + n,
        "question": f"How much is {n} + 1?",
        "options": [str(choice) for choice in range(1, 10)],
        "answer": "ABCDEFGHI"[n],
        "answer_index": n,
        "cot_content": "",
        "category": "math" if n < 2 else "law",
        "src": "made up",
    }
    for n in range(3)
]
IFEVAL = [
    {
        "key": 1000,
        "prompt": "Say hello. Do not use any commas.",
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [{}],
    },
    {
        "key": 1001,
        "prompt": "Say hello in lower case and write at least 3 words.",
        "instruction_id_list": ["change_case:english_lowercase", "length_constraints:number_words"],
        "kwargs": [{}, {"relation": "at least", "num_words": 3}],
    },
]

COPIES: dict[str, tuple[list[dict[str, Any]], str, Callable[[list[dict[str, Any]], Path], None]]] = {
    "math": (AIME, "test.jsonl", _jsonl),
    "aime26": (AIME, "test.jsonl", _jsonl),
    "hmmt": (HMMT, "train-00000-of-00001.parquet", _parquet),
    "science": (GPQA, "gpqa_diamond.csv", _csv),
    "science-gated": (GPQA, "gpqa_diamond.csv", _csv),
    "code": (CODE, "test6.jsonl", _jsonl),
    "long": (LONG, "data.json", _json),
    "mmlu-pro": (MMLU_PRO, "test-00000-of-00001.parquet", _parquet),
    "ifeval": (IFEVAL, "ifeval_input_data.jsonl", _jsonl),
}
"""By suite: the rows, the file's name, and what writes it."""


def local_copy(suite: str, folder: Path, rows: list[dict[str, Any]] | None = None) -> Path:
    """Write the small copy of a suite's questions into a folder, under the file's own name, and return its path."""
    usual, name, write = COPIES[suite]
    folder.mkdir(parents=True, exist_ok=True)
    write(usual if rows is None else rows, folder / name)
    return folder / name


RIGHT: dict[str, dict[str, str]] = {
    "math": {"0": r"so \boxed{3}, no: \boxed{1}.", "1": r"\boxed{003}", "2": r"\boxed{\frac{12}{2}}"},
    "hmmt": {"1": r"\boxed{3/7}", "2": r"\boxed{\sqrt{8}}"},
    "code": {
        "abc_a": "Easy.\n```python\nprint(sum(map(int, input().split())))\n```",
        "3001": "```python\nclass Solution:\n    def double(self, n: int) -> int:\n        return 2 * n\n```",
    },
    "ifeval": {"1000": "Hello there", "1001": "hello to all of you"},
}
"""Right answers by suite and question; those of letters depend on the order of choices."""
WRONG: dict[str, dict[str, str]] = {
    "math": {"0": r"\boxed{2}", "1": "3", "2": r"\boxed{6"},
    "hmmt": {"1": r"\boxed{0.43}", "2": r"\boxed{2}"},
    "code": {
        "abc_a": "```python\nprint(3)\n```",  # passes the open test only
        "3001": "```python\ndef double(n):\n    return abs(2 * n)\n```",
    },
    "ifeval": {"1000": "Hello, there", "1001": "Hello to all of you"},
}
