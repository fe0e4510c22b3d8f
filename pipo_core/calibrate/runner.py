"""`pipo calibrate`: asks and grades, times steps, and writes the profile that follows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipo_core.calibrate.answers import Answered, measure_answers
from pipo_core.calibrate.steps import StepTimes, check_steps, measure_steps, step_seconds
from pipo_core.calibrate.words import findings
from pipo_core.engine import Engines
from pipo_core.engine.profiles import checkpoint_of, machine_of
from pipo_core.evaluate.lossless import read_proofs
from pipo_core.evaluate.statistics import Estimate, mean_with_interval, paired_difference
from pipo_core.files import write_record
from pipo_core.recipes.base import dump
from pipo_core.recipes.calibrate import CalibrateRecipe
from pipo_core.recipes.methods import Decoding
from pipo_core.recipes.profile import PROFILE, Cost, Interval, Load, Profile, Setting, recommended
from pipo_core.reporting import Reporter, SilentReporter

Arms = list[tuple[str, Decoding]]


def run_calibrate(
    recipe: CalibrateRecipe,
    out: Path,
    *,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Measure and write ``out/profile.json``; return the profile with its findings in words.

    A second call asks and times only what is missing.

    Args:
        recipe: the settings, with paths on this disk in place of names.
        out: the stage's folder, which exists.
        reporter: shows progress and warnings.

    Raises:
        UsageError: if requests of the loads' context can never fit.
        CheckpointError: if a checkpoint cannot be read, or has not the parts that its method needs.
        MachineError: if the device is absent, a batch does not fit, or a grader lacks a library.
        PipoError: if an engine fails, or the requests of a load do not run at once.
    """
    reporter = reporter or SilentReporter()
    engines = Engines()  # all share the weights
    ckpt = Path(recipe.ckpt)
    here = machine_of(recipe.engine)
    check_steps(recipe, engines.open)
    asked, answered = measure_answers(recipe, out, engines.open, reporter)
    times = measure_steps(recipe, out, here, engines.open, reporter)
    arms = [*recipe.pairs(), *recipe.uncompressed()]
    settings = make_settings(arms, answered, recipe.seed)
    profile = Profile(
        checkpoint=checkpoint_of(ckpt, with_draft_vocab=any(size is not None for size in recipe.draft_vocab)),
        regular=None if recipe.regular is None else checkpoint_of(Path(recipe.regular.ckpt)),
        machine=here,
        asked=asked,
        context=recipe.loads.context,
        settings=settings,
        loads=[make_load(requests, arms, settings, answered, at_load) for requests, at_load in times.items()],
    )
    proofs = [str(proof["words"]) for proof in read_proofs(out).values()]
    write_record(out / PROFILE, dump(profile))
    return {"artifact": PROFILE, "profile": dump(profile), "findings": [*findings(profile), *proofs]}


def make_settings(arms: Arms, answered: Mapping[str, Answered], seed: int) -> list[Setting]:
    """Return every setting with its accuracy, and how far it is from the most accurate pair setting's.

    Args:
        arms: name and decoding of every setting.
        answered: their answers, by label.
        seed: of the bootstrap.
    """
    averages = {label: one.average for label, one in answered.items() if one.average is not None}
    of_pairs = [decoding.label(name) for name, decoding in arms if decoding.tau is not None]
    best = max(
        (label for label in of_pairs if label in averages), key=lambda label: averages[label].mean(), default=None
    )
    found = []
    for name, decoding in arms:
        label = decoding.label(name)
        one = answered[label]
        accuracy = difference = None
        if best is not None:
            average = averages[label]
            accuracy = _interval(mean_with_interval(average, seed=seed))
            difference = Interval(value=0.0, low=0.0, high=0.0)
            if not np.array_equal(average, averages[best]):
                difference = _interval(paired_difference(average, averages[best], seed=seed))
        found.append(
            Setting(
                label=label,
                method=decoding.method,
                tau=decoding.tau,
                draft_vocab=decoding.draft_vocab,
                drafts=decoding.drafts,
                tokens_per_step=one.tokens_per_step,
                answer_tokens=one.tokens / one.answers,
                accuracy=accuracy,
                difference=difference,
            )
        )
    return found


def make_load(
    requests: int, arms: Arms, settings: list[Setting], answered: Mapping[str, Answered], times: StepTimes
) -> Load:
    """Return what every setting costs at one load, and what is recommended there.

    Expected are ``requests · tokens a step / seconds of a step`` tokens a second, and as many right answers as their
    tokens hold::

        right a second = tokens a second · right answers / tokens of all answers

    Args:
        requests: that decode together.
        arms: name and decoding of every setting.
        settings: the settings, in the same order.
        answered: their answers, by label.
        times: seconds of steps at this load.
    """
    costs = []
    for (name, decoding), setting in zip(arms, settings, strict=True):
        seconds = step_seconds(times, name, decoding, setting.tokens_per_step)
        speed = requests * setting.tokens_per_step / seconds
        one = answered[setting.label]
        right = None if one.right is None else speed * one.right / one.tokens
        costs.append(Cost(label=setting.label, step_s=seconds, tokens_per_second=speed, right_per_second=right))
    load = Load(requests=requests, costs=costs)
    best, best_pairs = recommended(load, settings)
    return load.model_copy(
        update={"best": best and best.label, "best_pairs": best_pairs and best_pairs.label},
    )


def _interval(estimate: Estimate) -> Interval:
    return Interval(value=estimate.value, low=estimate.low, high=estimate.high)
