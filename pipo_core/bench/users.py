"""Decoding by users and context: what all requests together write a second while all of them run, prompts left out.

In each round every arm answers the same load, and the arms take turns in going first. Beside each measured ratio stands
the one that the hardware's limits give (`pipo_core.bench.roofline`), so that a reader sees whether the regime is really
entered.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipo_core.bench.arms import OpenArm
from pipo_core.bench.asked import Lengths
from pipo_core.bench.loads import LoadTrial, run_load
from pipo_core.bench.roofline import Device, step_limit
from pipo_core.bench.summaries import quartiles
from pipo_core.decode.method import StepLoad
from pipo_core.recipes.bench import WARMUP_ROUNDS, BenchRecipe, Users
from pipo_core.reporting import Reporter

Row = dict[str, Any]


def measure_users(
    recipe: BenchRecipe, users: Users, arms: Sequence[OpenArm], device: Device | None, reporter: Reporter
) -> Iterator[tuple[Row, list[Row]]]:
    """Yield every arm's figures at one context and number of requests, and the single trials, load by load.

    Raises:
        PipoError: if an engine fails, or the requests of a load do not run at once.
    """
    loads = [(context, requests) for context in users.context for requests in users.requests]
    with reporter.progress("users", len(loads) * users.rounds * len(arms), "trial") as bar:
        for context, requests in loads:
            trials: dict[str, list[LoadTrial]] = {arm.label: [] for arm in arms}
            raw: list[Row] = []
            for number in range(users.rounds):
                first = number % len(arms)
                for arm in [*arms[first:], *arms[:first]]:
                    trial = run_load(arm, Lengths(context, users.new_tokens), requests, number)
                    bar.advance(1, tokens_per_second=trial.tokens_per_second)
                    if number >= WARMUP_ROUNDS:
                        trials[arm.label].append(trial)
                        raw.append({"context": context, "requests": requests, "label": arm.label, **trial._asdict()})
            mean_context = context + users.new_tokens // 2
            limits = {arm.label: limit_of(arm, trials[arm.label], mean_context, requests, device) for arm in arms}
            base = next((arm.label for arm in arms if arm.name == recipe.baseline), None)
            found = [arm_figures(arm, trials, limits, base) for arm in arms]
            yield {"context": context, "requests": requests, "arms": found}, raw


def limit_of(
    arm: OpenArm, trials: Sequence[LoadTrial], context: int, requests: int, device: Device | None
) -> float | None:
    """Return the most real tokens a second that the device allows all requests; None if it or the shape is unknown.

    A step is taken to write as many tokens as it did in the trials.
    """
    config, decoding = arm.engine.reports.config, arm.decoding
    if config is None or device is None:
        return None
    tokens = sum(trial.tokens_per_step for trial in trials) / len(trials)
    drafts = decoding.drafts_per_step
    load = StepLoad(
        context=context,
        batch=requests,
        acceptance=(tokens - 1) / drafts if drafts else 0.0,
        drafts=drafts,
        draft_vocab=decoding.draft_vocab,
    )
    seconds = step_limit(config, decoding.method, device, load, widths=arm.engine.reports.widths)
    return requests * tokens / seconds


def arm_figures(
    arm: OpenArm,
    trials: Mapping[str, Sequence[LoadTrial]],
    limits: Mapping[str, float | None],
    base: str | None,
) -> Row:
    """Return an arm's figures at one load, ready for JSON.

    Args:
        arm: the arm.
        trials: of all arms, by label, in the order of rounds.
        limits: real tokens a second that the device allows, by label.
        base: label of the baseline; None if there is none.
    """
    own = trials[arm.label]
    speeds, limit = [trial.tokens_per_second for trial in own], limits[arm.label]
    figures: Row = {
        "arm": arm.name,
        "label": arm.label,
        "engine": arm.where,
        "method": arm.decoding.method,
        "tokens_per_second": quartiles(speeds),
        "step_s": quartiles([trial.step_s for trial in own]),
        "tokens_per_step": sum(trial.tokens_per_step for trial in own) / len(own),
        "cache_bytes": own[-1].cache_bytes,
        "of_limit": None if limit is None else quartiles(speeds)["median"] / limit,
        "speedup": None,
        "limit_speedup": None,
    }
    if base is not None:
        pairs = zip(own, trials[base], strict=True)
        figures["speedup"] = quartiles([mine.tokens_per_second / theirs.tokens_per_second for mine, theirs in pairs])
        base_limit = limits[base]
        figures["limit_speedup"] = None if limit is None or base_limit is None else limit / base_limit
    return figures
