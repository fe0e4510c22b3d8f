"""Throughput: real tokens per second of all answers together, by the number of concurrent requests.

In each round every arm answers the same prompts, all at once, each with the same number of real tokens. Arms take turns
in going first. A trial's figure is its real tokens divided by the time from the first request to the last answer, which
includes reading the prompts. Beside it stand each request's own times under this load: to the first token, per token
after it, and to the end, all from the moment in which the requests were asked together.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipo_core.bench.arms import OpenArm
from pipo_core.bench.asked import Lengths, make_request, stream, tokens_after_first
from pipo_core.bench.summaries import quartiles
from pipo_core.engine import Completion
from pipo_core.recipes.bench import WARMUP_ROUNDS, BenchRecipe
from pipo_core.reporting import Reporter

_TIMES = ("ttft_s", "tpot_s", "time_s")


def measure_throughput(
    recipe: BenchRecipe, arms: Sequence[OpenArm], reporter: Reporter
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yield every arm's figures at one number of concurrent requests, and the single trials, number by number.

    Raises:
        PipoError: if an engine fails, or does not give exactly the answers that are asked for.
    """
    rounds = recipe.concurrent_rounds
    with reporter.progress("throughput", len(recipe.concurrency) * rounds * len(arms), "trial") as bar:
        for requests in recipe.concurrency:
            trials: list[dict[str, Any]] = []
            for number in range(rounds):
                first = number % len(arms)
                for arm in [*arms[first:], *arms[:first]]:
                    trial = _answer_together(recipe, arm, requests, number)
                    bar.advance(1, tokens_per_second=trial["tokens"] / trial["seconds"])
                    if number >= WARMUP_ROUNDS:
                        trials.append({"round": number - WARMUP_ROUNDS, **trial})
            yield {"requests": requests, "arms": _arm_speeds(recipe, arms, trials)}, trials


def _answer_together(recipe: BenchRecipe, arm: OpenArm, requests: int, number: int) -> dict[str, Any]:
    """Return what ``requests`` concurrent answers to the prompts of round ``number`` took, together and each.

    Raises:
        PipoError: if the engine does not give exactly the answers that are asked for.
    """
    lengths = Lengths(recipe.concurrent_prompt_tokens, recipe.concurrent_new_tokens)
    asked = [
        make_request(arm, f"{requests}/{number}/{index}", lengths, seed=1000 * number + index)
        for index in range(requests)
    ]
    first: dict[str, float] = {}
    answers: list[tuple[Completion, float]] = []
    began = time.perf_counter()
    for delta in stream(arm, asked):
        seconds = time.perf_counter() - began
        first.setdefault(delta.id, seconds)
        if delta.completion is not None:
            answers.append((delta.completion, seconds))
    return {
        "requests": requests,
        "label": arm.label,
        "seconds": seconds,
        "tokens": sum(completion.tokens for completion, _ in answers),
        "slots": _total([completion.slots for completion, _ in answers]),
        "ttft_s": [first[completion.id] for completion, _ in answers],
        # An answer of a single step has no time per token.
        "tpot_s": [(end - first[one.id]) / after for one, end in answers if (after := tokens_after_first(one))],
        "time_s": [end for _, end in answers],
    }


def _total(counts: Sequence[int | None]) -> int | None:
    """Return the sum; None where the engine does not report it."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _arm_speeds(
    recipe: BenchRecipe, arms: Sequence[OpenArm], trials: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return every arm's tokens per second, times of a request and speed-up at one number of concurrent requests."""
    by_label = {arm.label: [trial for trial in trials if trial["label"] == arm.label] for arm in arms}
    speeds = {label: [trial["tokens"] / trial["seconds"] for trial in own] for label, own in by_label.items()}
    base = next((speeds[arm.label] for arm in arms if arm.name == recipe.baseline), None)
    found = []
    for arm in arms:
        own = speeds[arm.label]
        ratio = None if base is None else quartiles([mine / theirs for mine, theirs in zip(own, base, strict=True)])
        of_requests = {name: [t for trial in by_label[arm.label] for t in trial[name]] for name in _TIMES}
        found.append(
            {
                "label": arm.label,
                "engine": arm.where,
                "tokens_per_second": quartiles(own),
                "speedup": ratio,
                **{name: quartiles(times) if times else None for name, times in of_requests.items()},
            }
        )
    return found
