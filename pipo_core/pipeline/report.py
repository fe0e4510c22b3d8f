"""The report of a run: `report.md` and its plots, made from the stages' folders."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipo_core.bench.table import bench_tables
from pipo_core.evaluate.table import parity_table, suite_tables, suites_of_stages
from pipo_core.files import read_json, read_jsonl, write_atomic
from pipo_core.pipeline import plots, speed_plots
from pipo_core.pipeline.answer_time import answer_seconds
from pipo_core.pipeline.journal import now
from pipo_core.pipeline.recommend import recommend
from pipo_core.pipeline.records import stage_record
from pipo_core.pipeline.report_text import (
    caveats,
    conclusions,
    data_line,
    duration,
    machine_lines,
    stage_table,
    training_line,
)
from pipo_core.pipeline.sample_answers import sample_answers
from pipo_core.pipeline.stage import StageResult
from pipo_core.pipeline.status import TRAININGS
from pipo_core.tables import markdown
from pipo_core.train.calibration import calibration_table

REPORT = "report.md"
Record = Mapping[str, Any]


def write_report(folder: Path, stages: Sequence[StageResult]) -> Path:
    """Write `report.md` and its plots into the run's folder and return the report's path.

    The page is written last, so it never names a plot that does not exist.

    Args:
        folder: the run's folder.
        stages: the finished stages in order.

    Raises:
        MissingInputError: if a stage's record or results are absent.
    """
    records = [(stage.folder, stage_record(stage.folder)) for stage in stages]
    evals = suites_of_stages(_results(records, "eval"))
    benches = _results(records, "bench")
    sections = [
        f"# {folder.name}\n\nWritten {now()}.",
        _section("In plain words", _bullets(conclusions(evals, benches))),
        _section("Accuracy", *(_accuracy(name, results, folder, benches) for name, results in evals.items())),
        _section("Answers", *(_answers(folder / name.partition("/")[0], found) for name, found in evals.items())),
        _section("Speed", *(_speed(name, results, folder) for name, results in benches.items())),
        _section("Training", *_each(records, TRAININGS, lambda path, record: _training(path, record, folder))),
        _section(
            "Data",
            _bullets([line for _, record in records for line in data_line(record)]),
        ),
        _section("What ran", markdown(stage_table([record for _, record in records])).rstrip(), _ran(records)),
        _section("What these figures do not say", _bullets(caveats(evals, benches))),
    ]
    path = folder / REPORT
    write_atomic(path, "\n\n".join(section for section in sections if section) + "\n")
    return path


def _results(records: Sequence[tuple[Path, Record]], kind: str) -> dict[str, dict[str, Any]]:
    return {record["name"]: read_json(path / "results.json") for path, record in records if record["kind"] == kind}


def _each(
    records: Sequence[tuple[Path, Record]], kinds: Sequence[str], part: Callable[[Path, Record], str]
) -> list[str]:
    return [part(path, record) for path, record in records if record["kind"] in kinds]


def _section(title: str, *parts: str) -> str:
    filled = [part for part in parts if part]
    return "\n\n".join([f"## {title}", *filled]) if filled else ""


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _images(files: Sequence[Path]) -> str:
    return "\n\n".join(f"![{file.stem.replace('_', ' ')}]({file.name})" for file in files)


def _accuracy(name: str, results: Mapping[str, Any], folder: Path, benches: Mapping[str, Record]) -> str:
    file = name.replace("/", "_")
    unit = next(iter(results["budget"]))
    figures = {arm["label"]: arm["budgets"][unit] for arm in results["arms"]}
    per_slot = {label: at["tokens_per_slot"] for label, at in figures.items() if at["tokens_per_slot"]}
    files = plots.evaluation(results, folder, file)
    files += plots.trade_off(results, per_slot, "real tokens a slot", folder, f"{file}_over_tokens_a_slot")
    for bench_name, bench in benches.items():
        if not bench["lengths"]:
            continue
        seconds = answer_seconds(bench, {label: at["mean_tokens"] for label, at in figures.items()})
        milliseconds = {label: 1000 * found for label, found in seconds.items()}
        what = f"ms an answer after {bench['lengths'][0]['prompt_tokens']:,} tokens, {bench['machine']['device']}"
        files += plots.trade_off(results, milliseconds, what, folder, f"{file}_over_{bench_name}_time")
    parity = parity_table(results)
    shown = [*suite_tables(results), *([parity] if parity is not None else [])]
    return "\n\n".join([f"### {name}", *(markdown(table).rstrip() for table in shown), _images(files)])


def _answers(stage: Path, results: Record) -> str:
    """Return two answers of the recommended pair model, or of the first one, with their slots."""
    found = recommend(results, next(iter(results["budget"])))
    pairs = [arm for arm in results["arms"] if arm["tau"] is not None]
    arm = found.arm if found is not None else pairs[0] if pairs else None
    return sample_answers(stage, results["suite"], arm) if arm is not None else ""


def _speed(name: str, results: dict[str, Any], folder: Path) -> str:
    files = speed_plots.bench(results, folder, name)
    return "\n\n".join([f"### {name}", *(markdown(table).rstrip() for table in bench_tables(results)), _images(files)])


def _training(path: Path, record: Record, folder: Path) -> str:
    rows = read_jsonl(path / "metrics.jsonl")
    parts = [f"### {record['name']}", training_line(record, rows)]
    files = plots.training(rows, folder, record["name"])
    gate = record["summary"].get("calibration")
    if gate:
        parts += [markdown(calibration_table(gate)).rstrip(), *gate["findings"]]
        files += plots.calibration(gate, folder, f"{record['name']}_calibration")
    return "\n\n".join([*parts, _images(files)])


def _ran(records: Sequence[tuple[Path, Record]]) -> str:
    total = sum(record["seconds"] for _, record in records)
    return _bullets([f"all stages together: {duration(total)}", *machine_lines([r for _, r in records])])
