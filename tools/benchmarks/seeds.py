"""Evaluations of several training seeds on the same problems, taken together.

    python -m tools.benchmarks.seeds outputs/seed0-eval outputs/seed1-eval outputs/seed2-eval --baseline sft@0.95

A problem's score is the mean over seeds and samples; intervals are over problems, as in one evaluation. Beside them
stands the range over the seeds, which three seeds are too few to make an interval of.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipo_core.data.answers import Key, read_index, read_row
from pipo_core.evaluate.runner import answers_path
from pipo_core.evaluate.scores import Cut, ScoredAnswer, cut
from pipo_core.evaluate.statistics import Estimate, mean_with_interval, paired_difference, pass_at_k
from pipo_core.evaluate.table import suite_results
from pipo_core.files import read_json, write_json


def main() -> None:
    """Print a line for each arm, and write them as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of pipo eval, one a seed")
    parser.add_argument("--baseline", required=True)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    arms = [arm["label"] for arm in _results(given.runs[0])["arms"]]
    cuts = {label: [_cuts(run, label) for run in given.runs] for label in arms}  # [seeds][problems][k]
    scores = {label: np.array([[[one.correct for one in q] for q in seed] for seed in cuts[label]]) for label in arms}
    odd = np.array([q[0].odd_prompt for q in cuts[arms[0]][0]])
    rows = []
    for label in arms:
        means = scores[label].mean(axis=(0, 2))
        samples = scores[label].shape[2]
        passes = [pass_at_k(samples, seed.sum(axis=1), samples) for seed in scores[label]]
        found = {
            "arm": label,
            "avg": _shares(mean_with_interval(means, seed=0)),
            "avg_by_seed": [float(seed.mean()) for seed in scores[label]],
            "odd_prompts": _shares(mean_with_interval(means[odd], seed=0)),
            "even_prompts": _shares(mean_with_interval(means[~odd], seed=0)),
            "pass": _shares(mean_with_interval(np.mean(passes, axis=0), seed=0)),
            "difference": _shares(paired_difference(means, scores[given.baseline].mean(axis=(0, 2)), seed=0)),
            "tokens_per_slot": [_figure(run, label) for run in given.runs],
        }
        rows.append(found)
        sys.stdout.write(json.dumps(found) + "\n")
    if given.out:
        write_json(given.out, {"baseline": given.baseline, "seeds": len(given.runs), "arms": rows})


def _cuts(run: Path, label: str) -> list[list[Cut]]:
    """Return the answers within the token budget, by problem and sample."""
    results = _results(run)
    path = answers_path(run / "eval", results["suite"], label)
    index = read_index(path)
    limit, samples = results["budget"]["tokens"], range(results["samples"])
    problems = sorted({key.problem for key in index})
    answers = {key: ScoredAnswer.of(read_row(path, answer)) for key, answer in index.items()}
    return [[cut(answers[Key(problem, k)], "tokens", limit) for k in samples] for problem in problems]


def _results(run: Path) -> Mapping[str, Any]:
    """Return the results of a run's only suite."""
    (results,) = suite_results(read_json(run / "eval" / "results.json"))
    return results


def _figure(run: Path, label: str) -> float:
    (arm,) = [arm for arm in _results(run)["arms"] if arm["label"] == label]
    figure: float = arm["budgets"]["tokens"]["tokens_per_slot"]
    return figure


def _shares(estimate: Estimate) -> list[float]:
    return [round(value, 4) for value in (estimate.value, estimate.low, estimate.high)]


if __name__ == "__main__":
    main()
