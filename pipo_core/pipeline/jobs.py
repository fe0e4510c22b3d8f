"""The job of each recipe kind. A job's module, and torch with it, is imported when the job runs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipo_core.reporting import Reporter

Job = Callable[[Any, Path, Reporter, str], dict[str, Any]]
"""Works in its folder and returns a JSON-able summary; called again with the same recipe it goes on.

The last argument is the fingerprint of the stage's identity, for what a job stamps and later goes on from.
"""


def _train(recipe: Any, out: Path, reporter: Reporter, made_by: str) -> dict[str, Any]:
    from pipo_core.train.sft import run_train

    return _drawn(run_train(recipe, out, made_by=made_by, reporter=reporter), out)


def _distill(recipe: Any, out: Path, reporter: Reporter, made_by: str) -> dict[str, Any]:
    from pipo_core.train.opd import run_distill

    return _drawn(run_distill(recipe, out, made_by=made_by, reporter=reporter), out)


def _drawn(summary: dict[str, Any], out: Path) -> dict[str, Any]:
    """Draw how well the gate of a training is calibrated, beside its figures."""
    from pipo_core.pipeline import plots

    if summary.get("calibration"):
        plots.calibration(summary["calibration"], out)
    return summary


def _merge(recipe: Any, out: Path, reporter: Reporter, _: str) -> dict[str, Any]:
    from pipo_core.merge import run_merge

    return run_merge(recipe, out, reporter=reporter)


def _rollout(recipe: Any, out: Path, reporter: Reporter, _: str) -> dict[str, Any]:
    from pipo_core.data.rollouts import run_rollout
    from pipo_core.grade.math import MathGrader

    # Data and grading are neighbours that do not know each other; they meet here.
    with MathGrader() as grader:
        return run_rollout(recipe, out, reporter=reporter, judge=grader.grade)


def _build(recipe: Any, out: Path, reporter: Reporter, _: str) -> dict[str, Any]:
    from pipo_core.data.build import run_build

    return run_build(recipe, out, reporter=reporter)


def _eval(recipe: Any, out: Path, reporter: Reporter, _: str) -> dict[str, Any]:
    from pipo_core.evaluate.runner import run_eval

    return run_eval(recipe, out, reporter=reporter)


def _bench(recipe: Any, out: Path, reporter: Reporter, _: str) -> dict[str, Any]:
    from pipo_core.bench.runner import run_bench
    from pipo_core.pipeline import plots

    results = run_bench(recipe, out, reporter=reporter)
    plots.latency(results, out)
    plots.throughput(results, out)
    return results


JOBS: Mapping[str, Job] = {
    "train": _train,
    "distill": _distill,
    "rollout": _rollout,
    "build": _build,
    "merge": _merge,
    "eval": _eval,
    "bench": _bench,
}
