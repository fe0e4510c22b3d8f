"""Calibrations from the first question to the profile, on a small random model; and the figures by themselves."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipo_core.bench.users import measure_users
from pipo_core.calibrate import answers, runner, steps
from pipo_core.calibrate.answers import Answered, read_questions
from pipo_core.calibrate.runner import make_load, make_settings, run_calibrate
from pipo_core.calibrate.steps import STEPS, step_seconds
from pipo_core.calibrate.words import findings, profile_tables
from pipo_core.engine import Engines
from pipo_core.engine.profiles import checkpoint_of, machine_of
from pipo_core.errors import CheckpointError, MissingInputError, UsageError
from pipo_core.evaluate.statistics import mean_with_interval, paired_difference
from pipo_core.files import read_object, write_record
from pipo_core.model.frequent_tokens import FrequentTokens, write_draft_vocab
from pipo_core.pipeline.stage import run_stage
from pipo_core.recipes.calibrate import CalibrateRecipe
from pipo_core.recipes.methods import Decoding
from pipo_core.recipes.profile import Profile, read_profile
from pipo_core.reporting import SilentReporter
from tests.profiles import profile, setting
from tests.tiny import make_model, write_rows

ARMS = [
    ("pipo", Decoding("pipo", tau=0.1)),
    ("pipo", Decoding("pipo", tau=0.9)),
    ("regular", Decoding("regular")),
    ("eagle-3", Decoding("eagle", drafts=3)),
]


class Heard(SilentReporter):
    """Keeps warnings."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warn(self, message: str) -> None:
        self.lines.append(message)


# ------------------------------------------------------------------ figures


def given(*right: float) -> Answered:
    """Answers to as many questions, with the share of right ones of each; 100 tokens each in 60 steps."""
    number = len(right)
    average = np.array(right, dtype=np.float64)
    return Answered(answers=number, tokens=100 * number, steps=60 * number, right=round(sum(right)), average=average)


def test_a_pair_step_is_interpolated_at_what_its_gate_kept() -> None:
    times = {"pipo@0%": 1.0, "pipo@50%": 2.0, "pipo@100%": 5.0, "regular": 0.7, "eagle-3": 9.0}
    pair = Decoding("pipo", tau=0.3)
    found = [step_seconds(times, "pipo", pair, tokens) for tokens in (1.0, 1.25, 1.5, 1.75, 2.0)]
    assert found == pytest.approx([1.0, 1.5, 2.0, 3.5, 5.0])
    assert step_seconds(times, "regular", Decoding("regular"), 1.0) == 0.7
    assert step_seconds(times, "eagle-3", Decoding("eagle", drafts=3), 2.6) == 9.0


def test_accuracies_are_paired_with_the_most_accurate_pair_setting() -> None:
    rng = np.random.default_rng(0)
    low, high, plain = (rng.integers(0, 2, 40).astype(np.float64) for _ in range(3))
    high[:30] = 1.0
    answered = {"pipo@0.1": given(*low), "pipo@0.9": given(*high), "regular": given(*plain), "eagle-3": given(*plain)}
    found = {one.label: one for one in make_settings(ARMS, answered, seed=3)}
    for label, average in (("pipo@0.1", low), ("regular", plain)):
        accuracy, difference = mean_with_interval(average, seed=3), paired_difference(average, high, seed=3)
        dumped = found[label].model_dump()
        assert dumped["accuracy"] == accuracy.as_dict()
        assert {**dumped["difference"], "p": difference.p} == difference.as_dict()
    assert found["pipo@0.9"].admissible
    assert not found["pipo@0.1"].admissible


def test_expected_speeds_are_tokens_a_step_over_its_time() -> None:
    answered = {label: given(1, 0, 1, 1) for label in ("pipo@0.1", "pipo@0.9", "regular", "eagle-3")}
    answered["regular"] = Answered(answers=4, tokens=400, steps=400, right=3, average=np.array([1.0, 0, 1, 1]))
    settings = make_settings(ARMS, answered, seed=0)
    times = {"pipo@0%": 0.02, "pipo@50%": 0.02, "pipo@100%": 0.02, "regular": 0.01, "eagle-3": 0.05}
    load = make_load(8, ARMS, settings, answered, times)
    assert load.cost("pipo@0.1").tokens_per_second == pytest.approx(8 * (100 / 60) / 0.02)
    assert load.cost("regular").tokens_per_second == pytest.approx(800)
    assert load.cost("regular").right_per_second == pytest.approx(800 * 3 / 400)
    assert (load.best, load.best_pairs) == ("regular", "pipo@0.1")


# ------------------------------------------------------------------ words


def said(*settings: dict[str, Any], **speeds: Any) -> str:
    made = profile(settings, {4: speeds["at_4"]})
    assert all(len(row) == len(table.columns) for table in profile_tables(made) for row in table.rows)
    return "\n".join(findings(made))


