"""Compares two results of one kind: the ratios or differences of their figures, and the settings that differ."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipo_core.bench.keeping import RAW, RESULTS, UNFINISHED, UNFINISHED_KIND
from pipo_core.errors import MissingInputError, UsageError
from pipo_core.evaluate.table import suite_results
from pipo_core.files import read_object
from pipo_core.pipeline.compared_figures import (
    ACCURACY,
    KEPT,
    LESS_IS_BETTER,
    bench_figures,
    counted,
    eval_figures,
    profile_figures,
    proofs_of,
    recommendations,
)
from pipo_core.pipeline.records import stage_record
from pipo_core.pipeline.status import PREVIOUS
from pipo_core.recipes.base import dump
from pipo_core.recipes.profile import PROFILE, read_profile
from pipo_core.tables import ABSENT, Table, without_empty_columns

_FIGURES = {"eval": eval_figures, "bench": bench_figures, "calibrate": profile_figures}
_FILES = (PROFILE, RESULTS, UNFINISHED)
"""What a stage's folder may hold; the first one counts. A calibration has the results of an evaluation, too."""
_TABLES = {
    "eval": {"arms", "suites", "curves"},
    "bench": {*RAW, *RAW.values(), "training"},
    "calibrate": {"settings", "loads"},
}
_ASIDE = {"kind", "version", "definitions", "command", "limits_of", "lossless"}
"""Keys of results that are not compared as settings. `limits_of` has peaks that a CPU's bench measures anew."""


def read_results(path: Path) -> dict[str, Any]:
    """Return the results of an eval or a bench, or the profile of a calibration, with its stage's ``kind``.

    Args:
        path: the file, a stage's folder, or a run's folder with one such stage.

    Raises:
        MissingInputError: if there are none, or several, or if their stage is not finished.
        UsageError: if they are of something else.
    """
    if not path.exists():
        raise MissingInputError(f"{path} does not exist")
    file = path if path.is_file() else _find(path)
    results = read_object(file)
    kind = results.get("kind")
    record = stage_record(file.parent) if file != path else {}
    # A stage that began anew may have an earlier result beside it, and a calibration one of an evaluation.
    if record and (record["state"] != "done" or (record.get("kind") == "calibrate" and file.name != PROFILE)):
        raise _unfinished(file.parent, record.get("kind", "run"))
    if kind == "profile":
        return {**dump(read_profile(file)), "kind": "calibrate"}
    if kind == UNFINISHED_KIND:
        raise _unfinished(file.parent, "bench")
    if kind not in ("eval", "bench"):
        raise UsageError(f"{file} does not hold results of pipo eval, pipo bench or pipo calibrate")
    try:
        dict(_FIGURES[kind](results)), proofs_of(results), _settings(results)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{file} does not have the form of a result of pipo {kind}") from error
    return results


def _unfinished(folder: Path, what: str) -> MissingInputError:
    message = f"{folder} holds a stage of pipo {what} that is not finished"
    return MissingInputError(message, hint="give its command again")


def _find(path: Path) -> Path:
    """Return the file of results in a stage's folder, or in a run's folder with one such stage.

    Raises:
        MissingInputError: if there is none, or several.
    """
    folders = [path, *sorted(one for one in path.glob("*/") if PREVIOUS not in one.name)]
    found = [next((folder / name for name in _FILES if (folder / name).is_file()), None) for folder in folders]
    if found[0] is not None:
        return found[0]
    files = [file for file in found if file is not None]
    if len(files) != 1:
        what = f"{len(files)} results, such as {files[0].parent}" if files else f"no {RESULTS} and no {PROFILE}"
        raise MissingInputError(
            f"{path} holds {what}", hint="give the folder of one stage of pipo eval, pipo bench or pipo calibrate"
        )
    return files[0]


