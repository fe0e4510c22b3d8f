"""The job of each recipe kind. A job's module, and with it torch, is imported only when the job runs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipo_core.errors import MachineError, PipoError
from pipo_core.machine import missing_package
from pipo_core.reporting import Reporter

Job = Callable[[Any, Path, Reporter, str], dict[str, Any]]
"""Takes a recipe, its folder, a reporter and the fingerprint of the stage's identity; returns a summary for JSON.

Called again with the same recipe, it resumes. It stamps with the fingerprint what it may resume from.
"""


def _train(recipe: Any, out: Path, reporter: Reporter, made_by: str) -> dict[str, Any]:
    from pipo_core.train.sft import run_train

    return _with_calibration_plot(run_train(recipe, out, made_by=made_by, reporter=reporter), out, reporter)


def _distill(recipe: Any, out: Path, reporter: Reporter, made_by: str) -> dict[str, Any]:
    from pipo_core.train.opd import run_distill

    return _with_calibration_plot(run_distill(recipe, out, made_by=made_by, reporter=reporter), out, reporter)


def _with_calibration_plot(summary: dict[str, Any], out: Path, reporter: Reporter) -> dict[str, Any]:
    """Draw the calibration of a training's gate, if it was measured, and return the summary unchanged."""
    from pipo_core.pipeline import plots

    if summary.get("calibration") and _can_draw(reporter):
        plots.calibration(summary["calibration"], out)
    return summary


def _can_draw(reporter: Reporter) -> bool:
    """Return whether plots can be drawn, which hold nothing that is not in the results; say so if not."""
    lack = missing_plots()
    if lack is not None:
        reporter.warn(f"{lack.message}, and are left out ({lack.hint})")
    return lack is None


def missing_plots() -> MachineError | None:
    """Return the error to raise if plots are needed and cannot be drawn; None if they can."""
    return missing_package("matplotlib", "plots need matplotlib", "report")


def _merge(recipe: Any, out: Path, reporter: Reporter, _: str) -> dict[str, Any]:
    from pipo_core.merge import run_merge

    return run_merge(recipe, out, reporter=reporter)


def _rollout(recipe: Any, out: Path, reporter: Reporter, _: str) -> dict[str, Any]:
    from pipo_core.data.rollouts import run_rollout

    with _judge(recipe.grader) as judge:
        return run_rollout(recipe, out, reporter=reporter, judge=judge)


@contextmanager
def _judge(grader: str) -> Iterator[Callable[[str, Any], bool | None]]:
    """Yield what decides whether an answer is right; leaving the context ends its processes.

    The rooms data and grade do not import each other, so they are joined here.
    """
    if grader == "boxed":
        from pipo_core.grade.math import MathGrader

        with MathGrader() as mathematics:
            yield mathematics.grade
    elif grader == "code":
        from pipo_core.grade.code import CodeGrader

        with CodeGrader() as programs:
            yield programs.grade
    else:
        yield lambda _text, _answer: True  # only finished answers are judged


def _build(recipe: Any, out: Path, reporter: Reporter, _: str) -> dict[str, Any]:
    from pipo_core.data.build import run_build

    return run_build(recipe, out, benchmarks=_benchmark_questions(reporter), reporter=reporter)


def _benchmark_questions(reporter: Reporter) -> dict[str, list[str]]:
    """Return the questions of every shipped suite by its name; none of a suite whose file is not on this disk."""
    from pipo_core.evaluate.suites import bare_questions
    from pipo_core.hub.questions import find_questions, needs_download
    from pipo_core.recipes.locate import shipped_suites
    from pipo_core.recipes.suites import find_suites

    found: dict[str, list[str]] = {}
    for one in {one.name: one for name in shipped_suites() for one in find_suites(name)}.values():
        path = find_questions(one)
        try:
            found[one.name] = [] if path is None and needs_download(one) else bare_questions(one, path)
        except PipoError as error:
            reporter.warn(f"suite {one.name} is not compared with: {error.message}")
            found[one.name] = []
    return found


def _eval(recipe: Any, out: Path, reporter: Reporter, _: str) -> dict[str, Any]:
    from pipo_core.evaluate.runner import run_eval
    from pipo_core.pipeline.carried import carry_answers

    carry_answers(recipe, out, reporter)
    return run_eval(recipe, out, reporter=reporter)


def _bench(recipe: Any, out: Path, reporter: Reporter, _: str) -> dict[str, Any]:
    from pipo_core.bench.runner import run_bench
    from pipo_core.pipeline import speed_plots

    results = run_bench(recipe, out, reporter=reporter)
    if _can_draw(reporter):
        speed_plots.bench(results, out)
    return results


def _calibrate(recipe: Any, out: Path, reporter: Reporter, _: str) -> dict[str, Any]:
    from pipo_core.calibrate.runner import run_calibrate

    return run_calibrate(recipe, out, reporter=reporter)


JOBS: Mapping[str, Job] = {
    "train": _train,
    "distill": _distill,
    "rollout": _rollout,
    "build": _build,
    "merge": _merge,
    "eval": _eval,
    "bench": _bench,
    "calibrate": _calibrate,
}
