"""Problem files of others: their columns, forms and folders."""

import json
from pathlib import Path
from typing import Any

import pyarrow  # type: ignore[import-untyped,unused-ignore]
import pyarrow.parquet  # type: ignore[import-untyped,unused-ignore]
import pytest

from pipo_core.data import tables
from pipo_core.data.problems import Problem, gradable, load_problems, user_message
from pipo_core.data.tables import read_table, table_files
from pipo_core.errors import MachineError, MissingInputError
from pipo_core.recipes.problems import Problems

DAPO = [
    {
        "data_source": "math_dapo",
        "prompt": [{"role": "user", "content": f"Solve this. What is {n} + 1? Remember: Answer."}],
        "reward_model": {"ground_truth": str(n + 1), "style": "rule"},
        "extra_info": {"index": f"uuid-{n}"},
    }
    for n in range(3)
]
DAPO_COLUMNS = {"id": "extra_info.index", "question": "prompt.0.content", "answer": "reward_model.ground_truth"}
CODE = [
    {
        "id": f"{n}/A",
        "prompt": f"Write a program for {n}.",
        "language": "python" if n % 2 else "cpp",
        "official_tests": [{"input": "1", "output": str(n)}],
        "generated_checker": "import sys" if n == 3 else None,
        "rating": 800 if n else None,
    }
    for n in range(4)
]


