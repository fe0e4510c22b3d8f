"""A pipeline: its stages in order, each run only if needed, and a report at the end.

Inputs count by content, so a stage that ran again makes a later one run again only if its artifacts changed. Inputs
that no stage makes are looked for before the first stage starts, so a missing model of the last stage costs no time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipo_core.errors import MissingInputError
from pipo_core.files import FolderLock, file_fingerprint, fingerprint, read_record, remove_partial, write_record
from pipo_core.pipeline.inputs import STAGE_PREFIX, all_missing, missing_inputs, stage_references
from pipo_core.pipeline.jobs import JOBS, Job, missing_plots
from pipo_core.pipeline.records import stage_record
from pipo_core.pipeline.stage import StageResult, run_stage
from pipo_core.pipeline.status import Action, check_stage
from pipo_core.recipes.kinds import JobKind
from pipo_core.recipes.load import stage_recipe
from pipo_core.recipes.merge import MergeRecipe
from pipo_core.recipes.opd import DistillRecipe
from pipo_core.recipes.pipeline import PipelineRecipe
from pipo_core.recipes.sft import TrainRecipe
from pipo_core.reporting import Reporter

REPORT = "report.md"
_REPORT_RECORD = ".report.json"
"""What the report was made from, and its files, by content."""


@dataclass(frozen=True)
class PipelineResult:
    """The outcome of a pipeline: its folder, its report and the results of its stages in order."""

    folder: Path
    report: Path
    stages: list[StageResult]


@dataclass(frozen=True)
class PlannedStage:
    """What `run_pipeline` would do with one stage.

    Attributes:
        name: the stage's.
        kind: its recipe's kind.
        action: `wait` if that depends on stages that have to run first; `cannot start` if an input is missing that no
            stage makes.
        reasons: phrases.
        job: its recipe; a model that an earlier stage makes is named by the published size that it starts from, if the
            stages tell.
    """

    name: str
    kind: str
    action: Action | Literal["wait", "cannot start"]
    reasons: list[str]
    job: JobKind


def run_pipeline(
    recipe: PipelineRecipe, root: Path, *, reporter: Reporter, jobs: Mapping[str, Job] = JOBS
) -> PipelineResult:
    """Run the stages that are not finished, and write the report `root/<run>/report.md` if anything changed.

    Args:
        recipe: the pipeline.
        root: the folder of all runs.
        reporter: shows messages and progress.
        jobs: the job of each recipe kind.

    Raises:
        RecipeError: before anything runs, if a stage's recipe is not valid.
        MissingInputError: before anything runs, naming every input that is missing and that no stage makes.
        MachineError: before anything runs, if the report's plots cannot be drawn.
        UsageError: if another process runs the pipeline.
        Exception: any error of a stage's job.
    """
    stages = pipeline_stages(recipe)
    for lack in (missing_of(recipe), missing_plots()):
        if lack is not None:
            raise lack
    folder = root / recipe.run
    with FolderLock(folder):
        remove_partial(folder, deep=False)  # partial reports; each stage cleans its own folder
        results: dict[str, StageResult] = {}
        for number, (name, job) in enumerate(stages.items(), start=1):
            kind = "" if name == job.kind else f" ({job.kind})"
            reporter.info(f"[{number}/{len(stages)}] {name}{kind}")
            folders = {done: str(result.folder) for done, result in results.items()}
            results[name] = run_stage(job, root, reporter=reporter, name=name, inputs=folders, restart=True, jobs=jobs)
        report = folder / REPORT
        made_from = fingerprint({name: _content(result.folder) for name, result in results.items()})
        if _report_print(folder) != made_from:
            # Imported here: a pipeline with nothing to do needs no plots.
            from pipo_core.pipeline.report import write_report

            report = write_report(folder, list(results.values()))
            write_record(folder / _REPORT_RECORD, {"made_from": made_from, "files": _report_files(folder)})
        return PipelineResult(folder, report, list(results.values()))


def plan_pipeline(recipe: PipelineRecipe, root: Path) -> list[PlannedStage]:
    """Return what `run_pipeline` would do with each stage, without changing anything.

    Raises:
        RecipeError: if a stage's recipe is not valid.
    """
    stages = pipeline_stages(recipe)
    plan: list[PlannedStage] = []
    finished: dict[str, str] = {}
    for name, job in stages.items():
        settings = job.model_dump(mode="json")
        sized = _sized(job, stages)
        missing = missing_inputs(job.kind, settings)
        if missing:
            plan.append(PlannedStage(name, job.kind, "cannot start", [error.message for error in missing], sized))
            continue
        unfinished = sorted({stage for _, stage in stage_references(job.kind, settings)} - finished.keys())
        if unfinished:
            plan.append(
                PlannedStage(name, job.kind, "wait", [f"it reads the output of {', '.join(unfinished)}"], sized)
            )
            continue
        todo = check_stage(job, root, name=name, inputs=finished, restart=True)
        plan.append(PlannedStage(name, job.kind, todo.action, todo.reasons, sized))
        if todo.action == "skip":
            finished[name] = str(todo.folder)
    return plan


def pipeline_stages(recipe: PipelineRecipe) -> dict[str, JobKind]:
    """Return each stage's recipe by name, in order, all with the pipeline's run.

    Raises:
        RecipeError: if a stage's recipe is not valid.
    """
    stages: dict[str, JobKind] = {}
    for stage in recipe.stages:
        job = stage_recipe(stage, stages=list(stages))
        stages[stage.name] = job.model_copy(update={"run": recipe.run})
    return stages


def missing_of(recipe: PipelineRecipe) -> MissingInputError | None:
    """Return the error that names every input that no stage makes and that is missing; None if there is none."""
    stages = pipeline_stages(recipe).values()
    errors = [error for job in stages for error in missing_inputs(job.kind, job.model_dump(mode="json"))]
    return all_missing(errors) if errors else None


def _sized(job: JobKind, stages: Mapping[str, JobKind]) -> JobKind:
    """Return a training's recipe with, for a model that an earlier stage makes, the name that it starts from."""
    if not isinstance(job, TrainRecipe | DistillRecipe):
        return job
    model = job.model
    for _ in stages:
        name = model.removeprefix(STAGE_PREFIX).partition("/")[0]
        source = stages.get(name) if model.startswith(STAGE_PREFIX) else None
        if isinstance(source, MergeRecipe):
            model = source.source
        elif isinstance(source, TrainRecipe | DistillRecipe):
            model = source.model
    return job.model_copy(update={"model": model})


def _content(folder: Path) -> list[Any]:
    """Return what a report says of a stage: its record without the times of files, and what it made."""
    record = stage_record(folder)
    prints = {name: digest for name, (_, _, digest) in (record.pop("prints", None) or {}).items()}
    record.pop("files", None)
    return [record, prints]


def _report_print(folder: Path) -> str | None:
    """Return what the report was made from; None if there is no report, or it or a plot was changed or is gone."""
    try:
        record = read_record(folder / _REPORT_RECORD)
        whole = record["files"] == {name: file_fingerprint(folder / name) for name in record["files"]}
    except (MissingInputError, KeyError, TypeError):
        return None
    return str(record.get("made_from")) if whole else None


def _report_files(folder: Path) -> dict[str, str]:
    files = [path for path in [folder / REPORT, *sorted(folder.glob("*.png"))] if path.is_file()]
    return {path.name: file_fingerprint(path) for path in files}
