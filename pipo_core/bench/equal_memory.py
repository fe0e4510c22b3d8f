"""How many sequences each method has room for in the same memory, and what they write a second together.

Computed from shapes: the memory less the method's weights, divided by what a sequence keeps
(`decode.traffic.kept_bytes`); at that number, the tokens a second that the device allows. A verifier in a server that
rolls recurrent states back keeps one state more a draft; the table says what that costs. Measured: the engine is given
the same memory, its own plan says how many requests fit, and as many are run together while the bytes of their caches
are counted.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, cast

from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.bench.arms import OpenArm, OpenEngine, source_of
from pipo_core.bench.asked import Lengths, make_request
from pipo_core.bench.loads import LoadTrial, run_load
from pipo_core.bench.roofline import Device, step_limit
from pipo_core.bench.users import arm_figures, limit_of
from pipo_core.decode.method import StepLoad
from pipo_core.decode.traffic import kept_bytes, resident_bytes
from pipo_core.engine.memory import GIB
from pipo_core.engine.torch_engine import TorchEngine
from pipo_core.errors import MachineError, UsageError
from pipo_core.recipes.bench import WARMUP_ROUNDS, BenchRecipe, EqualMemory
from pipo_core.recipes.common import TorchSettings
from pipo_core.reporting import Reporter

Row = dict[str, Any]


def compute_equal_memory(memory: EqualMemory, arms: Sequence[OpenArm], device: Device | None) -> list[Row]:
    """Return what shapes alone say for each context and arm.

    Raises:
        UsageError: if an arm's shape is not known.
        MachineError: if the weights of an arm leave no memory.
    """
    rows = []
    for context in memory.context:
        found = [_computed(memory, arm, context, device) for arm in arms]
        rows.append({"context": context, "arms": found})
    return rows


def measure_equal_memory(
    recipe: BenchRecipe,
    memory: EqualMemory,
    arms: Sequence[OpenArm],
    device: Device | None,
    open_engine: OpenEngine,
    reporter: Reporter,
) -> Iterator[tuple[Row, list[Row]]]:
    """Yield, context by context, the requests of each arm that the engine's plan lets run and their speed; the trials.

    Raises:
        MachineError: if not even one request fits.
        PipoError: if the requests do not run at once.
    """
    lengths = [Lengths(context, memory.new_tokens) for context in memory.context]
    with reporter.progress("equal memory", len(lengths) * len(arms) * memory.rounds, "trial") as bar:
        for length in lengths:
            raw: list[Row] = []
            trials: dict[str, list[LoadTrial]] = {}
            limits: dict[str, float | None] = {}
            fits: dict[str, int] = {}
            for arm in arms:
                given, requests = _filled(recipe, memory, arm, length, open_engine)
                own = []
                with closing(given.engine):
                    for number in range(memory.rounds):
                        own.append(run_load(given, length, requests, number))
                        bar.advance(1, tokens_per_second=own[-1].tokens_per_second)
                counted = own[WARMUP_ROUNDS:]
                trials[arm.label], fits[arm.label] = counted, requests
                limits[arm.label] = limit_of(given, counted, length.prompt + length.new // 2, requests, device)
                labels = {"context": length.prompt, "requests": requests, "label": arm.label}
                raw += [{**labels, **trial._asdict()} for trial in counted]
            base = next((arm.label for arm in arms if arm.name == recipe.baseline), None)
            found = [{"fit": fits[arm.label], **arm_figures(arm, trials, limits, base)} for arm in arms]
            yield {"context": length.prompt, "arms": found}, raw


def _computed(memory: EqualMemory, arm: OpenArm, context: int, device: Device | None) -> Row:
    config, decoding, widths = _shape(arm), arm.decoding, arm.engine.reports.widths
    left = _left(memory, arm)
    kept = kept_bytes(config, decoding.method, context, widths=widths)
    copies = decoding.drafts_per_step if decoding.spec.verified else 0
    copied = kept_bytes(config, decoding.method, context, state_copies=copies, widths=widths)
    fit = int(left // kept)
    share = 1.0 if decoding.acceptance is None else decoding.acceptance
    tokens = 1 + decoding.drafts_per_step * share
    load = StepLoad(
        context=context,
        batch=fit,
        acceptance=share,
        drafts=decoding.drafts_per_step,
        draft_vocab=decoding.draft_vocab,
    )
    speed = None
    if device is not None and fit:
        speed = fit * tokens / step_limit(config, decoding.method, device, load, widths=widths)
    return {
        "arm": arm.name,
        "label": arm.label,
        "sequence_bytes": kept,
        "sequence_bytes_with_copies": copied,
        "fit": fit,
        "fit_with_copies": int(left // copied),
        "tokens_per_step": tokens,
        "tokens_per_second": speed,
    }


def _left(memory: EqualMemory, arm: OpenArm) -> float:
    """Return the bytes that an arm's weights leave.

    Raises:
        MachineError: if none are left.
    """
    weights = resident_bytes(_shape(arm), arm.decoding.method, widths=arm.engine.reports.widths)
    left = memory.gib * GIB - weights
    if left <= 0:
        raise MachineError(
            f"equal_memory.gib is {memory.gib:g}, and the weights of arm {arm.name} take {weights / GIB:.2g} GiB"
        )
    return left


def _shape(arm: OpenArm) -> Qwen3_5TextConfig:
    """Return the shape of an arm's model.

    Raises:
        UsageError: if it is not known.
    """
    config = arm.engine.reports.config
    if config is None:
        raise UsageError(f"arm {arm.name}: the shape of its model is not known, so its memory cannot be computed")
    return config


def _filled(
    recipe: BenchRecipe, memory: EqualMemory, arm: OpenArm, length: Lengths, open_engine: OpenEngine
) -> tuple[OpenArm, int]:
    """Return the arm with an engine that has the memory which its weights leave, and how many requests fill it.

    Raises:
        MachineError: if not even one request fits.
    """
    [of_recipe] = [one for one in recipe.arms if one.name == arm.name]
    settings = recipe.engine_of(of_recipe)
    if not isinstance(settings, TorchSettings):
        raise UsageError(f"arm {arm.name}: only the torch engine plans its memory")
    source, left = source_of(recipe, of_recipe), _left(memory, arm) / GIB

    def opened(**places: int) -> TorchEngine:
        changed = settings.model_copy(update={"memory_gib": left, **places})
        return cast(TorchEngine, open_engine(source, arm.decoding, changed))

    with closing(opened(batch=1)) as asking:
        requests = asking.places_for(make_request(arm, "fit", length, seed=0))
    if requests < 1:
        raise MachineError(
            f"not one request of {sum(length):,} tokens fits the {left:.2f} GiB that arm {arm.name} has "
            "besides its weights",
            hint="a larger equal_memory.gib, or shorter contexts",
        )
    return replace(arm, engine=opened(batch=requests, max_length=sum(length))), requests
