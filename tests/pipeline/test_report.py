"""The report: which threshold it names, which words it finds, and that its plots are there."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipo_core.files import write_json
from pipo_core.pipeline.recommend import recommend
from pipo_core.pipeline.report import write_report
from pipo_core.pipeline.report_text import conclusions, duration
from pipo_core.pipeline.stage import run_stage
from pipo_core.recipes.bench import BenchRecipe
from pipo_core.recipes.build import BuildRecipe
from pipo_core.recipes.evaluate import EvalRecipe
from pipo_core.recipes.kinds import JobKind
from pipo_core.recipes.rollout import RolloutRecipe
from pipo_core.recipes.sft import TrainRecipe
from pipo_core.reporting import SilentReporter
from tests.samples import arm, bench, estimate, evaluation

SWEEP = (arm("pipo", 0.0, 0.70, 1.95), arm("pipo", 0.5, 0.87, 1.8), arm("pipo", 0.9, 0.89, 1.5))


def label(results: dict[str, Any], unit: str = "tokens") -> str | None:
    found = recommend(results, unit)
    return found.arm["label"] if found else None


def test_the_most_tokens_a_slot_within_the_margin_is_recommended() -> None:
    found = recommend(evaluation(*SWEEP), "tokens")
    assert found is not None
    assert (found.arm["label"], found.within, found.certain) == ("pipo@0.5", True, True)


def test_the_margin_is_five_points() -> None:
    assert label(evaluation(arm("pipo", 0.1, 0.849, 1.9), arm("pipo", 0.9, 0.851, 1.2))) == "pipo@0.9"


def test_of_two_equally_fast_the_more_accurate() -> None:
    assert label(evaluation(arm("a", 0.5, 0.87, 1.8), arm("b", 0.5, 0.88, 1.8))) == "b@0.5"


def test_each_budget_has_its_own_recommendation() -> None:
    results = json.loads(json.dumps(evaluation(*SWEEP)))
    results["arms"][1]["budgets"]["slots"]["difference"] = estimate(0.0)
    assert (label(results, "tokens"), label(results, "slots")) == ("pipo@0.5", "pipo@0")


def test_if_none_is_near_the_nearest_is_named_as_such() -> None:
    found = recommend(evaluation(arm("pipo", 0.0, 0.5, 1.9), arm("pipo", 0.9, 0.6, 1.5)), "tokens")
    assert found is not None
    assert (found.arm["label"], found.within) == ("pipo@0.9", False)


def test_without_runs_to_choose_from_nothing_is_recommended() -> None:
    assert recommend(evaluation(), "tokens") is None


Made = dict[str, dict[str, Any]]


@pytest.fixture
def report(tmp_path: Path) -> Callable[..., str]:
    """Return the text of the report on stages of every kind, whose jobs leave prepared results."""
    model = tmp_path / "model"
    model.mkdir()
    write_json(model / "config.json", {})
    (tmp_path / "train.jsonl").write_text("")
    (tmp_path / "rollouts.jsonl").write_text("")

    def make(results: dict[str, Any], latency: dict[str, Any]) -> str:
        def train(recipe: Any, out: Path, reporter: object, made_by: str) -> dict[str, Any]:
            rows = [
                {"step": step, "loss": 3.0 / step, "backbone_loss": 1.0 / step, "mtp_loss": 1.0 / step}
                for step in range(1, 9)
            ]
            (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            return {}

        def leave(content: dict[str, Any]) -> Callable[..., dict[str, Any]]:
            def job(recipe: Any, out: Path, reporter: object, made_by: str) -> dict[str, Any]:
                write_json(out / "results.json", content)
                return content

            return job

        def summary(content: dict[str, Any]) -> Callable[..., dict[str, Any]]:
            return lambda recipe, out, reporter, made_by: content

        arms = [{"name": "regular", "method": "regular", "ckpt": str(model)}]
        recipes: list[JobKind] = [
            RolloutRecipe.model_validate({"model": str(model), "budget": {"tokens": 9}}),
            BuildRecipe(rollouts=str(tmp_path)),
            TrainRecipe.model_validate({"model": str(model), "data": {"train": str(tmp_path)}, "max_steps": 8}),
            EvalRecipe.model_validate({"arms": arms, "budget": {"tokens": 256}, "baseline": "regular"}),
            BenchRecipe.model_validate({"arms": arms}),
        ]
        jobs = {
            "rollout": summary(
                {"answers": 1200, "problems": 300, "finished": 0.98, "solved": 0.9, "mean_tokens": 41.0}
            ),
            "build": summary({"answers": 1200, "train_rows": 1080, "validation_rows": 0, "dropped": {"wrong": 120}}),
            "train": train,
            "eval": leave(results),
            "bench": leave(latency),
        }
        stages = [run_stage(recipe, tmp_path, reporter=SilentReporter(), jobs=jobs) for recipe in recipes]
        path = write_report(tmp_path / "run", stages)
        assert path == tmp_path / "run" / "report.md"
        return path.read_text()

    return make


def test_the_report_says_what_was_found_and_on_what(tmp_path: Path, report: Callable[..., str]) -> None:
    text = report(evaluation(*SWEEP), bench())
    assert "At 256 tokens an answer, **use τ = 0.5** with `pipo`: 1.80 tokens a slot" in text
    assert "-3.0 points to `regular` [-4.0, -2.0]" in text
    assert "At 128 slots an answer, **use τ = 0.5**" in text
    assert "first token 1.50× as fast as `regular`" in text
    assert "1,200 answers to 300 problems" in text
    assert "1,080 training and 0 validation examples from 1,200 answers; dropped: 120 wrong" in text
    assert "at step 8: loss 0.375, backbone loss 0.125, mtp loss 0.125" in text
    assert "| pipo | 0.5 | 87.0 ± 1.0 |" in text
    assert "| 64 | pipo@0.5 | 13.33 [12.00, 14.67] | 6.67 [6.00, 7.33] | 1.50× | 1.50× | 1.80 |" in text
    assert "at most 256 tokens, or, in the other table, 128 slots" in text
    assert "500 problems with 2 answers each" in text
    assert "torch 2" in text
    assert "cores" in text
    for kind in ("rollout", "build", "train", "eval", "bench"):
        assert f"| {kind} | {kind} |" in text


def test_every_plot_that_the_report_shows_is_there(tmp_path: Path, report: Callable[..., str]) -> None:
    names = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", report(evaluation(*SWEEP), bench()))
    assert len(names) >= 5
    assert len(set(names)) == len(names)
    for name in names:
        assert (tmp_path / "run" / name).read_bytes().startswith(b"\x89PNG")


def test_no_threshold_within_the_margin_is_said() -> None:
    text = "".join(conclusions({"eval": evaluation(arm("pipo", 0.9, 0.6, 1.5))}, {}))
    assert "**no threshold keeps accuracy within 5 points of the baseline.**" in text
    assert "use τ" not in text


def test_doubt_is_said() -> None:
    text = "".join(conclusions({"eval": evaluation(arm("pipo", 0.5, 0.87, 1.8, half=0.04))}, {}))
    assert "only more problems would settle it" in text


def test_pair_models_are_compared_at_the_thresholds_of_both() -> None:
    before = arm("sft", 0.5, 0.8, 1.87), arm("sft", 0.9, 0.82, 1.8), arm("sft", 0.95, 0.7, 1.7)
    after = arm("opd", 0.5, 0.9, 1.97), arm("opd", 0.9, 0.95, 1.94)
    lines = conclusions({"eval": evaluation(*before, *after)}, {})
    assert lines[-1].startswith("From `sft` to `opd`: at τ = 0.5 ")
    assert " 80.0 → 90.0 % and 1.87 → 1.97 tokens a slot; at τ = 0.9 " in lines[-1]
    assert lines[-1].endswith(" 82.0 → 95.0 % and 1.80 → 1.94 tokens a slot.")
    assert not any(line.startswith("From") for line in conclusions({"eval": evaluation(*before)}, {}))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (59.97, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
