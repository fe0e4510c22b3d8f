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


def test_the_most_tokens_a_slot_within_the_interval_of_the_most_accurate_is_recommended() -> None:
    assert label(evaluation(*SWEEP)) == "pipo@0.9"
    near = (arm("pipo", 0.5, 0.881, 1.8), arm("pipo", 0.9, 0.89, 1.5))
    assert label(evaluation(*near)) == "pipo@0.5"


def test_a_price_in_accuracy_is_told() -> None:
    lines = conclusions({"eval": evaluation(arm("pipo", 0.9, 0.85, 1.5))}, {})
    assert any("It costs accuracy" in line for line in lines)
    assert not any("It costs" in line for line in conclusions({"eval": evaluation(arm("pipo", 0.9, 0.9, 1.5))}, {}))


def test_of_two_equally_fast_the_more_accurate() -> None:
    assert label(evaluation(arm("a", 0.5, 0.87, 1.8), arm("b", 0.5, 0.88, 1.8))) == "b@0.5"


def test_each_budget_has_its_own_recommendation() -> None:
    results = json.loads(json.dumps(evaluation(*SWEEP)))
    results["arms"][1]["budgets"]["slots"]["avg"] = estimate(0.9)
    assert (label(results, "tokens"), label(results, "slots")) == ("pipo@0.9", "pipo@0")


def test_without_runs_to_choose_from_nothing_is_recommended() -> None:
    assert recommend(evaluation(), "tokens") is None


def test_verified_drafts_stand_beside_the_pair_model_and_the_winner_is_named() -> None:
    chain = arm("eagle", None, 0.9, 2.9) | {"method": "eagle"}
    results = evaluation(chain, arm("pipo", 0.5, 0.88, 1.8))
    measured = bench()
    quick = measured["lengths"][0]["arms"][1]
    measured["lengths"][0]["arms"].append(quick | {"label": "eagle", "arm": "eagle", "method": "eagle", "tau": None})
    text = "\n".join(conclusions({"eval": results}, {"bench": measured}))
    assert "An answer takes `eagle` 13.8 steps, `pipo@0.5` 22.2 steps. **`eagle` needs the fewest.**" in text
    assert "After a prompt of 64 tokens such an answer takes `pipo@0.5` 273 ms, `eagle` 273 ms" in text


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
            BuildRecipe(rollouts=[str(tmp_path)]),
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
    assert "At 256 tokens or 128 slots an answer, **use τ = 0.9** with `pipo`: 1.50 tokens a slot" in text
    assert "-1.0 points to `regular` [-2.0, " in text
    assert "first token 1.50× as fast as `regular`" in text
    assert "1,200 answers to 300 problems" in text
    assert "1,080 training and 0 validation examples from 1,200 answers; dropped: 120 wrong" in text
    assert "at step 8: loss 0.375, backbone loss 0.125, mtp loss 0.125" in text
    assert "| pipo | 0.5 | 87.0 [86.0, 88.0] |" in text
    assert "| 64 | pipo@0.5 | 13.33 [12.00, 14.67] | 6.67 [6.00, 7.33] | 1.50× | 1.50× |" in text
    assert "at most 256 tokens or, counted by itself, 128 slots" in text
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


def test_pair_models_are_compared_at_the_thresholds_of_both() -> None:
    before = arm("sft", 0.5, 0.8, 1.87), arm("sft", 0.9, 0.82, 1.8), arm("sft", 0.95, 0.7, 1.7)
    after = arm("opd", 0.5, 0.9, 1.97), arm("opd", 0.9, 0.95, 1.94)
    (line,) = [
        line
        for line in conclusions({"eval": evaluation(*before, *after)}, {})
        if line.startswith("From `sft` to `opd`")
    ]
    assert line.startswith("From `sft` to `opd`: at τ = 0.5 ")
    assert " 80.0 → 90.0 % and 1.87 → 1.97 tokens a slot; at τ = 0.9 " in line
    assert line.endswith(" 82.0 → 95.0 % and 1.80 → 1.94 tokens a slot.")
    assert not any(line.startswith("From") for line in conclusions({"eval": evaluation(*before)}, {}))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (59.97, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_of_a_sweep_the_cost_of_the_recommended_threshold_is_told() -> None:
    lines = [line for line in conclusions({"eval": evaluation(*SWEEP)}, {}) if "a right answer takes" in line]
    assert len(lines) == 1
    assert "`pipo@0.9`" in lines[0]