def test_it_is_said_plainly_when_regular_decoding_is_faster() -> None:
    pair, low = setting(0.5), setting(0.1, 0.5, -0.2)
    slower = said(low, pair, setting(None), at_4=[9, 3, 2])
    assert "4 requests: use `pipo@0.5`, 3 tokens/s: 1.50× of `regular`" in slower
    faster = said(low, pair, setting(None), at_4=[9, 2, 3])
    assert "4 requests: **regular decoding is faster** (`regular`): 3 tokens/s; the fastest of the pairs is" in faster
    worse = said(low, pair, setting(None, 0.6, -0.1), at_4=[9, 2, 3])
    assert "**regular decoding is faster, and less accurate with certainty**" in worse
    assert "never recommended: `pipo@0.1`" in worse
    assert "Regular decoding was not measured" in said(low, pair, at_4=[9, 2])


def test_without_grades_no_threshold_is_recommended() -> None:
    text = said(setting(0.5, None, None), setting(None, None, None), at_4=[3, 2])
    assert "accuracy is not known and no threshold is recommended" in text
    assert "use `" not in text


def test_without_grades_it_is_said_what_is_left_out_of_other_methods() -> None:
    pair, plain = setting(0.5, None, None), setting(None, None, None)
    eagle = {**plain, "label": "eagle-3", "method": "eagle", "drafts": 3}
    why = "whether pairs are faster, because without grades it is not known which threshold to compare"
    proof = "whether `eagle-3` writes what regular decoding does, which is checked on a suite's questions"
    text = said(pair, plain, eagle, at_4=[3, 2, 4])
    assert f"Left out for `regular`, `eagle-3`: {why}, and {proof}. Their speeds stand in the table." in text
    assert f"Left out for `regular`: {why}. Their" in said(pair, plain, at_4=[3, 2])
    assert "Left out" not in said(pair, at_4=[3])
    assert "Left out" not in said(setting(0.5), setting(None), at_4=[3, 2])


# ------------------------------------------------------------------ whole calibrations


@pytest.fixture(scope="module")
def pair_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrated")
    make_model(folder / "base", layout="base")
    return make_model(folder / "pair", layout="pipo")


def recipe(model: Path, **changes: Any) -> CalibrateRecipe:
    values = {
        "ckpt": str(model),
        "suite": "tiny",
        "problems": {"count": 4},
        "samples": 1,
        "budget": {"tokens": 12},
        "tau": [0.0, 0.9],
        "regular": {"ckpt": str(model.parent / "base"), "drafts": [2]},
        "loads": {"context": 8, "requests": [3, 1], "new_tokens": 16, "trials": 1},
        "engine": {"device": "cpu", "precision": "fp32", "threads": 1, "batch": 4},
    }
    return CalibrateRecipe.model_validate({**values, **changes})


