"""`pipo bench`: time to the first token and time per token of several arms, measured side by side in one run.

Definitions, for one request at a time (batch 1) and real tokens only (no PADs):

- TTFT: from the request to the end of the first step, which writes one token, or two if the draft is kept; of a server
  to the arrival of what this step wrote, or of the first text where it does not report its steps;
- TPOT: the time after the first step divided by the real tokens written after it;
- speed-up: the baseline's time over the arm's time *in the same round*, then the median over rounds.

In each round every arm answers the same prompt with the same seed; a server's prompts begin with a number of their own,
because it may keep what it has read. Arms take turns in going first, so that a machine that becomes slower or faster
during the run favours none of them. The results contain every trial. A bench that was stopped starts again from the
beginning, because timings of two sessions are not comparable; what it had measured stays (`pipo_core.bench.keeping`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipo_core.bench.arms import OpenArm
from pipo_core.bench.asked import Lengths, make_request, stream, tokens_after_first
from pipo_core.bench.roofline import Device, tpot_limit, ttft_limit
from pipo_core.bench.summaries import quartiles
from pipo_core.decode.method import StepLoad
from pipo_core.engine import Completion
from pipo_core.errors import PipoError, UsageError
from pipo_core.recipes.bench import BenchRecipe
from pipo_core.recipes.methods import METHODS
from pipo_core.reporting import Reporter

TIMES = ("ttft_s", "tpot_s")


def measure_latency(
    recipe: BenchRecipe, arms: Sequence[OpenArm], device: Device | None, reporter: Reporter
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yield every arm's figures at one prompt length, and the single trials in the order in which they ran.

    Args:
        recipe: prompt lengths and numbers of tokens, rounds and warm-up rounds.
        arms: the open arms.
        device: limits of the device; None if they are not known.
        reporter: shows progress.

    Raises:
        PipoError: if an engine fails, or does not give exactly the answers that are asked for.
    """
    with reporter.progress("bench", len(recipe.prompt_tokens) * recipe.rounds * len(arms), "trial") as bar:
        for length in recipe.prompt_tokens:
            trials = []
            for number in range(recipe.rounds):
                first = number % len(arms)
                for place, arm in enumerate([*arms[first:], *arms[:first]]):
                    completion = _answer_alone(recipe, arm, length, number)
                    bar.advance(1, ttft_ms=1e3 * completion.ttft_s, tpot_ms=1e3 * tpot(completion))
                    if number >= recipe.warmup:
                        trials.append(_trial_record(completion, arm, length, number - recipe.warmup, place))
            yield {"prompt_tokens": length, "arms": _arm_figures(recipe, arms, trials, length, device)}, trials


def tpot(completion: Completion) -> float:
    """Return the seconds per real token after the first step.

    Raises:
        PipoError: if no token follows the first step, or the whole answer arrived at once.
    """
    after = tokens_after_first(completion)
    if after == 0:
        raise PipoError(f"{completion.id}: the engine stopped after the first step, so there is no TPOT")
    if completion.ttft_s >= completion.time_s:
        raise PipoError(f"{completion.id}: the whole answer arrived at once, so there are no TTFT and TPOT")
    return (completion.time_s - completion.ttft_s) / after


def check_latency(recipe: BenchRecipe) -> None:
    """Refuse a recipe whose latency cannot be measured.

    Raises:
        UsageError: if no token would follow the first step, or the baseline has several thresholds.
    """
    for arm in recipe.arms:
        first = 1 + (METHODS[arm.method].fixed_drafts or 0)  # the first step of a chain of drafts has no draft
        if recipe.new_tokens <= first:
            raise UsageError(
                f"new_tokens must be at least {first + 1}: the first step of {arm.method} writes up to {first}, "
                "and TPOT needs tokens after it",
                hint="the paper uses new_tokens=16",
            )
        if arm.name == recipe.baseline and len(arm.decodings()) > 1:
            raise UsageError(
                f"baseline {arm.name!r} has {len(arm.decodings())} thresholds",
                hint="name an arm with one threshold as the baseline",
            )


