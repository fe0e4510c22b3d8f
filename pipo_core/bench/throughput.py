"""Throughput: real tokens per second of all answers together, by the number of concurrent requests.

In each round every arm answers the same prompts, all at once, each with the same number of real tokens. Arms take turns
in going first. A trial's figure is its real tokens divided by the time from the first request to the last answer, which
includes reading the prompts.
"""

import time
from collections.abc import Sequence
from typing import Any

from pipo_core.bench.arms import OpenArm
from pipo_core.bench.prompts import make_prompt
from pipo_core.bench.summaries import quartiles
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Request
from pipo_core.recipes.bench import BenchRecipe
from pipo_core.recipes.common import Sampling
from pipo_core.reporting import Reporter

_WARMUP_ROUNDS = 1
"""Rounds whose trials are not counted."""


def measure_throughput(
    recipe: BenchRecipe, arms: Sequence[OpenArm], reporter: Reporter
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return every arm's figures for each number of concurrent requests, and the single trials."""
    trials: list[dict[str, Any]] = []
    rounds = _WARMUP_ROUNDS + recipe.concurrent_trials
    with reporter.progress("throughput", len(recipe.concurrency) * rounds * len(arms), "trial") as bar:
        for requests in recipe.concurrency:
            for number in range(rounds):
                first = number % len(arms)
                for arm in [*arms[first:], *arms[:first]]:
                    trial = _answer_together(recipe, arm, requests, number)
                    bar.advance(1, tokens_per_second=trial["tokens"] / trial["seconds"])
                    if number >= _WARMUP_ROUNDS:
                        trials.append({"round": number - _WARMUP_ROUNDS, **trial})
    return [_arm_speeds(recipe, arms, trials, requests) for requests in recipe.concurrency], trials


def _answer_together(recipe: BenchRecipe, arm: OpenArm, requests: int, number: int) -> dict[str, Any]:
    """Return the tokens and seconds of ``requests`` concurrent answers to the prompts of round ``number``."""
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


def _arm_speeds(
    recipe: BenchRecipe, arms: Sequence[OpenArm], trials: Sequence[dict[str, Any]], requests: int
) -> dict[str, Any]:
    """Return every arm's tokens per second and speed-up at one number of concurrent requests."""
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