def compare_results(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of the second result relative to the first, as JSON can hold them.

    ``rows`` are the rows that both have, ``only_first`` and ``only_second`` name those of one result alone, and
    ``settings`` has both values of each setting that differs. ``lossless`` has, where they differ, the words of both
    about each arm that claims to be. A row has ratios, by which the second is better above 1: of times and of memory
    the first over the second, of what is written a second and of how many fit the second over the first. Accuracies and
    shares of kept drafts are differences, second minus first, in points. Of calibrations, ``recommended`` has the
    settings of both at each load.

    Raises:
        UsageError: if the results are of different kinds, or have no row in common.
    """
    kind = first["kind"]
    if second["kind"] != kind:
        raise UsageError(f"the first is a result of pipo {kind}, the second of pipo {second['kind']}")
    figures = _FIGURES[kind]
    ours, theirs = dict(figures(first)), dict(figures(second))
    rows = [{"row": list(key), **_ratios(ours[key], theirs[key])} for key in ours if key in theirs]
    if not rows:
        raise UsageError("the results have no row in common: their arms, lengths, requests or budgets differ")
    one, other = proofs_of(first), proofs_of(second)
    claims = dict.fromkeys([*one, *other])
    found = {
        "kind": kind,
        "rows": rows,
        "only_first": [list(key) for key in ours if key not in theirs],
        "only_second": [list(key) for key in theirs if key not in ours],
        "settings": dict(_differences("", _settings(first), _settings(second))),
        "lossless": {arm: [one.get(arm), other.get(arm)] for arm in claims if one.get(arm) != other.get(arm)},
    }
    return {**found, "recommended": recommendations(first, second)} if kind == "calibrate" else found


def comparison_table(found: Mapping[str, Any]) -> Table:
    """Return the rows of `compare_results` as a table."""
    names = list(dict.fromkeys(name for row in found["rows"] for name in row if name != "row"))
    rows = [[" · ".join(row["row"]), *(_shown(name, row.get(name)) for name in names)] for row in found["rows"]]
    return without_empty_columns(Table("B against A: above 1×, B is better", ["row", *names], rows))


def comparison_lines(found: Mapping[str, Any]) -> list[str]:
    """Return what `compare_results` found besides its rows, in words; A is the first result, B the second."""
    lines = []
    for place, rows in (("A", found["only_first"]), ("B", found["only_second"])):
        if rows:
            lines.append(f"only in {place}: {'; '.join(' · '.join(row) for row in rows)}")
    for load in found.get("recommended", ()):
        told = [_recommended(*load["best"])]
        if load["best_pairs"] != load["best"]:
            told.append(f"of the pairs {_recommended(*load['best_pairs'])}")
        lines.append(f"recommended at {counted(load['requests'], 'request')}: {'; '.join(told)}")
    for arm, (one, other) in found["lossless"].items():
        lines.append(f"differs: lossless: {arm}: A: {one or 'nothing is said.'} B: {other or 'nothing is said.'}")
    return [*lines, *(f"differs: {name}: {one} and {other}" for name, (one, other) in found["settings"].items())]


def _recommended(first: str | None, second: str | None) -> str:
    if first == second:
        return f"{first or 'nothing'} in both"
    return f"{first or 'nothing'} in A, {second or 'nothing'} in B"


def _is_share(name: str) -> bool:
    return name.startswith("avg@") or name in (ACCURACY, KEPT)


def _ratios(first: Mapping[str, float | None], second: Mapping[str, float | None]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, one in first.items():
        other = second.get(name)
        if one is None or other is None:
            found[name] = None
        elif _is_share(name):
            found[name] = 100 * (other - one)
        else:
            above, below = (one, other) if name in LESS_IS_BETTER else (other, one)
            found[name] = above / below if below else None  # not one sequence may fit, and not one answer be right
    return found


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:+.1f} points" if _is_share(name) else f"{value:.2f}×"


def _settings(results: Mapping[str, Any]) -> dict[str, Any]:
    aside = {*_TABLES[results["kind"]], *_ASIDE}
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
