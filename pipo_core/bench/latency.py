"""`pipo bench`: time to the first token and time per token of several arms, side by side in one run.

Definitions, one request at a time (batch 1), only real tokens (no PAD counts):

- TTFT: from the request to the end of the first step, which gives one token, or two where the draft is kept;
- TPOT: the time after the first step divided by the real tokens that came in it;
- speed-up: the baseline's time over the arm's time *in the same round*, then the median over rounds.

In each round every arm answers the same prompt with the same seed, and the arm that goes first changes from
round to round, so that a machine that grows slower or faster during the run favours nobody. Every trial is
kept in the results. A run that was stopped begins anew: timings of two sessions are not comparable.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipo_core.bench.arms import Contender
from pipo_core.bench.prompts import make_prompt
from pipo_core.bench.roofline import Device, tpot_limit, ttft_limit
from pipo_core.bench.summaries import quartiles
from pipo_core.decode.method import StepLoad
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Completion, Request
from pipo_core.errors import PipoError, UsageError
from pipo_core.recipes.bench import BenchRecipe
from pipo_core.recipes.common import Sampling
from pipo_core.recipes.methods import METHODS
from pipo_core.reporting import Reporter

TIMES = ("ttft_s", "tpot_s")


def measure_latency(
    recipe: BenchRecipe, arms: Sequence[Contender], device: Device | None, reporter: Reporter
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a row for each prompt length with every arm's figures, and the single trials."""
    trials = _measure(recipe, arms, reporter)
    rows = [
        {"prompt_tokens": length, "arms": _summaries(recipe, arms, trials, length, device)}
        for length in recipe.prompt_tokens
    ]
    return rows, trials


def tpot(completion: Completion) -> float:
    """Seconds per real token after the first step. Raises PipoError where there is none."""
    after = sum(_step_counts(completion)[1:])
    if after == 0:
        raise PipoError(f"{completion.id}: the engine stopped after the first step, so there is no TPOT")
    return (completion.time_s - completion.ttft_s) / after


def _step_counts(completion: Completion) -> list[int]:
    """Return the real tokens of each step. Raises PipoError where the engine does not report them."""
    if completion.slot_token_counts is None:
        raise PipoError(f"{completion.id}: this engine does not report steps, so there is no TPOT")
    return completion.slot_token_counts


def check_latency(recipe: BenchRecipe) -> None:
    """Raise UsageError where no token would follow the first step, or the baseline is not one row."""
    for arm in recipe.arms:
        first = METHODS[arm.method].max_step_tokens(0)  # of a chain of drafts none comes in the first step
        if recipe.new_tokens <= first:
            raise UsageError(
                f"new_tokens must be at least {first + 1}: a first step of {arm.method} gives up to {first}, and TPOT "
                "counts what follows",
                hint="new_tokens=16 is what the paper measured",
            )
        if arm.name == recipe.baseline and len(arm.decodings()) > 1:
            raise UsageError(
                f"baseline {arm.name!r} has {len(arm.decodings())} thresholds",
                hint="name an arm with one threshold as the baseline",
            )


def _measure(recipe: BenchRecipe, arms: Sequence[Contender], reporter: Reporter) -> list[dict[str, Any]]:
    """Return the measured trials of all prompt lengths, in the order in which they ran."""
    rounds = recipe.warmup + recipe.trials
    trials = []
    with reporter.progress("bench", len(recipe.prompt_tokens) * rounds * len(arms), "trial") as bar:
        for length in recipe.prompt_tokens:
            for number in range(rounds):
                first = number % len(arms)
                for place, arm in enumerate([*arms[first:], *arms[:first]]):
                    completion = _trial(recipe, arm, length, number)
                    bar.advance(1, ttft_ms=1e3 * completion.ttft_s, tpot_ms=1e3 * tpot(completion))
                    if number >= recipe.warmup:
                        trials.append(_record(completion, arm, length, number - recipe.warmup, place))
    return trials


