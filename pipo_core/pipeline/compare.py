"""Compares two results of one kind: the ratios or differences of their figures, and the settings that differ."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipo_core.errors import MissingInputError, UsageError
from pipo_core.evaluate.table import suite_results
from pipo_core.files import read_object
from pipo_core.tables import ABSENT, Table, without_empty_columns

RESULTS = "results.json"
_ROWS = {"eval": ("arms", "suites"), "bench": ("lengths", "throughput", "training", "raw", "raw_throughput")}
_ASIDE = {"definitions", "command", "limits_of", "curves"}
"""Keys of results that are not compared as settings. `limits_of` has a bandwidth that a CPU's bench measures anew."""


def read_results(path: Path) -> dict[str, Any]:
    """Return the results of an eval or a bench.

    Args:
        path: the file of results, a stage's folder, or a run's folder with one such stage.

    Raises:
        MissingInputError: if there are none, or several.
        UsageError: if they are not of an eval or a bench.
    """
    file = path if path.is_file() else path / RESULTS
    if not file.is_file():
        found = sorted(path.glob(f"*/{RESULTS}"))
        if len(found) != 1:
            what = f"{len(found)} results, such as {found[0].parent}" if found else f"no {RESULTS}"
            raise MissingInputError(
                f"{path} holds {what}", hint="give the folder of one stage of pipo eval or pipo bench"
            )
        file = found[0]
    results = read_object(file)
    if results.get("kind") not in _ROWS:
        raise UsageError(f"{file} does not hold results of pipo eval or pipo bench")
    return results


def compare_results(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of the second result relative to the first, as JSON can hold them.

    ``rows`` are the rows that both have, ``only_first`` and ``only_second`` name those of one result alone, and
    ``settings`` has both values of each setting that differs. A row of a bench has ratios of times (first over second,
    so above 1 the second is faster) and of throughput (second over first). A row of an eval has the difference of
    accuracies (second minus first, in points) and the ratio of tokens a slot.

    Raises:
        UsageError: if the results are of different kinds, or have no row in common.
    """
    kind = first["kind"]
    if second["kind"] != kind:
        raise UsageError(f"the first is a result of pipo {kind}, the second of pipo {second['kind']}")
    figures = _bench_figures if kind == "bench" else _eval_figures
    ours, theirs = dict(figures(first)), dict(figures(second))
    rows = [{"row": list(key), **_ratios(ours[key], theirs[key])} for key in ours if key in theirs]
    if not rows:
        raise UsageError("the results have no row in common: their arms, lengths, requests or budgets differ")
    return {
        "kind": kind,
        "rows": rows,
        "only_first": [list(key) for key in ours if key not in theirs],
        "only_second": [list(key) for key in theirs if key not in ours],
        "settings": dict(_differences("", _settings(first), _settings(second))),
    }


def comparison_table(found: Mapping[str, Any]) -> Table:
    """Return the rows of `compare_results` as a table."""
    names = list(dict.fromkeys(name for row in found["rows"] for name in row if name != "row"))
    rows = [[" · ".join(row["row"]), *(_shown(name, row.get(name)) for name in names)] for row in found["rows"]]
    return without_empty_columns(Table("the second against the first", ["row", *names], rows))


def _bench_figures(results: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, float | None]]]:
    for length in results["lengths"]:
        for arm in length["arms"]:
            key = (f"{length['prompt_tokens']:,} prompt tokens", arm["label"])
            yield key, {"TTFT": arm["ttft_s"]["median"], "TPOT": arm["tpot_s"]["median"]}
    for row in results.get("throughput", ()):
        for arm in row["arms"]:
            key = (f"{row['requests']:,} requests", arm["label"])
            yield key, {"tokens/s": arm["tokens_per_second"]["median"]}
    for row in results.get("training", ()):
        for name, arm in row["arms"].items():
            key = (f"training on {row['tokens']:,} tokens", name)
            yield key, {"tokens/s": arm["tokens_per_second"], "peak memory": float(arm["peak_bytes"])}


def _eval_figures(results: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, float | None]]]:
    for suite in suite_results(results):
        for arm in suite["arms"]:
            for unit, at in arm["budgets"].items():
                key = (suite["suite"], f"{suite['budget'][unit]:,} {unit}", arm["label"])
                points = {f"avg@{suite['samples']}": at["avg"]["value"]}
                yield key, {**points, "tokens a slot": at["tokens_per_slot"]}


def _ratios(first: Mapping[str, float | None], second: Mapping[str, float | None]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, one in first.items():
        other = second.get(name)
        if one is None or other is None:
            found[name] = None
        elif name.startswith("avg@"):
            found[name] = 100 * (other - one)
        else:
            found[name] = one / other if name in ("TTFT", "TPOT") else other / one
    return found


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:+.1f} points" if name.startswith("avg@") else f"{value:.2f}×"


def _settings(results: Mapping[str, Any]) -> dict[str, Any]:
    aside = {*_ROWS[results["kind"]], *_ASIDE}
    settings = {key: value for key, value in results.items() if key not in aside}
    if results["kind"] == "eval":
        for suite in suite_results(results):
            settings |= {f"{suite['suite']}.{key}": value for key, value in suite.items() if key not in aside}
    return settings


def _differences(name: str, first: Any, second: Any) -> Iterator[tuple[str, list[Any]]]:
    """Yield the dotted name of each setting that differs, with both values; None for an absent one."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key in dict.fromkeys([*first, *second]):
            yield from _differences(f"{name}.{key}" if name else str(key), first.get(key), second.get(key))
    elif first != second:
        yield name, [first, second]
