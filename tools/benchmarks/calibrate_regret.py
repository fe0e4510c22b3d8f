"""How far a profile's recommendation is from the best of a full sweep: a profile against the users' table of a bench.

    pipo calibrate tiny/calibrate run=demo-calibrate ckpt=outputs/demo/opd-merge regular.ckpt=outputs/demo/regular-sft
    pipo bench sweep.yaml        # every threshold and method at every load: docs/results/calibrate.md
    python -m tools.benchmarks.calibrate_regret outputs/demo-calibrate/calibrate/profile.json \\
        outputs/demo-sweep/bench/results.json --out docs/results/raw/calibrate.json

In the sweep every threshold decodes by its own gate. A setting's speed is told against the recommended one's in the
same round, as the median over rounds; the best of the sweep is the one that is ahead the most, and the loss is what the
recommended one writes less. Both are found twice: among the admissible settings, and with every threshold allowed.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipo_core.recipes.profile import Load, Profile, Setting, fastest, read_profile

Speeds = dict[str, list[float]]
"""Real tokens a second in each round, by label."""


def losses(profile: Profile, bench: dict[str, Any]) -> list[dict[str, Any]]:
    """Return, for each load and each choice of settings, what is recommended, what the sweep found best, and the loss.

    Args:
        profile: of the checkpoint.
        bench: results of `pipo bench` with the same labels, loads and context.
    """
    safe = [one for one in profile.settings if one.admissible]
    found = []
    for load in profile.loads:
        trials = [one for one in bench["raw_users"] if one["requests"] == load.requests]
        speeds = {
            setting.label: [one["tokens_per_second"] for one in trials if one["label"] == setting.label]
            for setting in profile.settings
        }
        for allowed, settings in (("admissible", safe), ("every tau", profile.settings)):
            found.append({"allowed": allowed, **_loss(load, settings, speeds)})
    return found


def _loss(load: Load, settings: Sequence[Setting], speeds: Speeds) -> dict[str, Any]:
    chosen = fastest(load, settings)
    if chosen is None:
        raise ValueError("no setting is allowed")
    ratios = {
        one.label: statistics.median(
            its / own for its, own in zip(speeds[one.label], speeds[chosen.label], strict=True)
        )
        for one in settings
    }
    best = max(ratios, key=ratios.__getitem__)
    return {
        "requests": load.requests,
        "settings": len(settings),
        "rounds": len(speeds[best]),
        "recommended": chosen.label,
        "expected": load.cost(chosen.label).tokens_per_second,
        "measured": statistics.median(speeds[chosen.label]),
        "best_of_sweep": best,
        "loss": 1 - 1 / ratios[best],
        "ratios": ratios,
    }


def main() -> None:
    """Print a line for each load and write the figures, with the profile and every trial beside them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("profile", type=Path)
    parser.add_argument("bench", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    profile, bench = read_profile(arguments.profile), json.loads(arguments.bench.read_text())
    rows = losses(profile, bench)
    for row in rows:
        sys.stdout.write(
            f"{row['requests']:3d} requests, {row['allowed']:10s} ({row['settings']} settings): {row['recommended']} "
            f"{row['measured']:,.0f} tokens/s (expected {row['expected']:,.0f}); best {row['best_of_sweep']}; "
            f"loss {100 * row['loss']:.1f} %\n"
        )
    found = profile.model_dump(mode="json")
    for model in filter(None, (found["checkpoint"], found["regular"])):
        model["folder"] = os.path.relpath(model["folder"])
    keys = ("requests", "label", "tokens_per_second", "step_s", "tokens_per_step")
    trials = [[trial[key] for key in keys] for trial in bench["raw_users"]]
    kept = {"machine": bench["machine"], "versions": bench["versions"], "keys": keys, "trials": trials}
    arguments.out.write_text(json.dumps({"losses": rows, "profile": found, "bench": kept}) + "\n")


if __name__ == "__main__":
    main()