def _trial(recipe: BenchRecipe, arm: Contender, length: int, number: int) -> Completion:
    request = Request(
        id=f"{arm.label}/{length}/{number}",
        prompt_ids=make_prompt(arm.engine.tokenizer, length, number),
        sampling=SamplingParams(**Sampling().model_dump(), seed=number),
        max_tokens=recipe.new_tokens,
        max_slots=None,
        stop_ids=frozenset(),
        ignore_end=True,
    )
    completions = list(arm.engine.generate([request]))
    if len(completions) != 1:
        raise PipoError(f"{request.id}: the engine gave {len(completions)} answers to one request")
    return completions[0]


def _record(completion: Completion, arm: Contender, length: int, number: int, place: int) -> dict[str, Any]:
    return {
        "prompt_tokens": length,
        "round": number,
        "place": place,
        "label": arm.label,
        "ttft_s": completion.ttft_s,
        "tpot_s": tpot(completion),
        "time_s": completion.time_s,
        "slot_token_counts": _step_counts(completion),
        "drafts": completion.drafts or 0,
        "kept": completion.kept or 0,
    }


def _summaries(
    recipe: BenchRecipe,
    arms: Sequence[Contender],
    trials: Sequence[Mapping[str, Any]],
    length: int,
    device: Device | None,
) -> list[dict[str, Any]]:
    of = {arm.label: [t for t in trials if t["label"] == arm.label and t["prompt_tokens"] == length] for arm in arms}
    reference = next((of[arm.label] for arm in arms if arm.name == recipe.baseline), None)
    return [
        {
            "arm": arm.name,
            "label": arm.label,
            "method": arm.decoding.method,
            "tau": arm.decoding.tau,
            "acceptance": arm.decoding.acceptance,
            "draft_vocab": arm.decoding.draft_vocab,
            **{time: quartiles([t[time] for t in of[arm.label]]) for time in TIMES},
            "speedup": None if reference is None else _speedups(of[arm.label], reference),
            "tokens_per_slot": _tokens_per_slot(of[arm.label]),
            "drafts_kept": _share_kept(of[arm.label]),
            "of_limit": _of_limit(recipe, arm, of[arm.label], length, device),
        }
        for arm in arms
    ]


def _speedups(
    trials: Sequence[Mapping[str, Any]], reference: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, float]]:
    pairs = list(zip(trials, reference, strict=True))  # both in the order of rounds
    return {time: quartiles([base[time] / own[time] for own, base in pairs]) for time in TIMES}


def _tokens_per_slot(trials: Sequence[Mapping[str, Any]]) -> float:
    counts: list[int] = [count for trial in trials for count in trial["slot_token_counts"]]
    return sum(counts) / len(counts)


def _share_kept(trials: Sequence[Mapping[str, Any]]) -> float | None:
    drafts = sum(trial["drafts"] for trial in trials)
    return sum(trial["kept"] for trial in trials) / drafts if drafts else None


def _of_limit(
    recipe: BenchRecipe, arm: Contender, trials: Sequence[Mapping[str, Any]], length: int, device: Device | None
) -> dict[str, float | None] | None:
    """Return what part of the device's limits the medians reach; None where shape or device are not known."""
    config, decoding = arm.engine.reports.config, arm.decoding
    if config is None or device is None:
        return None
    kept = _share_kept(trials)
    tokens = sum(sum(trial["slot_token_counts"][1:]) for trial in trials)
    steps = sum(len(trial["slot_token_counts"]) - 1 for trial in trials)
    limits = {
        "ttft_s": ttft_limit(config, decoding.method, device, length),
        "tpot_s": tpot_limit(
            config,
            decoding.method,
            device,
            tokens / steps,
            StepLoad(
                context=length,
                acceptance=kept or 0.0,
                drafts=recipe.engine.drafts,
                draft_vocab=decoding.draft_vocab or recipe.engine.draft_vocab,
            ),
            weight_bytes=arm.engine.reports.weight_bytes,
        ),
    }
    return {
        name: None if limit is None else limit / quartiles([trial[name] for trial in trials])["median"]
        for name, limit in limits.items()
    }