def _answer_alone(recipe: BenchRecipe, arm: OpenArm, length: int, number: int) -> Completion:
    """Return the arm's answer to the prompt of round ``number``, written with no other request beside it.

    Raises:
        PipoError: if the engine does not give exactly the answer that is asked for.
    """
    request = make_request(arm, f"{length}/{number}", Lengths(length, recipe.new_tokens), seed=number)
    [completion] = [delta.completion for delta in stream(arm, [request]) if delta.completion is not None]
    return completion


def _trial_record(completion: Completion, arm: OpenArm, length: int, number: int, place: int) -> dict[str, Any]:
    """Return what the results hold of one trial; ``place`` is the arm's turn in its round."""
    return {
        "prompt_tokens": length,
        "round": number,
        "place": place,
        "label": arm.label,
        "ttft_s": completion.ttft_s,
        "tpot_s": tpot(completion),
        "time_s": completion.time_s,
        "tokens": completion.tokens,
        "slot_token_counts": completion.slot_token_counts,
        "drafts": completion.drafts,
        "kept": completion.kept,
    }


def _arm_figures(
    recipe: BenchRecipe,
    arms: Sequence[OpenArm],
    trials: Sequence[Mapping[str, Any]],
    length: int,
    device: Device | None,
) -> list[dict[str, Any]]:
    """Return every arm's figures at one prompt length, from its trials."""
    by_label = {arm.label: [trial for trial in trials if trial["label"] == arm.label] for arm in arms}
    reference = next((by_label[arm.label] for arm in arms if arm.name == recipe.baseline), None)
    return [
        {
            "arm": arm.name,
            "label": arm.label,
            "engine": arm.where,
            "method": arm.decoding.method,
            "tau": arm.decoding.tau,
            "acceptance": arm.decoding.acceptance,
            "draft_vocab": arm.decoding.draft_vocab,
            **{time: quartiles([t[time] for t in by_label[arm.label]]) for time in TIMES},
            "speedup": None if reference is None else _speedups(by_label[arm.label], reference),
            "tokens_per_slot": _tokens_per_slot(by_label[arm.label]),
            "drafts_kept": _share_kept(by_label[arm.label]),
            "of_limit": _shares_of_limits(arm, by_label[arm.label], length, device),
        }
        for arm in arms
    ]


def _speedups(
    trials: Sequence[Mapping[str, Any]], reference: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, float]]:
    """Return quartiles of the baseline's time over the arm's time; both lists are in the order of rounds."""
    pairs = list(zip(trials, reference, strict=True))
    return {time: quartiles([base[time] / own[time] for own, base in pairs]) for time in TIMES}


def _tokens_per_slot(trials: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the real tokens of a slot; None where the engine does not report slots."""
    if any(trial["slot_token_counts"] is None for trial in trials):
        return None
    counts: list[int] = [count for trial in trials for count in trial["slot_token_counts"]]
    return sum(counts) / len(counts)


def _share_kept(trials: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the share of the drafts that were kept; None where none was made, or the engine does not report them."""
    drafts = sum(trial["drafts"] or 0 for trial in trials)
    return sum(trial["kept"] for trial in trials) / drafts if drafts else None


def _shares_of_limits(
    arm: OpenArm, trials: Sequence[Mapping[str, Any]], length: int, device: Device | None
) -> dict[str, float | None] | None:
    """Return each limit of the device over the median time, 1 at the limit; None if shape or device are not known."""
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
                drafts=decoding.drafts_per_step,
                draft_vocab=decoding.draft_vocab,
            ),
            widths=arm.engine.reports.widths,
        ),
    }
    return {name: limit / quartiles([trial[name] for trial in trials])["median"] for name, limit in limits.items()}
