"""Throughput: real tokens a second of all answers together, by how many are written at once.

In each round every arm answers the same prompts, as many as run at once, each to the same number of real tokens; arms
take turns in going first. A round's figure is all real tokens divided by the time from the first request to the last
answer, prompts included.
"""

import time
from collections.abc import Sequence
from typing import Any

from pipo_core.bench.arms import Contender
from pipo_core.bench.prompts import make_prompt
from pipo_core.bench.summaries import quartiles
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Request
from pipo_core.recipes.bench import BenchRecipe
from pipo_core.recipes.common import Sampling
from pipo_core.reporting import Reporter

WARMUP = 1


def measure_throughput(
    recipe: BenchRecipe, arms: Sequence[Contender], reporter: Reporter
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a row for each number of requests with every arm's figures, and the single trials."""
    trials: list[dict[str, Any]] = []
    rounds = WARMUP + recipe.concurrent_trials
    with reporter.progress("throughput", len(recipe.concurrency) * rounds * len(arms), "trial") as bar:
        for requests in recipe.concurrency:
            for number in range(rounds):
                first = number % len(arms)
                for arm in [*arms[first:], *arms[:first]]:
                    trial = _trial(recipe, arm, requests, number)
                    bar.advance(1, tokens_per_second=trial["tokens"] / trial["seconds"])
                    if number >= WARMUP:
                        trials.append({"round": number - WARMUP, **trial})
    return [_row(recipe, arms, trials, requests) for requests in recipe.concurrency], trials


def _trial(recipe: BenchRecipe, arm: Contender, requests: int, number: int) -> dict[str, Any]:
    asked = [
        Request(
            id=f"{arm.label}/{requests}/{number}/{index}",
            prompt_ids=make_prompt(arm.engine.tokenizer, recipe.concurrent_prompt_tokens, 1000 * number + index),
            sampling=SamplingParams(**Sampling().model_dump(), seed=1000 * number + index),
            max_tokens=recipe.concurrent_new_tokens,
            ignore_end=True,
        )
        for index in range(requests)
    ]
    began = time.perf_counter()
    completions = list(arm.engine.generate(asked))
    seconds = time.perf_counter() - began
    return {
        "requests": requests,
        "label": arm.label,
        "seconds": seconds,
        "tokens": sum(completion.tokens for completion in completions),
        "slots": sum(completion.slots or 0 for completion in completions),
    }


def _row(
    recipe: BenchRecipe, arms: Sequence[Contender], trials: Sequence[dict[str, Any]], requests: int
) -> dict[str, Any]:
    speeds = {
        arm.label: [t["tokens"] / t["seconds"] for t in trials if t["label"] == arm.label and t["requests"] == requests]
        for arm in arms
    }
    base = next((speeds[arm.label] for arm in arms if arm.name == recipe.baseline), None)
    found = []
    for arm in arms:
        own = speeds[arm.label]
        ratio = None if base is None else quartiles([mine / theirs for mine, theirs in zip(own, base, strict=True)])
        found.append({"label": arm.label, "tokens_per_second": quartiles(own), "speedup": ratio})
    return {"requests": requests, "arms": found}
