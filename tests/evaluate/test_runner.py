import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipo_core.data.answers import AnswerLog
from pipo_core.errors import PipoError, UsageError
from pipo_core.evaluate.plan import both_budgets, limits
from pipo_core.evaluate.runner import run_eval
from pipo_core.evaluate.table import detectable_note, suite_results, tables
from pipo_core.files import read_json, read_jsonl
from pipo_core.grade import MathGrader
from pipo_core.recipes.common import Budget
from pipo_core.recipes.evaluate import EvalRecipe
from pipo_core.recipes.methods import METHODS, Decoding, MethodName
from pipo_core.tables import markdown
from tests.evaluate.timeless import timeless

BUDGET = 24
Make = Callable[[str], str]


@pytest.fixture
def recipe(checkpoint: Make) -> EvalRecipe:
    return EvalRecipe.model_validate(
        {
            "problems": {"count": 30, "seed": 1},
            "sampling": "paper",
            "samples": 3,
            "seed": 5,
            "budget": {"tokens": BUDGET, "slots": BUDGET},
            "arms": [
                {"name": "base", "method": "regular", "ckpt": checkpoint("base")},
                {"name": "pair", "method": "pipo", "ckpt": checkpoint("pair"), "tau": [0.0, 0.95]},
            ],
            "baseline": "base",
        }
    )


def changed(recipe: EvalRecipe, **changes: Any) -> EvalRecipe:
    return EvalRecipe.model_validate({**recipe.model_dump(), **changes})


def only(results: dict[str, Any]) -> dict[str, Any]:
    """Return the results of the only suite."""
    (suite,) = suite_results(results)
    return dict(suite)


def arm(results: dict[str, Any], label: str) -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = [entry for entry in only(results)["arms"] if entry["label"] == label]
    return found


def test_every_answer_is_a_row_with_all_its_figures(recipe: EvalRecipe, opener: Any, tmp_path: Path) -> None:
    results = run_eval(recipe, tmp_path, open_engine=opener())
    assert read_json(tmp_path / "results.json") == results
    assert [entry["label"] for entry in only(results)["arms"]] == ["base", "pair@0", "pair@0.95"]
    assert only(results)["budget"] == {"tokens": BUDGET, "slots": BUDGET}
    for label in ("base", "pair@0", "pair@0.95"):
        lines = read_jsonl(tmp_path / "answers" / "tiny" / f"{label}.jsonl")
        rows, verdicts = lines[:90], lines[90:]
        assert len({row["id"] for row in rows}) == 90
        assert set(rows[0]) == {
            *("id", "problem", "sample", "text", "tokens", "written", "slots", "kept", "drafts", "finish_reason"),
            *(
                "slot_token_counts",
                "prompt_tokens",
                "ttft_s",
                "time_s",
                "question",
                "answer",
                "level",
                "asked",
                "session",
                "at_s",
            ),
        }
        assert len(verdicts) == 90
        assert set(verdicts[0]) == {"problem", "sample", "correct", "undecided", "judged"}
        by_problem = defaultdict(set)
        for row in rows:
            by_problem[row["problem"]].add(row["sample"])
        assert len(by_problem) == 30
        assert all(samples == {0, 1, 2} for samples in by_problem.values())


@pytest.mark.parametrize("unit", ["tokens", "slots"])
def test_each_budget_is_what_a_generation_under_that_limit_alone_gives(
    recipe: EvalRecipe, opener: Any, tmp_path: Path, unit: str
) -> None:
    opened = opener()
    results = run_eval(recipe, tmp_path, open_engine=opened)
    for engine, label in zip(opened.engines, ("base", "pair@0", "pair@0.95"), strict=True):
        right = finished = tokens = slots = drafts = kept = 0
        for request in engine.seen:
            alone = engine.answer(
                type(request)(
                    **{
                        **vars(request),
                        "max_tokens": BUDGET if unit == "tokens" else None,
                        "max_slots": BUDGET if unit == "slots" else None,
                    }
                )
            )
            ended = alone.finish_reason == "stop"
            answer = next(
                row["answer"]
                for row in read_jsonl(tmp_path / "answers" / "tiny" / f"{label}.jsonl")
                if row.get("id") == request.id
            )
            finished += ended
            right += ended and f"{{{answer}}}" in alone.text
            tokens += sum(alone.slot_token_counts)
            slots += alone.slots
            drafts += alone.drafts
            kept += alone.kept
        at = arm(results, label)["budgets"][unit]
        assert at["avg"]["value"] == pytest.approx(right / 90)
        assert at["finished"] == pytest.approx(finished / 90)
        assert at["mean_tokens"] == pytest.approx(tokens / 90)
        assert at["tokens_per_slot"] == pytest.approx(tokens / slots)
        assert (at["drafts"], at["drafts_kept"]) == (drafts, pytest.approx(kept / drafts) if drafts else None)
    pair = arm(results, "pair@0")["budgets"]
    assert pair["tokens"]["finished"] < pair["slots"]["finished"]  # so the two budgets differ here


