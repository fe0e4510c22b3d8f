"""The time of a step by load: measured as the users' table of `pipo bench`, each load once.

A pair step does the same for every threshold, but for the drafts that it projects to the vocabulary. So it is timed at
a few fixed shares of kept drafts (`SHARES`), and for a threshold the time is interpolated at the share that its gate
kept. What verifies drafts does the same whatever is accepted, and is timed as it is.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from pipo_core.bench.arms import OpenEngine, open_arms
from pipo_core.bench.users import measure_users
from pipo_core.files import read_record, write_record
from pipo_core.recipes.calibrate import SHARES, CalibrateRecipe
from pipo_core.recipes.methods import Decoding
from pipo_core.reporting import Reporter

STEPS = "steps.json"

StepTimes = Mapping[str, float]
"""Seconds of a step by the label of what was timed, at one load."""


def measure_steps(
    recipe: CalibrateRecipe, out: Path, open_engine: OpenEngine, reporter: Reporter
) -> dict[int, StepTimes]:
    """Return the median seconds of a step by the number of requests, rising, and by label.

    Each load is appended to ``out/steps.json`` when it has been measured; a second call measures only what is missing.

    Raises:
        PipoError: if an engine fails, or the requests of a load do not run at once.
    """
    file = out / STEPS
    rows: list[dict[str, Any]] = read_record(file)["loads"] if file.is_file() else []
    wanted = [number for number in sorted(recipe.loads.requests) if number not in {row["requests"] for row in rows}]
    with ExitStack() as opened:
        arms = []
        if wanted:
            arms = open_arms(recipe.bench(), open_engine)
            for arm in arms:
                opened.callback(arm.engine.close)
        for requests in wanted:
            found, trials = measure_users(recipe.bench(), recipe.users([requests]), arms, None, reporter)
            rows.append({**found[0], "trials": trials})
            write_record(file, {"loads": rows})
    return {
        row["requests"]: {arm["label"]: arm["step_s"]["median"] for arm in row["arms"]}
        for row in sorted(rows, key=lambda row: int(row["requests"]))
    }


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