def write(path: Path, rows: list[Any]) -> Path:
    """Write rows in the form that the file's name says."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def load(path: Path, *, answered: bool = True, count: int | None = None, **form: Any) -> list[Problem]:
    chosen = Problems.model_validate({"source": str(path), **form})
    return load_problems(chosen.source, chosen.split, count, chosen.seed, form=chosen, answered=answered)


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.parquet"])
def test_a_foreign_file_needs_no_conversion(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, DAPO)
    found = load(path, columns=DAPO_COLUMNS, strip=["Solve this. ", " Remember: Answer."])
    assert found == [Problem(f"uuid-{n}", f"What is {n} + 1?", str(n + 1)) for n in range(3)]
    assert [problem.id for problem in load(path, columns={"question": "data_source"}, answered=False)] == [
        f"p-{number}" for number in (1, 2, 3)
    ]


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.parquet"])
def test_an_answer_may_be_made_of_several_columns(tmp_path: Path, name: str) -> None:
    columns = {"id": "id", "question": "prompt", "level": "rating"}
    columns |= {"answer": {"tests": "official_tests", "checker": "generated_checker"}}  # type: ignore[dict-item]
    found = load(write(tmp_path / name, CODE), columns=columns, where={"language": "python"})
    assert [(problem.id, problem.level) for problem in found] == [("1/A", "800"), ("3/A", "800")]
    assert found[0].answer == {"tests": [{"input": "1", "output": "1"}]}
    assert found[1].answer == {"tests": [{"input": "1", "output": "3"}], "checker": "import sys"}
    chosen = Problems.model_validate({"source": str(tmp_path / name), "columns": columns})
    assert len(gradable(chosen, "code")) == 4
    assert load(tmp_path / name, columns=columns)[0].level == ""  # null


def test_whole_numbers_of_a_column_with_gaps_are_floats_and_read_as_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [{"q": "?", "a": 1, "level": 800.0}])
    assert load(path, columns={"question": "q", "answer": "a", "level": "level"})[0].level == "800"


@pytest.mark.parametrize(
    ("name", "where"), [("p.jsonl", r"p\.jsonl:1"), ("p.json", r"p\.json: item 1"), ("p.parquet", r"p\.parquet: row 1")]
)
@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"question": "promt"}, r"there is no column 'promt' \(did you mean 'prompt'\?\)"),
        ({"question": "prompt.0.contents"}, r"'prompt\.0\.contents' \(did you mean 'prompt\.0\.content'\?\)"),
        ({"question": "prompt.1.content"}, r"'prompt\.1\.content' \(did you mean 'prompt\.0\.content'\?\)"),
        ({"question": "prompt.content"}, r"'prompt\.content' \(did you mean 'prompt\.0\.content'\?\)"),
        ({"question": "zzz"}, "'zzz'; it has data_source, prompt"),
        ({"question": "data_source.x"}, r"'data_source\.x' \(did you mean 'data_source'\?\)"),
        ({"question": "prompt"}, "a problem needs a question and an answer"),
        ({"question": "data_source", "id": "prompt"}, "the id of a problem is a text or a whole number"),
    ],
)
def test_a_column_that_is_not_there_is_named_with_its_place_and_the_nearest(
    tmp_path: Path, name: str, where: str, columns: dict[str, str], complaint: str
) -> None:
    path = write(tmp_path / name, DAPO)
    with pytest.raises(MissingInputError, match=f"{where}: .*{complaint}"):
        load(path, columns={"answer": "reward_model.ground_truth", **columns})


def test_a_later_row_without_the_column_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [DAPO[0], {**DAPO[1], "reward_model": {}}])
    with pytest.raises(MissingInputError, match=r"p\.jsonl:2: there is no column 'reward_model\.ground_truth'"):
        load(path, columns=DAPO_COLUMNS)


def test_a_column_whose_name_has_a_dot_is_found(tmp_path: Path) -> None:
    for name in ("p.jsonl", "p.parquet"):
        path = write(tmp_path / name, [{"a.b": "?", "a": {"b": "no"}, "c": "4"}])
        assert load(path, columns={"question": "a.b", "answer": "c"})[0].question == "?"


def test_rows_that_lack_what_is_taken_off_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", DAPO)
    for strip, complaint in ((["Do ", ""], "begin with 'Do '"), (["", " Bye."], "end with ' Bye.'")):
        with pytest.raises(MissingInputError, match=rf"p\.jsonl:1: the question does not {complaint}"):
            load(path, columns=DAPO_COLUMNS, strip=strip)


def test_a_condition_that_no_row_meets_says_what_there_is(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", CODE)
    with pytest.raises(MissingInputError, match=r"none of its 4 rows .*language has 'cpp', 'python'"):
        load(path, columns={"question": "prompt"}, where={"language": "Python"}, answered=False)


def test_a_prompt_has_the_question_and_the_instruction_in_their_places(tmp_path: Path) -> None:
    row = {"question": "Is {instruction} a word?", "answer": "1", "instruction": "In brief."}
    path = write(tmp_path / "p.jsonl", [row])
    (problem,) = load(path, prompt="{instruction} Box it.\n\n{question}\nEnd.")
    assert user_message(problem) == "In brief. Box it.\n\nIs {instruction} a word?\nEnd."
    assert problem.question == row["question"]
    assert user_message(load(path)[0]) == "Is {instruction} a word?\nIn brief."


@pytest.mark.parametrize(
    ("form", "complaint"),
    [
        ({"source": "tiny", "columns": {"question": "q"}}, "columns: source: tiny has no columns"),
        ({"source": "tiny", "strip": ["a", "b"]}, "strip: source: tiny has no columns"),
        ({"source": "x/y", "where": {"a": 1}}, "where: needs columns"),
        ({"source": "x/y", "prompt": "no place"}, "must hold {question} once"),
        ({"source": "x/y", "prompt": "{question} {question}"}, "must hold {question} once"),
        (
            {"source": "x/y", "prompt": "{question}", "columns": {"question": "q", "instruction": "i"}},
            "columns.instruction: nothing reads the instruction",
        ),
        ({"source": "x/y", "columns": {"question": "q", "solutions": "s"}}, "Extra inputs are not permitted"),
    ],
)
def test_mappings_that_nothing_reads_are_refused(form: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Problems.model_validate(form)


def test_without_columns_the_strict_form_stays_and_the_hint_names_them(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", [{"question": "?", "answer": "1", "extra": "x"}])
    with pytest.raises(MissingInputError, match=r"p\.parquet: row 1: nothing reads the key 'extra'") as caught:
        load(path)
    assert caught.value.hint is not None
    assert "problems.columns" in caught.value.hint


def test_a_folder_is_its_files_by_name_those_of_the_training_split_alone(tmp_path: Path) -> None:
    for number, name in enumerate(["test-00000-of-00001", "train-00001-of-00002", "train-00000-of-00002"]):
        write(tmp_path / f"{name}.parquet", [{"question": f"{number}?", "answer": "1"}])
    (tmp_path / "README.md").write_text("x")
    found = load(tmp_path)
    assert [(problem.question, problem.id) for problem in found] == [
        ("2?", "train-00000-of-00002-1"),
        ("1?", "train-00001-of-00002-1"),
    ]
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(MissingInputError, match="holds no file of rows"):
        table_files(other)
    write(other / "a.jsonl", [])
    write(other / "b.json", [])
    with pytest.raises(MissingInputError, match=r"files of several kinds \(\.json, \.jsonl\)"):
        table_files(other)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    whole = write(tmp_path / "p.parquet", CODE).read_bytes()
    for content in (b"", whole[:-9], b"PAR1" + bytes(60)):
        (tmp_path / "p.parquet").write_bytes(content)
        with pytest.raises(MissingInputError, match=r"p\.parquet: not readable as parquet"):
            list(read_table(tmp_path / "p.parquet"))
    (tmp_path / "p.json").write_text('[{"a": 1}, 2')
    with pytest.raises(MissingInputError, match=r"p\.json: not JSON, or a line that was cut off"):
        list(read_table(tmp_path / "p.json"))
    (tmp_path / "p.json").write_text('[{"a": 1}, 2]')
    with pytest.raises(MissingInputError, match=r"p\.json: item 2: not a JSON object"):
        list(read_table(tmp_path / "p.json"))
    (tmp_path / "p.json").write_text('{"a": 1}\n{"a": 2}\n')  # many .json files hold JSON lines
    assert [row.values["a"] for row in read_table(tmp_path / "p.json")] == [1, 2]


def test_a_value_that_json_does_not_have_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", [{"q": "?", "a": b"\xff"}])
    with pytest.raises(MissingInputError, match=r"row 1: a value that JSON does not have"):
        load(path, columns={"question": "q", "answer": "a"})


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "p.parquet", CODE)
    monkeypatch.setattr("pipo_core.machine.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MachineError, match="needs pyarrow") as caught:
        list(read_table(path))
    assert caught.value.hint is not None
    assert "[suites]" in caught.value.hint


def test_only_the_wanted_columns_of_a_parquet_file_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "p.parquet", CODE)
    assert [set(row.values) for row in read_table(path, ["prompt", "official_tests.0.input"])] == [
        {"prompt", "official_tests"}
    ] * 4
    assert tables.value_at(next(iter(read_table(path))), "official_tests.0.input") == "1"


@pytest.mark.parametrize(
    ("answer", "grader", "complaint"),
    [
        ({"tests": [{"input": "1", "output": "2"}]}, "boxed", "graded as mathematics"),
        ("4", "code", "graded as programs"),
        ({"tests": []}, "code", "graded as programs"),
        ({"tests": [{"input": "1"}]}, "code", "graded as programs"),
        ({"tests": {"input": "1", "output": "2"}}, "code", "graded as programs"),
    ],
)
def test_answers_that_the_grader_cannot_use_are_refused(
    tmp_path: Path, answer: Any, grader: Any, complaint: str
) -> None:
    path = write(tmp_path / "p.jsonl", [{"id": "a", "question": "?", "answer": answer}])
    with pytest.raises(MissingInputError, match=f"problem a: .*{complaint}"):
        gradable(Problems(source=str(path)), grader)


def test_without_a_grader_no_answer_is_needed(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [{"question": "?"}])
    assert gradable(Problems(source=str(path)), "none")[0].answer == ""
    with pytest.raises(MissingInputError, match="needs a question and an answer"):
        gradable(Problems(source=str(path)), "boxed")


def test_shards_are_disjoint_complete_and_independent_of_order(tmp_path: Path) -> None:
    rows = [{"id": n, "question": f"What is {n}?", "answer": n} for n in range(60)]
    there, back = write(tmp_path / "a.jsonl", rows), write(tmp_path / "b.jsonl", rows[::-1])
    shards = [[problem.id for problem in gradable(Problems(source=str(there)), "boxed", (i, 3))] for i in range(3)]
    assert sorted(int(name) for shard in shards for name in shard) == list(range(60))
    assert all(shards)
    again = [{problem.id for problem in gradable(Problems(source=str(back)), "boxed", (i, 3))} for i in range(3)]
    assert again == [set(shard) for shard in shards]
    # The first problems are chosen before they are shared out.
    few = [problem.id for i in range(3) for problem in gradable(Problems(source=str(there), count=7), "boxed", (i, 3))]
    assert sorted(map(int, few)) == list(range(7))
    tiny = [problem.id for i in range(3) for problem in gradable(Problems(count=20), "boxed", (i, 3))]
    assert sorted(tiny) == sorted(problem.id for problem in gradable(Problems(count=20), "boxed"))
