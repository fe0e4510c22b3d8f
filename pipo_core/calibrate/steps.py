"""The time of a step by load: measured as the users' table of `pipo bench`, each load once.

A pair step does the same for every threshold, but for the drafts that it projects to the vocabulary. So it is timed at
a few fixed shares of kept drafts (`SHARES`), and for a threshold the time is interpolated at the share that its gate
kept. What verifies drafts samples once more for each draft that it accepts; it is timed on the bench's own prompts.

Whatever else runs on the machine only adds time. So a step's time is that of the quickest trial; if half of the trials
took longer by far, a warning says that the machine was busy.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from pipo_core.bench.arms import OpenEngine, open_arms
from pipo_core.bench.asked import Lengths, check_lengths
from pipo_core.bench.users import measure_users
from pipo_core.errors import CheckpointError, MissingInputError
from pipo_core.files import read_record, write_record
from pipo_core.files.checkpoints import is_pair_model
from pipo_core.recipes.base import dump
from pipo_core.recipes.calibrate import SHARES, CalibrateRecipe
from pipo_core.recipes.methods import Decoding
from pipo_core.recipes.profile import Machine
from pipo_core.reporting import Reporter

STEPS = "steps.json"

_BUSY = 1.25
"""Ratio of the median trial to the quickest beyond which the machine was busy with something else."""

StepTimes = Mapping[str, float]
"""Seconds of a step by the label of what was timed, at one load."""


def measure_steps(
    recipe: CalibrateRecipe, out: Path, here: Machine, open_engine: OpenEngine, reporter: Reporter
) -> dict[int, StepTimes]:
    """Return the seconds of a step by the number of requests, rising, and by label.

    Each load is appended to ``out/steps.json`` when it has been measured; a second call measures only what is missing,
    or all of it on another machine, and if the file is damaged.

    Raises:
        PipoError: if an engine fails, or the requests of a load do not run at once.
    """
    file = out / STEPS
    before = _before(file, reporter)
    rows: list[dict[str, Any]] = before["loads"] if before.get("machine") == dump(here) else []
    wanted = [number for number in sorted(recipe.loads.requests) if number not in {row["requests"] for row in rows}]
    with ExitStack() as opened:
        arms = []
        if wanted:
            arms = open_arms(recipe.bench(), open_engine)
            for arm in arms:
                opened.callback(arm.engine.close)
        for requests in wanted:
            [(row, trials)] = measure_users(recipe.bench(), recipe.users([requests]), arms, None, reporter)
            rows.append({**row, "trials": trials})
            write_record(file, {"machine": dump(here), "loads": rows})
    _warn_if_busy(rows, reporter)
    return {
        row["requests"]: {label: min(times) for label, times in _trials(row).items()}
        for row in sorted(rows, key=lambda row: int(row["requests"]))
    }


def _before(file: Path, reporter: Reporter) -> dict[str, Any]:
    """Return what an earlier call measured; nothing, with a warning, if the file is damaged."""
    if not file.is_file():
        return {}
    try:
        return read_record(file)
    except MissingInputError as error:
        reporter.warn(f"{error.message}; all loads are timed again")
        return {}


def check_steps(recipe: CalibrateRecipe, open_engine: OpenEngine) -> None:
    """Check that every method has its kind of model and that the loads' context fits, before any question is asked.

    Raises:
        CheckpointError: if the uncompressed model is a pair model.
        UsageError: if requests of the context can never fit an arm's engine.
    """
    if recipe.regular is not None and is_pair_model(Path(recipe.regular.ckpt)):
        raise CheckpointError(
            f"{recipe.regular.ckpt} is a pair model, and pairs are compared with an uncompressed one",
            hint="--regular takes the base, or what objective=regular trained",
        )
    with ExitStack() as opened:
        arms = open_arms(recipe.bench(), open_engine)
        for arm in arms:
            opened.callback(arm.engine.close)
        check_lengths(arms, [Lengths(recipe.loads.context, recipe.users([1]).new_tokens)])


def _trials(row: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return the seconds of a step in each trial of a load, by label."""
    found: dict[str, list[float]] = {}
    for trial in row["trials"]:
        found.setdefault(trial["label"], []).append(trial["step_s"])
    return found


def _warn_if_busy(rows: Sequence[Mapping[str, Any]], reporter: Reporter) -> None:
    """Warn if in half of some setting's trials steps took far longer than in its quickest one."""
    worst = max(median(times) / min(times) for row in rows for times in _trials(row).values())
    if worst > _BUSY:
        reporter.warn(
            f"in half of the trials of one setting steps took {worst:.1f} times as long as in its quickest: something "
            "else used this machine; for a profile that can be trusted, calibrate again when it is idle (run=NAME)"
        )


def step_seconds(times: StepTimes, name: str, decoding: Decoding, tokens_per_step: float) -> float:
    """Return the seconds of a setting's step at one load.

    Args:
        times: of the load.
        name: of the setting's arm.
        decoding: the setting's.
        tokens_per_step: that it was found to write.
    """
    if decoding.tau is None:
        return times[decoding.label(name)]
    timed = [times[Decoding(decoding.method, acceptance=share).label(name)] for share in SHARES]
    return float(np.interp(tokens_per_step - 1, SHARES, timed))
