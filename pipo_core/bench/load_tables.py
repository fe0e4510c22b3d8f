"""Tables of many requests at once: by users and context, and at equal memory."""

from collections.abc import Mapping
from typing import Any

from pipo_core.tables import ABSENT, Table, without_empty_columns

MIB = 2**20


def users_table(results: Mapping[str, Any]) -> Table:
    """Return real tokens a second while all requests decode: a row for each context, number of requests and arm."""
    rows = [
        [
            f"{row['context']:,}",
            f"{row['requests']:,}",
            arm["label"],
            *_speed(arm),
            _times(arm["speedup"] and arm["speedup"]["median"]),
            _times(arm["limit_speedup"]),
        ]
        for row in results["users"]
        for arm in row["arms"]
    ]
    title = f"decoding by users, prompts left out: real tokens a second of all together{_over(results)}"
    columns = ["context", "users", "arm", *_SPEED, "×", "× of limits"]
    return without_empty_columns(Table(title, columns, rows, words=(2,)))


def equal_memory_tables(results: Mapping[str, Any]) -> list[Table]:
    """Return what fits the same memory, computed and measured: a row for each context and arm."""
    memory, base = results["equal_memory"], results["baseline"]
    computed = Table(
        f"at {memory['gib']:g} GiB for weights and sequences, computed from shapes: what a sequence keeps, how many "
        "fit, and the most that they write a second",
        ["context", "arm", "MiB each", "fit", "fit with copies", "tokens a step", "tokens/s at most", "× at most"],
        [
            [
                f"{row['context']:,}",
                arm["label"],
                f"{arm['sequence_bytes'] / MIB:,.1f}",
                f"{arm['fit']:,}",
                f"{arm['fit_with_copies']:,}" if arm["fit_with_copies"] != arm["fit"] else ABSENT,
                f"{arm['tokens_per_step']:.2f}",
                ABSENT if arm["tokens_per_second"] is None else f"{arm['tokens_per_second']:,.0f}",
                _times(_ratio(row["arms"], arm, base)),
            ]
            for row in memory["computed"]
            for arm in row["arms"]
        ],
        words=(1,),
        note="Fit with copies: where a server keeps one recurrent state more for each draft, to roll back to."
        if any(arm["fit_with_copies"] != arm["fit"] for row in memory["computed"] for arm in row["arms"])
        else "",
    )
    measured = Table(
        f"at {memory['gib']:g} GiB, measured: the requests that the engine's plan lets run at once{_over(results)}",
        ["context", "arm", "fit", "caches MiB", *_SPEED, "×", "× of limits"],
        [
            [
                f"{row['context']:,}",
                arm["label"],
                f"{arm['fit']:,}",
                ABSENT if arm["cache_bytes"] is None else f"{arm['cache_bytes'] / MIB:,.0f}",
                *_speed(arm),
                _times(arm["speedup"] and arm["speedup"]["median"]),
                _times(arm["limit_speedup"]),
            ]
            for row in memory["measured"]
            for arm in row["arms"]
        ],
        words=(1,),
    )
    return [without_empty_columns(table) for table in (computed, measured) if table.rows]


_SPEED = ("tokens/s", "ms a step", "tokens a step", "of limit")


def _speed(arm: Mapping[str, Any]) -> list[str]:
    return [
        "{median:,.1f} [{q1:,.1f}, {q3:,.1f}]".format(**arm["tokens_per_second"]),
        f"{1e3 * arm['step_s']['median']:.2f}",
        f"{arm['tokens_per_step']:.2f}",
        ABSENT if arm["of_limit"] is None else f"{100 * arm['of_limit']:.0f} %",
    ]


def _ratio(arms: list[dict[str, Any]], arm: Mapping[str, Any], baseline: str | None) -> float | None:
    """Return an arm's computed tokens a second over the baseline's."""
    base = next((one["tokens_per_second"] for one in arms if one["arm"] == baseline), None)
    return arm["tokens_per_second"] / base if base and arm["tokens_per_second"] is not None else None


def _times(ratio: float | None) -> str:
    return ABSENT if ratio is None else f"{ratio:.2f}×"


def _over(results: Mapping[str, Any]) -> str:
    return f"; ×: over {results['baseline']}" if results["baseline"] else ""
