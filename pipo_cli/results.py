"""Prints the result of a job or pipeline: tables of eval and bench, a few figures of the other kinds."""

import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipo_cli.session import say
from pipo_cli.tables import show_findings, show_pairs, show_table, text_of
from pipo_core.files.checkpoints import is_pair_model

if TYPE_CHECKING:
    from pipo_core.pipeline.run import PipelineResult
    from pipo_core.tables import Table

# By kind, the keys of a summary that are printed, with their labels; absent keys are left out.
FIGURES: Mapping[str, Mapping[str, str]] = {
    "train": {
        "rows": "examples",
        "dropped_rows": "examples left out as too long",
        "steps": "steps",
        "resumed_from_step": "resumed from step",
        "loss": "loss",
        "backbone_loss": "backbone loss",
        "mtp_loss": "MTP loss",
        "confidence_loss": "confidence loss",
        "confidence_mean": "mean confidence",
        "tokens_per_second": "tokens/s",
    },
    "distill": {
        "rows": "questions",
        "dropped_rows": "questions left out as too long",
        "steps": "steps",
        "resumed_from_step": "resumed from step",
        "loss": "loss",
        "backbone_loss": "first token KL",
        "mtp_loss": "draft KL",
        "confidence_loss": "confidence loss",
        "confidence_mean": "mean confidence",
        "confidence_target_mean": "teacher's mean acceptance",
        "rollout_tokens": "tokens an answer",
        "tokens_per_slot": "tokens a slot",
        "drafts_kept": "drafts kept %",
        "rollouts_finished": "answers finished %",
        "rollout_share": "time in rollouts %",
        "handover_share": "time in hand-overs %",
        "teacher_share": "time in the teacher %",
        "student_share": "time in the student's training %",
        "tokens_per_second": "tokens/s",
    },
    "rollout": {
        "problems": "problems",
        "answers": "answers",
        "finished": "finished %",
        "solved": "correct %",
        "problems_solved": "problems solved",
        "mean_tokens": "tokens an answer",
    },
    "build": {
        "questions": "questions",
        "answers": "answers",
        "dropped": "dropped",
        "train_rows": "training examples",
        "validation_rows": "validation examples",
        "mean_tokens": "tokens an answer",
    },
    "merge": {"layout": "layout", "base": "base", "dtype": "precision"},
}


def show_result(kind: str, summary: Mapping[str, Any]) -> None:
    """Print the figures and tables of a job's summary."""
    if kind in FIGURES:
        show_pairs(_figures(kind, summary))
    for table in _tables(kind, summary):
        show_table(table)
        say()
    findings = _findings(kind, summary)
    if findings:
        show_findings(findings)
        say()


def show_pipeline(result: "PipelineResult") -> None:
    """Print a line per stage, the tables of its evals and benches, the conclusions, and the report's path."""
    from pipo_core.evaluate.table import suites_of_stages
    from pipo_core.pipeline.report_text import conclusions, duration
    from pipo_core.tables import Table

    rows = [
        [stage.folder.name, "unchanged" if stage.skipped else "done", duration(stage.seconds)]
        for stage in result.stages
    ]
    show_table(Table("", ["stage", "state", "took"], rows, words=(0, 1)))
    say()
    found = {
        kind: {stage.folder.name: stage.summary for stage in result.stages if stage.kind == kind}
        for kind in ("eval", "bench")
    }
    for kind, summaries in found.items():
        for name, summary in summaries.items():
            for table in _tables(kind, summary):
                show_table(replace(table, title=f"{name}: {table.title}"))
                say()
    findings = conclusions(suites_of_stages(found["eval"]), found["bench"])
    if findings:
        show_findings(findings)
        say()
    say(f"report: {result.report}")
    models = [stage.folder / "model" for stage in result.stages if (stage.folder / "model" / "config.json").is_file()]
    pairs = [model for model in models if is_pair_model(model)]
    if pairs:
        say(f"next: {shlex.join(['pipo', 'chat', '--ckpt', str(pairs[-1])])}")


def _findings(kind: str, summary: Mapping[str, Any]) -> list[str]:
    """Return what the figures say in plain words."""
    if kind == "eval":
        from pipo_core.evaluate.table import suite_results
        from pipo_core.evaluate.verdicts import verdicts

        return [line for suite in suite_results(summary) for line in verdicts(suite)]
    if kind == "calibrate":
        return list(summary["findings"])
    calibration = summary.get("calibration")
    return list(calibration["findings"]) if calibration else []


def _tables(kind: str, summary: Mapping[str, Any]) -> list["Table"]:
    if kind == "eval":
        from pipo_core.evaluate.table import tables

        return tables(summary)
    if kind == "bench":
        from pipo_core.bench.table import bench_tables

        return bench_tables(summary)
    if kind == "calibrate":
        from pipo_core.calibrate.words import profile_tables
        from pipo_core.recipes.profile import Profile

        return profile_tables(Profile.model_validate(summary["profile"]))
    if kind in ("train", "distill") and summary.get("calibration"):
        from pipo_core.train.calibration import calibration_table

        return [calibration_table(summary["calibration"])]
    return []


def _figures(kind: str, summary: Mapping[str, Any]) -> dict[str, str]:
    shown = {key: label for key, label in FIGURES[kind].items() if summary.get(key) not in (None, {})}
    return {
        label: f"{100 * summary[key]:.1f}" if label.endswith("%") else text_of(summary[key])
        for key, label in shown.items()
    }