def test_a_calibration_writes_a_profile_and_goes_on_where_it_stopped(
    pair_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = run_calibrate(recipe(pair_model), tmp_path)
    made = read_profile(tmp_path / "profile.json")
    assert made == Profile.model_validate(summary["profile"])
    assert [one.label for one in made.settings] == ["pipo@0", "pipo@0.9", "regular", "eagle-2"]
    assert [load.requests for load in made.loads] == [1, 3]
    assert made.graded
    assert made.settings[0].tokens_per_step == 2.0  # a random model keeps every draft at 0
    assert made.settings[2].tokens_per_step == 1.0
    assert made.machine.threads == 1
    assert made.checkpoint.draft_tokens is None
    assert "eagle-2: 4 of 4 greedy answers equal regular decoding's." in summary["findings"]
    assert (made.asked.what, made.asked.questions, made.asked.samples) == ("tiny", 4, 1)
    # An interrupted second load: only that one is timed, and nothing is asked.
    before = read_object(tmp_path / STEPS)
    write_record(tmp_path / STEPS, {"machine": before["machine"], "loads": before["loads"][:1]})
    timed: list[int] = []

    def measure(*arguments: Any) -> Any:
        timed.extend(arguments[1].requests)
        return measure_users(*arguments)

    def refuse(*_: Any) -> Any:
        raise AssertionError("an answer is asked again")

    monkeypatch.setattr(steps, "measure_users", measure)
    monkeypatch.setattr("pipo_core.data.asking.LazyEngine.get", refuse)
    again = run_calibrate(recipe(pair_model), tmp_path)
    assert timed == [3]
    assert again["profile"]["settings"] == summary["profile"]["settings"]
    assert again["profile"]["loads"][0] == summary["profile"]["loads"][0]
    # Times of another machine are none of this one's.
    write_record(tmp_path / STEPS, {"machine": {**before["machine"], "threads": 99}, "loads": before["loads"]})
    timed.clear()
    run_calibrate(recipe(pair_model), tmp_path)
    assert timed == [1, 3]
    # A damaged file costs its times and no more.
    for damaged in ((tmp_path / STEPS).read_text().replace('"requests": 3', '"requests": 2'), "{"):
        (tmp_path / STEPS).write_text(damaged)
        timed.clear()
        heard = Heard()
        run_calibrate(recipe(pair_model), tmp_path, reporter=heard)
        assert timed == [1, 3]
        assert [line for line in heard.lines if STEPS in line and line.endswith("; all loads are timed again")]


@pytest.mark.parametrize("wrong", ["regular", "context"])
def test_what_cannot_be_timed_is_refused_before_anything_is_asked(
    pair_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setattr(runner, "measure_answers", lambda *_: pytest.fail("questions were asked"))
    if wrong == "regular":
        with pytest.raises(CheckpointError, match="is a pair model, and pairs are compared with an uncompressed one"):
            run_calibrate(recipe(pair_model, regular={"ckpt": str(pair_model)}), tmp_path)
    else:
        loads = {"context": 100_000, "requests": [1]}
        with pytest.raises(UsageError, match=r"a prompt of 100000 tokens and a budget of \d+ can never fit"):
            run_calibrate(recipe(pair_model, loads=loads), tmp_path)


def test_a_calibration_is_a_stage(pair_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "measure_steps", lambda *_: {2: dict.fromkeys(TIMED, 0.01)})
    for skipped in (False, True):
        found = run_stage(recipe(pair_model, run="here"), tmp_path, reporter=SilentReporter())
        assert (found.skipped, found.folder) == (skipped, tmp_path / "here" / "calibrate")
        assert read_profile(found.folder / "profile.json").checkpoint.folder == str(pair_model)
    (found.folder / "profile.json").unlink()
    assert not run_stage(recipe(pair_model, run="here"), tmp_path, reporter=SilentReporter()).skipped
    assert (found.folder / "profile.json").is_file()


def test_a_busy_machine_is_told(tmp_path: Path, pair_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(seconds: list[float]) -> Any:
        trials = [{"label": "pipo@0%", "step_s": one} for one in seconds]
        return lambda *_: iter([({"requests": 1}, trials)])

    here = machine_of(recipe(pair_model).engine)
    monkeypatch.setattr(steps, "open_arms", lambda *_: [])
    for name, seconds, least in (("idle", [0.9, 0.8, 0.82], 0.8), ("busy", [0.4, 0.8, 1.2], 0.4)):
        heard = Heard()
        monkeypatch.setattr(steps, "measure_users", measure(seconds))
        (tmp_path / name).mkdir()
        one = recipe(pair_model, loads={"requests": [1]})
        found = steps.measure_steps(one, tmp_path / name, here, Engines().open, heard)
        assert found == {1: {"pipo@0%": least}}
        assert [("2.0 times as long" in line) for line in heard.lines] == ([True] if name == "busy" else [])


def test_rows_of_a_training_set_are_asked_and_not_graded(
    pair_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 5)
    monkeypatch.setattr(runner, "measure_steps", lambda *_: {2: dict.fromkeys(TIMED, 0.01)})
    asked = {"suite": None, "rows": {"file": str(rows), "count": 3}, "problems": {}, "samples": 2}
    summary = run_calibrate(recipe(pair_model, **asked), tmp_path)
    made = Profile.model_validate(summary["profile"])
    assert (made.asked.questions, made.asked.samples, made.graded) == (3, 2, False)
    assert made.loads[0].best is None
    assert any(line.startswith("Left out for `regular`, `eagle-2`: ") for line in summary["findings"])
    assert made.loads[0].cost("pipo@0").tokens_per_second == pytest.approx(2 * made.settings[0].tokens_per_step / 0.01)
    assert made.loads[0].cost("pipo@0").right_per_second is None


def test_a_profile_of_draft_vocabularies_knows_their_tokens(
    pair_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = shutil.copytree(pair_model, tmp_path / "counted")
    write_draft_vocab(counted, FrequentTokens(list(range(40, 90)), [5] * 50, gate=9))
    timed = ("pipo-9@0%", "pipo-9@50%", "pipo-9@100%")
    monkeypatch.setattr(runner, "measure_steps", lambda *_: {2: dict.fromkeys(timed, 0.01)})
    summary = run_calibrate(recipe(counted, regular=None, draft_vocab=[9]), tmp_path)
    made = Profile.model_validate(summary["profile"])
    assert made.checkpoint == checkpoint_of(counted, with_draft_vocab=True)
    assert made.checkpoint.draft_tokens is not None


TIMED = ("pipo@0%", "pipo@50%", "pipo@100%", "regular", "eagle-2")


def test_rows_are_cut_behind_their_last_question(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    turns = {"system": ["s"], "user": ["1", "3"], "assistant": ["<think>\na</think>\n\n2", "4"]}
    order = ("system", "user", "assistant", "user", "assistant")
    messages = [{"role": role, "content": turns[role].pop(0)} for role in order]
    file.write_text(f"\n{json.dumps({'messages': messages})}\n")
    (name, found), *rest = read_questions(file, 9).items()
    assert (name, rest) == ("row-2", [])
    assert [message["content"] for message in found][-1] == "3"
    file.write_text('{"messages": []}\n')
    with pytest.raises(MissingInputError, match=r"rows\.jsonl:1: no user turn"):
        read_questions(file, 9)


def test_answers_are_those_within_the_token_budget(pair_model: Path, tmp_path: Path) -> None:
    _, found = answers.measure_answers(recipe(pair_model), tmp_path, Engines().open, SilentReporter())
    assert found["pipo@0"].answers == 4
    assert found["pipo@0"].tokens <= 4 * 12  # though the engine writes up to both budgets' limits
