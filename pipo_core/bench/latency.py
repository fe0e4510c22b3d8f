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
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from pipo_core.data.problems import load_problems, user_message
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Completion, Engine, EngineOpener, Request, open_engine
from pipo_core.engine.chat import load_tokenizer
from pipo_core.errors import PipoError, UsageError
from pipo_core.files import write_json
from pipo_core.machine import machine, versions
from pipo_core.recipes.bench import BenchRecipe
from pipo_core.recipes.common import Sampling
from pipo_core.reporting import Reporter, SilentReporter

RESULTS = "results.json"
PROMPT_PROBLEMS = 64
TIMES = ("ttft_s", "tpot_s")
DEFINITIONS = {
    "ttft_s": "seconds from the request to the end of the first step (one or two real tokens)",
    "tpot_s": "seconds after the first step / real tokens after the first step",
    "speedup": "baseline's time / this arm's time in the same round; median and quartiles over rounds",
    "tokens_per_slot": "real tokens / decode steps, over all measured trials",
}


@dataclass(frozen=True)
class BenchArm:
    """One row of the comparison with its engine and tokenizer."""

    name: str
    method: str
    tau: float | None
    engine: Engine
    tokenizer: PreTrainedTokenizerBase

    @property
    def label(self) -> str:
        """The arm's name in tables and plots."""
        return self.name if self.tau is None else f"{self.name}@{self.tau:.12g}"


def run_bench(
    recipe: BenchRecipe,
    out: Path,
    *,
    reporter: Reporter | None = None,
    open_engine: EngineOpener = open_engine,
) -> dict[str, Any]:
    """Measure, write `out/results.json`, and return it without the single trials.

    Raises UsageError where no token would follow the first step, or where the baseline is not one arm.
    """
    reporter = reporter or SilentReporter()
    _check(recipe)
    settings = recipe.engine.model_copy(update={"batch": 1})
    arms = []
    for arm in recipe.arms:
        taus: list[float | None] = [*dict.fromkeys(arm.taus())] or [None]
        for tau in taus:
            ckpt = Path(arm.ckpt)
            engine = open_engine(ckpt, arm.method, tau, settings)
            arms.append(BenchArm(arm.name, arm.method, tau, engine, load_tokenizer(ckpt)))
    trials = _measure(recipe, arms, reporter)
    results: dict[str, Any] = {
        "kind": "bench",
        "batch": 1,
        "new_tokens": recipe.new_tokens,
        "trials": recipe.trials,
        "warmup": recipe.warmup,
        "baseline": recipe.baseline,
        "sampling": Sampling().model_dump(mode="json"),
        "definitions": DEFINITIONS,
        "machine": {**machine(), **_device(settings.device)},
        "versions": versions(),
        "lengths": [
            {"prompt_tokens": length, "arms": _summaries(recipe, arms, trials, length)}
            for length in recipe.prompt_tokens
        ],
    }
    write_json(out / RESULTS, {**results, "raw": trials})
    return results


def _device(name: str) -> dict[str, object]:
    """Return what ``auto``, ``cpu`` or ``cuda`` stands for here, and how many threads torch uses."""
    on_gpu = name != "cpu" and torch.cuda.is_available()
    return {"device": torch.cuda.get_device_name() if on_gpu else "cpu", "threads": torch.get_num_threads()}


def make_prompt(tokenizer: PreTrainedTokenizerBase, length: int, seed: int) -> tuple[int, ...]:
    """Return exactly `length` token ids: the text of tiny problems drawn with `seed`, repeated."""
    problems = load_problems("tiny", "heldout", PROMPT_PROBLEMS, seed)
    text = "\n".join(user_message(problem) for problem in problems) + "\n"
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return tuple(islice(cycle(ids), length))


def tpot(completion: Completion) -> float:
    """Seconds per real token after the first step. Raises PipoError where there is none."""
    after = sum(completion.slot_token_counts[1:])
    if after == 0:
        raise PipoError(f"{completion.id}: the engine stopped after the first step, so there is no TPOT")
    return (completion.time_s - completion.ttft_s) / after


def _check(recipe: BenchRecipe) -> None:
    if recipe.new_tokens < 3 and any(arm.method == "pipo" for arm in recipe.arms):
        raise UsageError(
            "new_tokens must be at least 3: a first step of pipo gives two, and TPOT counts what follows",
            hint="new_tokens=16 is what the paper measured",
        )
    for arm in recipe.arms:
        if arm.name == recipe.baseline and len(arm.taus()) > 1:
            raise UsageError(
                f"baseline {arm.name!r} has {len(arm.taus())} thresholds",
                hint="name an arm with one threshold as the baseline",
            )


def _measure(recipe: BenchRecipe, arms: Sequence[BenchArm], reporter: Reporter) -> list[dict[str, Any]]:
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


def _trial(recipe: BenchRecipe, arm: BenchArm, length: int, number: int) -> Completion:
    request = Request(
        id=f"{arm.label}/{length}/{number}",
        prompt_ids=make_prompt(arm.tokenizer, length, number),
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


def _record(completion: Completion, arm: BenchArm, length: int, number: int, place: int) -> dict[str, Any]:
    return {
        "prompt_tokens": length,
        "round": number,
        "place": place,
        "label": arm.label,
        "ttft_s": completion.ttft_s,
        "tpot_s": tpot(completion),
        "time_s": completion.time_s,
        "slot_token_counts": completion.slot_token_counts,
        "drafts": completion.drafts,
        "kept": completion.kept,
    }


def _summaries(
    recipe: BenchRecipe, arms: Sequence[BenchArm], trials: Sequence[Mapping[str, Any]], length: int
) -> list[dict[str, Any]]:
    of = {arm.label: [t for t in trials if t["label"] == arm.label and t["prompt_tokens"] == length] for arm in arms}
    reference = next((of[arm.label] for arm in arms if arm.name == recipe.baseline), None)
    return [
        {
            "arm": arm.name,
            "label": arm.label,
            "method": arm.method,
            "tau": arm.tau,
            **{time: _quartiles([t[time] for t in of[arm.label]]) for time in TIMES},
            "speedup": None if reference is None else _speedups(of[arm.label], reference),
            "tokens_per_slot": _tokens_per_slot(of[arm.label]),
            "drafts_kept": _share_kept(of[arm.label]),
        }
        for arm in arms
    ]


def _speedups(
    trials: Sequence[Mapping[str, Any]], reference: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, float]]:
    pairs = list(zip(trials, reference, strict=True))  # both in the order of rounds
    return {time: _quartiles([base[time] / own[time] for own, base in pairs]) for time in TIMES}


def _quartiles(values: Sequence[float]) -> dict[str, float]:
    q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75])
    return {"median": float(median), "q1": float(q1), "q3": float(q3)}


def _tokens_per_slot(trials: Sequence[Mapping[str, Any]]) -> float:
    counts: list[int] = [count for trial in trials for count in trial["slot_token_counts"]]
    return sum(counts) / len(counts)


def _share_kept(trials: Sequence[Mapping[str, Any]]) -> float | None:
    drafts = sum(trial["drafts"] for trial in trials)
    return sum(trial["kept"] for trial in trials) / drafts if drafts else None
