"""`pipo bench`: opens the arms, measures latency, throughput and training passes, writes the results."""

import gc
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.bench.arms import OpenArm, OpenEngine, open_arms
from pipo_core.bench.asked import Lengths, check_lengths
from pipo_core.bench.cpu_peaks import measure_cpu
from pipo_core.bench.equal_memory import compute_equal_memory, measure_equal_memory
from pipo_core.bench.keeping import growing_results
from pipo_core.bench.latency import check_latency, measure_latency
from pipo_core.bench.lossless import prove_arms
from pipo_core.bench.roofline import Device, known_device
from pipo_core.bench.throughput import measure_throughput
from pipo_core.bench.training import TrainingCase, measure_training
from pipo_core.bench.users import measure_users
from pipo_core.engine import Engines, Reports, check_engine
from pipo_core.engine.torch_opening import prepare
from pipo_core.errors import UsageError
from pipo_core.machine import clocks, machine, versions
from pipo_core.recipes.bench import BenchRecipe
from pipo_core.recipes.common import Sampling, TorchSettings
from pipo_core.reporting import Reporter, SilentReporter

DEFINITIONS = {
    "ttft_s": "seconds from the request to the end of the first step (one or more real tokens); of a server to its "
    "arrival, or to that of the first text if it reports no steps; under load since all were asked together",
    "tpot_s": "seconds after the first step / real tokens after it; one token is first if steps are not reported",
    "time_s": "seconds from asking all requests together to the end of one",
    "speedup": "baseline's time / this arm's time in the same round; median and quartiles over rounds",
    "tokens_per_slot": "real tokens / decode steps, over all measured trials",
    "tokens_per_second": "real tokens of all answers / seconds from the first request to the last answer",
    "training": "forward, losses and backward of one row without PADs; tokens / median seconds of a pass",
    "of_limit": "the device's limit (bytes or operations for steps, operations for TTFT) / the median; 1 is all that "
    "it allows",
    "users": "requests of one prompt decode together: real tokens a second from when all have begun until the first "
    "ends; limit_speedup is the ratio that the device's limits give",
    "equal_memory": "sequences that fit beside the weights in the same memory, computed and by the engine's plan",
}


def run_bench(
    recipe: BenchRecipe,
    out: Path,
    *,
    reporter: Reporter | None = None,
    open_engine: OpenEngine | None = None,
) -> dict[str, Any]:
    """Measure and write `out/results.json`; return its content without the single trials.

    Until all is measured, what was measured so far is in `out/unfinished.json`.

    Args:
        recipe: the settings, with paths on this disk in place of names.
        out: the stage's folder, which exists.
        reporter: shows progress.
        open_engine: opens the engines; None for the default, which shares weights between arms.

    Raises:
        UsageError: if no token would follow the first step, the baseline has several thresholds, or a shape is unknown.
        CheckpointError: if a checkpoint cannot be read.
        MachineError: if the device is absent, a batch or a training pass does not fit, or a server is not there.
        PipoError: if an engine fails, or does not give exactly the answers that are asked for, or if an arm that
            claims to be lossless is not.
    """
    reporter = reporter or SilentReporter()
    open_engine = open_engine or Engines().open
    check_latency(recipe)
    for settings in recipe.servers():
        check_engine(settings)
    arms = open_arms(recipe, open_engine)
    reports = next((arm.engine.reports for arm in arms if arm.engine.reports.device is not None), Reports())
    name = reports.device or "unknown"
    device = None
    if reports.config is not None:
        device = measure_cpu() if name == "cpu" else known_device(name)
    if recipe.servers():
        name = "servers" if reports.device is None else f"{name} and servers"
    about: dict[str, Any] = {
        "kind": "bench",
        "batch": 1,
        "weights": recipe.random_weights or "checkpoints",
        "new_tokens": recipe.new_tokens,
        "trials": recipe.trials,
        "warmup": recipe.warmup,
        "baseline": recipe.baseline,
        "sampling": Sampling().model_dump(mode="json"),
        "definitions": DEFINITIONS,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "machine": {**machine(), "device": name, "threads": torch.get_num_threads(), "clocks": []},
        "limits_of": None if device is None else {**asdict(device), "balance": device.balance},
        "versions": versions(),
        "loads": _loads(recipe),
    }
    memory = recipe.equal_memory
    try:
        check_lengths(arms, _asked_lengths(recipe))
        about["equal_memory"] = None
        if memory is not None:
            computed = compute_equal_memory(memory, arms, device)
            about["equal_memory"] = {"gib": memory.gib, "computed": computed, "measured": []}
        about["lossless"] = prove_arms(recipe, arms, open_engine, reporter)
        with growing_results(out, about, reporter) as found:
            for table, (row, trials) in _measure_tables(recipe, arms, device, open_engine, reporter):
                found.add(table, row, trials)
            found.results["machine"]["clocks"] = clocks()
            if recipe.training_tokens:
                _close(arms)  # training passes run in other processes, which need the memory
                for row in _measure_training_passes(recipe, reports.config, reporter):
                    found.add("training", row)
    finally:
        _close(arms)
    return found.results


