"""The grader that a rollout's recipe chooses is the one that judges."""

import json
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, ClassVar, Self

import pytest

from pipo_core.data import rollouts
from pipo_core.files import read_jsonl
from pipo_core.pipeline.jobs import JOBS
from pipo_core.recipes.rollout import RolloutRecipe
from pipo_core.reporting import SilentReporter
from tests.data.fake_engine import FakeEngine

TESTS = {"tests": [{"input": "1", "output": "2"}], "checker": "x"}


class StandInGrader:
    """Stands in for `pipo_core.grade.code.CodeGrader`: right are texts that end in an even digit."""

    log: ClassVar[list[Any]] = []

    def __enter__(self) -> Self:
        self.log.append("opened")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.log.append("closed")

    def grade(self, text: str, answer: object) -> bool | None:
        self.log.append(answer)
        return int(text[-1]) % 2 == 0


def run(out: Path, answer: Any, grader: str, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Roll out twelve answers to one problem; return their lines with the verdicts."""
    out.mkdir()
    (out / "p.jsonl").write_text(json.dumps({"id": "a", "question": "?", "answer": answer}) + "\n")
    monkeypatch.setattr(rollouts, "run_rollout", partial(rollouts.run_rollout, open_engine=FakeEngine().open))
    asked = {"model": "m", "problems": {"source": str(out / "p.jsonl")}, "samples": 12, "budget": {"tokens": 9}}
    recipe = RolloutRecipe.model_validate({**asked, "grader": grader})
    JOBS["rollout"](recipe, out, SilentReporter(), "")
    lines = read_jsonl(out / "rollouts.jsonl")
    verdicts = {line["sample"]: line["correct"] for line in lines if "correct" in line}
    return [{**line, "correct": verdicts[line["sample"]]} for line in lines if "text" in line]


def test_code_is_judged_by_the_code_grader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("pipo_core.grade.code")
    module.CodeGrader = StandInGrader  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pipo_core.grade.code", module)
    monkeypatch.setattr(StandInGrader, "log", [])
    rows = run(tmp_path / "out", TESTS, "code", monkeypatch)
    finished = [row for row in rows if row["finish_reason"] == "stop"]
    assert StandInGrader.log == ["opened", *[TESTS] * len(finished), "closed"]
    assert {row["correct"] for row in finished} == {True, False}
    assert all(row["correct"] == (row["finish_reason"] == "stop" and int(row["text"][-1]) % 2 == 0) for row in rows)
    assert all(row["answer"] is None for row in rows)  # tests have megabytes and are not copied into every answer


def test_boxed_answers_are_judged_as_mathematics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run(tmp_path / "out", "4", "boxed", monkeypatch)
    assert not any(row["correct"] for row in rows)  # seeds have no box
    assert {row["answer"] for row in rows} == {"4"}


def test_without_a_grader_every_finished_answer_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run(tmp_path / "out", None, "none", monkeypatch)
    assert {row["finish_reason"] for row in rows} == {"stop", "length"}
    assert all(row["correct"] == (row["finish_reason"] == "stop") for row in rows)
