"""From worked programs to graded ones by commands: `recipes/tiny/code.yaml` with a few steps."""

import json
from pathlib import Path

import pytest

from pipo_core.files import read_json, read_jsonl
from pipo_core.grade.programs import extract_program
from tests.isolation import lacks_isolation
from tests.test_demo import pipo

SMALL = (
    "data.worked.count=200",
    *(f"{stage}.{change}" for stage in ("base", "regular-sft", "pipo-sft") for change in ("max_steps=2", "seed=1")),
    "eval.problems.count=3",
    "eval.samples=1",
    "eval.budget={tokens: 40, slots: 40}",
)


@pytest.mark.slow
@pytest.mark.skipif(lacks_isolation() is not None, reason="this machine cannot isolate programs")
def test_programs_in_small(tmp_path: Path) -> None:
    words = ("run", "recipes/tiny/code.yaml", *SMALL, "--out", str(tmp_path), "--json")
    first = pipo(*words)
    assert first.returncode == 0, first.stderr[-4000:]
    result = json.loads(first.stdout)
    assert [stage["skipped"] for stage in result["stages"]] == [False] * 6

    folder = tmp_path / "tiny-code"
    rows = list(read_jsonl(folder / "data" / "train.jsonl"))
    assert len(rows) == 200
    for row in rows:
        program = extract_program(row["messages"][1]["content"])
        assert program is not None
        assert program.startswith("def f(x):\n    return ")

    (suite,) = read_json(folder / "eval" / "results.json")["suites"]
    assert (suite["suite"], suite["problems"]) == ("tiny-code", 3)
    labels = [arm["label"] for arm in suite["arms"]]
    assert labels == ["base", "regular-sft", "pipo-sft@0.5", "pipo-sft@0.95"]
    for label in labels:
        lines = read_jsonl(folder / "eval" / "answers" / "tiny-code" / f"{label}.jsonl")
        assert sum("correct" in line for line in lines) == 3
    assert "tiny-code" in Path(result["report"]).read_text()

    again = pipo(*words)
    assert again.returncode == 0, again.stderr[-4000:]
    assert all(stage["skipped"] for stage in json.loads(again.stdout)["stages"])