def _measure_tables(
    recipe: BenchRecipe,
    arms: Sequence[OpenArm],
    device: Device | None,
    open_engine: OpenEngine,
    reporter: Reporter,
) -> Iterator[tuple[str, tuple[dict[str, Any], list[dict[str, Any]]]]]:
    """Yield each row that the arms' engines measure, with the key of its table before it and its trials behind."""
    if recipe.prompt_tokens:
        yield from (("lengths", row) for row in measure_latency(recipe, arms, device, reporter))
    if recipe.concurrency:
        yield from (("throughput", row) for row in measure_throughput(recipe, arms, reporter))
    if recipe.users is not None:
        yield from (("users", row) for row in measure_users(recipe, recipe.users, arms, device, reporter))
    memory = recipe.equal_memory
    if memory is not None and memory.measured:
        rows = measure_equal_memory(recipe, memory, arms, device, open_engine, reporter)
        yield from (("equal_memory", row) for row in rows)


def _close(arms: list[OpenArm]) -> None:
    """Close the arms' engines and forget them, so that their memory is free."""
    while arms:
        arms.pop().engine.close()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _loads(recipe: BenchRecipe) -> dict[str, dict[str, Any]]:
    """Return what the tables beside the first one were asked for, besides what stands in their rows."""
    asked = {"new_tokens", "trials"}
    found = {
        "users": recipe.users and recipe.users.model_dump(include=asked),
        "equal_memory": recipe.equal_memory and recipe.equal_memory.model_dump(include=asked),
        "throughput": recipe.concurrency
        and {
            "prompt_tokens": recipe.concurrent_prompt_tokens,
            "new_tokens": recipe.concurrent_new_tokens,
            "trials": recipe.concurrent_trials,
        },
        "training": recipe.training_tokens and {"trials": recipe.training_trials},
    }
    return {table: settings for table, settings in found.items() if settings}


def _asked_lengths(recipe: BenchRecipe) -> list[Lengths]:
    """Return the lengths of all requests that a bench will send."""
    asked = [Lengths(prompt, recipe.new_tokens) for prompt in recipe.prompt_tokens]
    if recipe.concurrency:
        asked.append(Lengths(recipe.concurrent_prompt_tokens, recipe.concurrent_new_tokens))
    tables = [recipe.users, recipe.equal_memory]
    return asked + [Lengths(one, table.new_tokens) for table in tables if table is not None for one in table.context]


def _measure_training_passes(
    recipe: BenchRecipe, config: Qwen3_5TextConfig | None, reporter: Reporter
) -> Iterator[dict[str, Any]]:
    """Yield the figures of training passes, length by length.

    Raises:
        UsageError: if the model's shape is not known, or the recipe's engine is a server.
        MachineError: if memory does not suffice.
    """
    if config is None:
        raise UsageError("training passes need the shape of a model")
    if not isinstance(recipe.engine, TorchSettings):
        raise UsageError("only the torch engine measures training passes")
    device, dtype = prepare(recipe.engine)
    precision = "bf16" if dtype == torch.bfloat16 else "fp32"
    with reporter.progress("training passes", len(recipe.training_tokens), unit="length") as bar:
        for done, tokens in enumerate(recipe.training_tokens, start=1):
            case = TrainingCase(
                config,
                tokens,
                trials=recipe.training_trials,
                device=str(device),
                precision=precision,
                threads=recipe.engine.threads,
            )
            yield measure_training(case)
            bar.update(done)