@pytest.mark.parametrize(("tokens", "slots"), [(100, 100), (100, None), (None, 100), (300, 100), (50, 100)])
@pytest.mark.parametrize("drafts", [1, 3, 5])
@pytest.mark.parametrize("method", METHODS)
def test_one_generation_reaches_both_budgets_whatever_a_step_writes(
    method: MethodName, drafts: int, tokens: int | None, slots: int | None
) -> None:
    """No answer may be cut before both budgets are used up, whether its steps write one token or the most."""
    budgets = both_budgets(Budget(tokens=tokens, slots=slots))
    decoding = Decoding(method, drafts=drafts if "drafts" in METHODS[method].options else None)
    max_tokens, max_slots = limits(budgets, decoding)
    for per_step in (1, decoding.max_step_tokens):
        assert max_tokens >= per_step * budgets["slots"]
        assert max_slots >= budgets["tokens"]


@pytest.mark.parametrize(("method", "most"), [("regular", 100), ("mtp", 200), ("eagle", 400), ("pipo", 200)])
def test_a_hundred_steps_write_what_the_method_can(method: MethodName, most: int) -> None:
    assert limits({"tokens": 100, "slots": 100}, Decoding(method)) == (most, 100)


@pytest.mark.parametrize("after", [1, 40, 89])
def test_an_interrupted_run_goes_on_and_ends_the_same(
    recipe: EvalRecipe, opener: Any, tmp_path: Path, after: int
) -> None:
    whole = run_eval(recipe, tmp_path / "whole", open_engine=opener())
    out = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        run_eval(recipe, out, open_engine=opener(stop_after=after))
    assert not (out / "results.json").exists()
    path = out / "answers" / "tiny" / "base.jsonl"
    kept = {row["id"] for row in read_jsonl(path)}
    assert len(kept) == after
    with path.open("a") as file:
        file.write('{"id": "half a ro')  # what a killed process may leave
    second = opener()
    assert timeless(run_eval(recipe, out, open_engine=second)) == timeless(whole)
    first_arm = {request.id for request in second.engines[0].seen}
    assert first_arm.isdisjoint(kept)
    assert len(first_arm) == 90 - after
    assert len(read_jsonl(path)) == 180  # answers and verdicts


def test_a_finished_run_opens_no_checkpoint(recipe: EvalRecipe, opener: Any, tmp_path: Path) -> None:
    results = run_eval(recipe, tmp_path, open_engine=opener())
    again = opener()
    assert timeless(run_eval(recipe, tmp_path, open_engine=again)) == timeless(results)
    assert again.engines == []


def test_more_samples_add_to_those_there(recipe: EvalRecipe, opener: Any, tmp_path: Path) -> None:
    run_eval(recipe, tmp_path, open_engine=opener())
    more = opener()
    grown = run_eval(changed(recipe, samples=5), tmp_path, open_engine=more)
    assert len(more.asked) == 3 * 30 * 2
    fresh = run_eval(changed(recipe, samples=5), tmp_path / "fresh", open_engine=opener())
    assert timeless(grown) == timeless(fresh)


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling": {"temperature": 0.5}},
        {"budget": {"tokens": 30, "slots": 30}},
        {"problems": {"count": 30, "seed": 2}},
        {"seed": 6},
    ],
)
def test_answers_to_another_prompt_are_asked_again_with_a_warning(
    recipe: EvalRecipe, opener: Any, tmp_path: Path, listener: Any, changes: dict[str, Any]
) -> None:
    run_eval(recipe, tmp_path, open_engine=opener())
    old = (tmp_path / "answers" / "tiny" / "base.jsonl").read_text()
    other, second = changed(recipe, **changes), opener()
    results = run_eval(other, tmp_path, open_engine=second, reporter=listener)
    assert len(second.asked) == 270
    if "problems" not in changes:  # other problems have other ids
        assert len(listener.warnings) == 3
        assert all("90 answers belong to another prompt" in warning for warning in listener.warnings)
    assert (tmp_path / "answers" / "tiny" / "base.jsonl").read_text().startswith(old)
    assert timeless(results) == timeless(run_eval(other, tmp_path / "fresh", open_engine=opener()))


