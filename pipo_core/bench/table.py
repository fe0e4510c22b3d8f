"""Tables of a bench's results."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipo_core.bench.load_tables import equal_memory_tables, users_table
from pipo_core.tables import ABSENT, Table, without_empty_columns

_TORCH = "torch"
_OF_A_REQUEST = {"ttft_s": "TTFT ms", "tpot_s": "TPOT ms", "time_s": "latency ms"}


def latency_tables(results: Mapping[str, Any]) -> list[Table]:
    """Return the tables of times and of steps from the results of `run_bench`: a row for each prompt length and arm.

    Times are medians with quartiles, in milliseconds. Speed-ups are medians over rounds.
    """
    asked = f"{results['trials']} trials of {results['new_tokens']} new tokens, batch {results['batch']}"
    over = f"; ×: speed-up over {results['baseline']}" if results["baseline"] else ""
    over += _balance(results)
    rows = [(f"{length['prompt_tokens']:,}", arm) for length in results["lengths"] for arm in length["arms"]]
    times = Table(
        f"{asked}, on {results['machine']['device']}; medians [quartiles]{over}",
        ["prompt tokens", "arm", "engine", "TTFT ms", "TPOT ms", "TTFT ×", "TPOT ×"],
        [[prompt, arm["label"], _engine(arm, results), *_times(arm)] for prompt, arm in rows],
        words=(1, 2),
    )
    steps = Table(
        f"{asked}: what a slot wrote, and the share of the hardware's limit that was reached",
        ["prompt tokens", "arm", "tokens a slot", "drafts kept %", "TTFT of limit", "TPOT of limit"],
        [[prompt, arm["label"], *_steps(arm)] for prompt, arm in rows],
        words=(1,),
    )
    named = 2  # columns that say which row it is
    return [without_empty_columns(times), *(one for one in [without_empty_columns(steps)] if len(one.columns) > named)]


def _balance(results: Mapping[str, Any]) -> str:
    """Return how much arithmetic the device has beside its memory, on which ratios of TTFT depend."""
    balance = (results.get("limits_of") or {}).get("balance")
    return f"; the device does {balance:.0f} operations for each byte that it reads" if balance else ""


def _engine(arm: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return what answered for an arm; nothing if the torch engine did for all, as in results that do not say."""
    engines = {one.get("engine", _TORCH) for length in results["lengths"] for one in length["arms"]}
    return ABSENT if engines == {_TORCH} else str(arm.get("engine", _TORCH))


def _times(arm: Mapping[str, Any]) -> list[str]:
    speedup = arm["speedup"]
    return [
        _milliseconds(arm["ttft_s"]),
        _milliseconds(arm["tpot_s"]),
        ABSENT if speedup is None else f"{speedup['ttft_s']['median']:.2f}×",
        ABSENT if speedup is None else f"{speedup['tpot_s']['median']:.2f}×",
    ]


def _steps(arm: Mapping[str, Any]) -> list[str]:
    return [
        ABSENT if arm["tokens_per_slot"] is None else f"{arm['tokens_per_slot']:.2f}",
        ABSENT if arm["drafts_kept"] is None else f"{100 * arm['drafts_kept']:.1f}",
        *(_share_in_percent(arm["of_limit"] and arm["of_limit"][time]) for time in ("ttft_s", "tpot_s")),
    ]


def throughput_table(results: Mapping[str, Any]) -> Table:
    """Return real tokens per second, medians with quartiles: a row for each number of concurrent requests and arm."""
    over = f"; speed-ups over {results['baseline']}" if results["baseline"] else ""
    title = (
        "throughput: real tokens a second of all requests together, prompts included; times of a request under this "
        f"load, medians{over}"
    )
    rows = [
        [
            f"{row['requests']:,}",
            arm["label"],
            _engine(arm, results),
            "{median:.1f} [{q1:.1f}, {q3:.1f}]".format(**arm["tokens_per_second"]),
            *(ABSENT if arm.get(time) is None else f"{1e3 * arm[time]['median']:.1f}" for time in _OF_A_REQUEST),
            ABSENT if arm["speedup"] is None else f"{arm['speedup']['median']:.2f}×",
        ]
        for row in results["throughput"]
        for arm in row["arms"]
    ]
    columns = ["requests", "arm", "engine", "tokens/s", *_OF_A_REQUEST.values(), "speed-up"]
    return without_empty_columns(Table(title, columns, rows, words=(1, 2)))


def training_table(results: Mapping[str, Any]) -> Table:
    """Return tokens per second and peak memory of training passes: a row for each length and objective."""
    rows = []
    for length in results["training"]:
        for objective, arm in length["arms"].items():
            pair = objective == "pipo"
            rows.append(
                [
                    f"{length['tokens']:,}",
                    objective,
                    f"{arm['tokens_per_second']:,.1f}",
                    f"{arm['peak_bytes'] / 2**30:.2f}",
                    f"{length['speedup']:.2f}×" if pair else ABSENT,
                    f"{length['peak_ratio']:.2f}×" if pair else ABSENT,
                ]
            )
    title = "training passes (forward, losses, backward) of one example with random weights, all of them trained"
    columns = ["tokens", "objective", "tokens/s", "peak GiB", "speed over regular", "peak over regular"]
    return Table(title, columns, rows, words=(1,))


def bench_tables(results: Mapping[str, Any]) -> list[Table]:
    """Return the tables for which the results have figures."""
    tables = latency_tables(results) if results["lengths"] else []
    tables += [throughput_table(results)] if results["throughput"] else []
    if results.get("users"):
        tables.append(users_table(results))
    if results.get("equal_memory"):
        tables += equal_memory_tables(results)
    tables += [training_table(results)] if results.get("training") else []
    note = " ".join(proof["words"] for proof in results.get("lossless", ()))
    return [replace(tables[0], note=f"{tables[0].note} {note}".strip()), *tables[1:]]


def _share_in_percent(share: float | None) -> str:
    return ABSENT if share is None else f"{100 * share:.0f} %"


def _milliseconds(times: Mapping[str, float]) -> str:
    return f"{1e3 * times['median']:.2f} [{1e3 * times['q1']:.2f}, {1e3 * times['q3']:.2f}]"
