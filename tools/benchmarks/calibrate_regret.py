"""How far a profile's recommendation is from the best of a full sweep: a profile against the users' table of a bench.

    pipo calibrate tiny/calibrate run=demo-calibrate ckpt=outputs/demo/opd-merge regular.ckpt=outputs/demo/regular-sft
    pipo bench sweep.yaml        # every threshold and method at every load: docs/results/calibrate.md
    python -m tools.benchmarks.calibrate_regret outputs/demo-calibrate/calibrate/profile.json \\
        outputs/demo-sweep/bench/results.json --out docs/results/raw/calibrate.json

In the sweep every threshold decodes by its own gate. At each load its best is the admissible setting with the most real
tokens a second in its quickest trial; the loss is what the recommended setting writes less.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pipo_core.recipes.profile import Profile, read_profile

Trials = dict[str, list[dict[str, Any]]]


def losses(profile: Profile, bench: dict[str, Any]) -> list[dict[str, Any]]:
    """Return, for each load, what is recommended, what the sweep found best, and the loss as a share.

    Args:
        profile: of the checkpoint.
        bench: results of `pipo bench` with the same labels, loads and context.
    """
    labels = [one.label for one in profile.settings]
    admissible = [one.label for one in profile.settings if one.admissible]
    found = []
    for load in profile.loads:
        trials: Trials = {label: [] for label in labels}
        for trial in bench["raw_users"]:
            if trial["requests"] == load.requests and trial["context"] == profile.context:
                trials[trial["label"]].append(trial)
        speeds = {label: max(one["tokens_per_second"] for one in trials[label]) for label in labels}
        best = max(admissible, key=speeds.__getitem__)
        recommended = load.best or admissible[0]
        found.append(
            {
                "requests": load.requests,
                "recommended": recommended,
                "expected": load.cost(recommended).tokens_per_second,
                "measured": speeds[recommended],
                "best_of_sweep": best,
                "best_measured": speeds[best],
                "loss": 1 - speeds[recommended] / speeds[best],
                "speeds": speeds,
            }
        )
    return found


def main() -> None:
    """Print a line for each load and write the figures, with the profile and the bench beside them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("profile", type=Path)
    parser.add_argument("bench", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    profile, bench = read_profile(arguments.profile), json.loads(arguments.bench.read_text())
    rows = losses(profile, bench)
    for row in rows:
        sys.stdout.write(
            f"{row['requests']:3d} requests: {row['recommended']} {row['measured']:,.0f} tokens/s "
            f"(expected {row['expected']:,.0f}); best {row['best_of_sweep']} {row['best_measured']:,.0f}; "
            f"loss {100 * row['loss']:.1f} %\n"
        )
    kept = {key: bench[key] for key in ("machine", "versions", "users", "raw_users")}
    raw = {"losses": rows, "profile": profile.model_dump(mode="json"), "bench": kept}
    arguments.out.write_text(json.dumps(raw, indent=1) + "\n")


if __name__ == "__main__":
    main()