def test_a_run_killed_while_grading_asks_nothing_again(
    recipe: EvalRecipe, opener: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_eval(recipe, tmp_path / "whole", open_engine=opener())
    judge, calls = MathGrader.grade, []

    def interrupted(self: MathGrader, text: str, answer: object) -> bool | None:
        calls.append(text)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return judge(self, text, answer)

    monkeypatch.setattr(MathGrader, "grade", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_eval(recipe, tmp_path / "killed", open_engine=opener())
    second = opener()
    assert timeless(run_eval(recipe, tmp_path / "killed", open_engine=second)) == timeless(whole)
    assert second.asked == []


def test_grading_is_tried_again_and_then_marked(
    recipe: EvalRecipe, opener: Any, tmp_path: Path, listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = MathGrader.grade
    broken: list[str] = []

    def sometimes(self: MathGrader, text: str, answer: object) -> bool | None:
        if answer in ("3", "4") and (answer == "3" or broken.count(text) == 0):
            broken.append(text)
            return None
        return judge(self, text, answer)

    monkeypatch.setattr(MathGrader, "grade", sometimes)
    arms = [recipe.model_dump()["arms"][0]]
    wide = {"tokens": 200, "slots": 200}
    results = run_eval(
        changed(recipe, arms=arms, budget=wide), tmp_path, open_engine=opener(skills={"base": 1.0}), reporter=listener
    )
    with AnswerLog(tmp_path / "answers" / "tiny" / "base.jsonl") as log:
        rows = [log.row(key) for key in log.answers]
    assert {row["answer"] for row in rows if row["undecided"]} == {"3"}
    assert {row["answer"] for row in rows if not row["correct"]} == {"3"}
    undecided = sum(row["undecided"] for row in rows)
    assert arm(results, "base")["budgets"]["tokens"]["undecided"] == undecided > 0
    assert listener.warnings == [f"{undecided} answers count as wrong because their grading broke off twice"]


def test_a_grader_that_fails_names_the_answer_and_loses_nothing(
    recipe: EvalRecipe, opener: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_eval(recipe, tmp_path / "whole", open_engine=opener())
    judge = MathGrader.grade

    def failing(self: MathGrader, text: str, answer: object) -> bool | None:
        if answer == "3":
            raise ValueError("out of order")
        return judge(self, text, answer)

    with monkeypatch.context() as patch:
        patch.setattr(MathGrader, "grade", failing)
        with pytest.raises(PipoError, match=r"the grader failed on .*#\d with reference answer '3': out of order"):
            run_eval(recipe, tmp_path / "failed", open_engine=opener())
    assert timeless(run_eval(recipe, tmp_path / "failed", open_engine=opener())) == timeless(whole)


def test_answers_that_never_end_give_a_warning(recipe: EvalRecipe, opener: Any, tmp_path: Path, listener: Any) -> None:
    arms = [recipe.model_dump()["arms"][0]]
    short = {"tokens": 3, "slots": 3}
    run_eval(changed(recipe, arms=arms, budget=short), tmp_path, open_engine=opener(), reporter=listener)
    (warning,) = listener.warnings
    assert "eval tiny base: only" in warning
    assert "of the answers ended by themselves" in warning


def test_files_of_older_versions_are_read(recipe: EvalRecipe, opener: Any, tmp_path: Path) -> None:
    """Older lines hold answer and verdict together, without a fingerprint of what was asked."""
    whole = run_eval(recipe, tmp_path / "new", open_engine=opener())
    for path in (tmp_path / "new" / "answers" / "tiny").glob("*.jsonl"):
        with AnswerLog(path) as log:
            rows = [log.row(key) for key in log.answers]
        old = tmp_path / "old" / "answers" / "tiny" / path.name
        old.parent.mkdir(parents=True, exist_ok=True)
        dropped = ("asked", "undecided", "written", "prompt_tokens", "question", "level", "instruction")
        lines = [json.dumps({key: value for key, value in row.items() if key not in dropped}) for row in rows]
        old.write_text("\n".join(lines) + "\n")
    second = opener()
    assert timeless(run_eval(recipe, tmp_path / "old", open_engine=second)) == timeless(whole)
    assert second.engines == []


def test_all_arms_get_the_same_noise_and_no_two_answers_do(recipe: EvalRecipe, opener: Any, tmp_path: Path) -> None:
    opened = opener()
    run_eval(recipe, tmp_path, open_engine=opened)
    assert [decoding.tau for decoding in opened.opened] == [None, 0.0, 0.95]
    seeds = [{request.id: request.sampling.seed for request in engine.seen} for engine in opened.engines]
    assert seeds[0] == seeds[1] == seeds[2]
    assert len(set(seeds[0].values())) == 90
    assert all(0 <= seed < 2**63 for seed in seeds[0].values())


def test_equal_arms_differ_by_nothing_and_better_ones_by_their_skill(
    recipe: EvalRecipe, opener: Any, tmp_path: Path, checkpoint: Make
) -> None:
    arms = [{"name": name, "method": "regular", "ckpt": checkpoint(name)} for name in ("one", "twin", "expert")]
    wide = {"tokens": 200, "slots": 200}
    results = run_eval(
        changed(recipe, arms=arms, baseline="one", budget=wide, problems={"count": 200, "seed": 0}),
        tmp_path,
        open_engine=opener(skills={"one": 0.6, "twin": 0.6, "expert": 0.9}),
    )
    assert arm(results, "one")["budgets"]["tokens"]["difference"] is None
    twin = arm(results, "twin")["budgets"]["tokens"]["difference"]
    assert (twin["value"], twin["p"]) == (0, 1)
    expert = arm(results, "expert")["budgets"]["tokens"]["difference"]
    assert expert["low"] < 0.3 < expert["high"]
    assert expert["low"] > 0.15
    for name, skill in (("one", 0.6), ("expert", 0.9)):
        average = arm(results, name)["budgets"]["slots"]["avg"]
        assert average["low"] < skill < average["high"]


def test_an_engine_that_loses_answers_is_an_error(recipe: EvalRecipe, opener: Any, tmp_path: Path) -> None:
    with pytest.raises(PipoError, match="no answer to 2 of 90 requests"):
        run_eval(recipe, tmp_path, open_engine=opener(lose=2))
    assert not (tmp_path / "results.json").exists()


def test_empty_columns_are_left_out(recipe: EvalRecipe, opener: Any, tmp_path: Path) -> None:
    arms = [arm.model_dump() for arm in recipe.arms if arm.method == "regular"]
    found = tables(run_eval(changed(recipe, arms=arms, baseline=None), tmp_path, open_engine=opener()))
    accuracy, passes, cost = found[:3]
    assert accuracy.columns == ["arm", "avg@3 %", "finished %"]
    assert passes.columns == ["arm", "pass@2 %", "pass@3 %"]
    assert cost.columns == ["arm", "tokens a slot", "cut off", "tokens", "steps", "s"]
    for table in (accuracy, passes, cost):
        assert {len(row) for row in table.rows} == {len(table.columns)}


def test_budgets_with_the_same_figures_share_their_tables(recipe: EvalRecipe, opener: Any, tmp_path: Path) -> None:
    results = run_eval(recipe, tmp_path, open_engine=opener())
    assert len(tables(results)) == 8 + 2  # and two curves
    for entry in only(results)["arms"]:
        entry["budgets"]["slots"] = dict(entry["budgets"]["tokens"])
    accuracy, passes, cost, _ = tables(results)[:4]
    assert "at most 24 tokens or 24 slots: problems that one of k answers solves" in passes.title
    assert "at most 24 tokens or 24 slots; the figures are the same at both budgets" in accuracy.title
    assert "at most 24 tokens or 24 slots:" in cost.title


def test_a_baseline_with_several_thresholds_is_refused(recipe: EvalRecipe, opener: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="stands for 2 runs"):
        run_eval(changed(recipe, baseline="pair"), tmp_path, open_engine=opener())


def test_tables_show_the_results(recipe: EvalRecipe, opener: Any, tmp_path: Path) -> None:
    results = run_eval(recipe, tmp_path, open_engine=opener())
    found = tables(results)
    assert len(found) == 10
    for unit, (accuracy, passes, cost, right_cost) in (("tokens", found[:4]), ("slots", found[4:8])):
        for table in (accuracy, passes, cost, right_cost):
            assert f"24 {unit}" in table.title
            assert [row[:2] for row in table.rows] == [["base", "–"], ["pair", "0"], ["pair", "0.95"]]
        figures = [entry["budgets"][unit] for entry in only(results)["arms"]]
        shown = sorted((f"{100 * at['detectable']:.1f}" for at in figures[1:]), key=float)
        points = " to ".join(dict.fromkeys(shown))
        assert accuracy.note == (
            f"30 problems × 3 answers cannot see a difference below {points} points (80 % power, 5 % level)."
        )
        for several, at in zip(passes.rows, figures, strict=True):
            for k, cell in zip((2, 3), several[2:], strict=True):
                assert float(cell.split()[0]) == pytest.approx(100 * at["pass"][str(k)]["value"], abs=0.05)
        rows = zip(accuracy.rows, cost.rows, right_cost.rows, only(results)["arms"], strict=True)
        for right, paid, dear, entry in rows:
            cells = dict(zip(accuracy.columns, right, strict=True)) | dict(zip(cost.columns, paid, strict=True))
            at = entry["budgets"][unit]
            value, low, high = (100 * at["avg"][name] for name in ("value", "low", "high"))
            assert cells["avg@3 %"] == f"{value:.1f} [{low:.1f}, {high:.1f}]"
            assert float(cells["tokens a slot"]) == pytest.approx(at["tokens_per_slot"], abs=0.005)
            steps = at["mean_tokens"] / at["tokens_per_slot"]
            assert float(cells["steps"]) == pytest.approx(steps, abs=0.05)
            carried = dict(zip(right_cost.columns, dear, strict=True))
            assert float(carried["steps"]) == pytest.approx(100 * steps / value, abs=0.05)
            if entry["label"] == "base":
                assert (cells["Δ to base"], cells["drafts kept %"]) == ("–", "–")
            else:
                assert float(cells["drafts kept %"]) == pytest.approx(100 * at["drafts_kept"], abs=0.05)
                difference, p = cells["Δ to base"].split(", p ")
                assert float(difference.split()[0]) == pytest.approx(100 * at["difference"]["value"], abs=0.05)
                assert p in ("< 0.001", f"= {at['difference']['p']:.3f}")
        for table in (accuracy, passes, cost, right_cost):
            lines = markdown(table).splitlines()
            end = 4 + len(table.rows)
            assert lines[end:] == (["", table.note] if table.note else [])
            assert {line.count("|") for line in lines[2:end]} == {len(table.columns) + 1}


def test_a_blind_gate_keeps_the_share_that_it_is_given(recipe: EvalRecipe, opener: Any, tmp_path: Path) -> None:
    opened = opener()
    gate, pair = recipe.model_dump()["arms"]
    arms = [gate, {**pair, "tau": 0.5}, {**pair, "name": "blind", "tau": None, "acceptance": [0.25, 1.0]}]
    results = run_eval(changed(recipe, arms=arms), tmp_path, open_engine=opened)
    kept_by = [(decoding.tau, decoding.acceptance) for decoding in opened.opened]
    assert kept_by == [(None, None), (0.5, None), (None, 0.25), (None, 1.0)]
    assert [entry["label"] for entry in only(results)["arms"]] == ["base", "pair@0.5", "blind@25%", "blind@100%"]
    assert "25 % blindly" in markdown(tables(results)[0])


def test_what_an_evaluation_cannot_see_is_said_as_far_as_it_is_known(
    recipe: EvalRecipe, opener: Any, tmp_path: Path
) -> None:
    arms = [arm.model_dump() for arm in recipe.arms if arm.method == "regular"]
    results = only(run_eval(changed(recipe, arms=arms, baseline=None), tmp_path, open_engine=opener()))
    at = results["arms"][0]["budgets"]["tokens"]
    points = f"{100 * at['detectable']:.1f}"
    assert detectable_note(results, "tokens") == (
        f"30 problems × 3 answers cannot see a difference below {points} points "
        "(80 % power, 5 % level, against an arm whose answers vary alike)."
    )
    at["detectable"] = None
    assert "cannot see any difference (80 % power" in detectable_note(results, "tokens")
    del at["detectable"]  # as in results of earlier versions
    assert detectable_note(results, "tokens") == ""
