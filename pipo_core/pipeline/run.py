"""A pipeline: its stages in order, each only as far as it is needed, and a report at the end.

A stage that ran again makes a later one run again only if its artifacts came out different, since inputs
count by content. Everything that no stage makes is looked for before the first stage starts, so that a
missing model at the end does not cost the hours before it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipo_core.files import FolderLock, remove_partial
from pipo_core.pipeline.inputs import outside_inputs, stage_references
from pipo_core.pipeline.jobs import JOBS, Job
from pipo_core.pipeline.stage import Action, StageResult, check_stage, run_stage
from pipo_core.recipes.kinds import JobKind
from pipo_core.recipes.load import stage_recipe
from pipo_core.recipes.pipeline import PipelineRecipe
from pipo_core.reporting import Reporter

REPORT = "report.md"


@dataclass(frozen=True)
class PipelineResult:
    """What a pipeline left: its folder, its report and the result of every stage, in order."""

    folder: Path
    report: Path
    stages: list[StageResult]


@dataclass(frozen=True)
class PlannedStage:
    """What `run_pipeline` would do with one stage; `wait`: that shows once the stages before it have run."""

    name: str
    kind: str
    action: Action | Literal["wait"]
    reasons: list[str]


def run_pipeline(
    recipe: PipelineRecipe, root: Path, *, reporter: Reporter, jobs: Mapping[str, Job] = JOBS
) -> PipelineResult:
    """Run what is not done, write `root/<run>/report.md` if anything changed, and return what there is.

    Raises RecipeError for a stage's invalid recipe and MissingInputError for an input that no stage makes,
    both before anything runs; UsageError if another process runs the pipeline; and what a stage's job raises.
    """
    stages = pipeline_stages(recipe)
    _look_for_inputs(stages)
    folder = root / recipe.run
    with FolderLock(folder):
        remove_partial(folder, deep=False)  # of a report; the stages look after their own folders
        results: dict[str, StageResult] = {}
        for number, (name, job) in enumerate(stages.items(), start=1):
            kind = "" if name == job.kind else f" ({job.kind})"
            reporter.info(f"[{number}/{len(stages)}] {name}{kind}")
            folders = {done: str(result.folder) for done, result in results.items()}
            results[name] = run_stage(job, root, reporter=reporter, name=name, inputs=folders, restart=True, jobs=jobs)
        report = folder / REPORT
        if not _is_newer(report, results.values()):
            # Imported here: a pipeline with nothing to do draws nothing.
            from pipo_core.pipeline.report import write_report

            report = write_report(folder, list(results.values()))
        return PipelineResult(folder, report, list(results.values()))


def plan_pipeline(recipe: PipelineRecipe, root: Path) -> list[PlannedStage]:
    """Return what `run_pipeline` would do, stage by stage, changing nothing.

    Raises RecipeError and MissingInputError as it would before its first stage.
    """
    stages = pipeline_stages(recipe)
    _look_for_inputs(stages)
    plan: list[PlannedStage] = []
    finished: dict[str, str] = {}
    for name, job in stages.items():
        named = {stage for _, stage in stage_references(job.kind, job.model_dump(mode="json"))}
        unfinished = sorted(named - finished.keys())
        if unfinished:
            plan.append(PlannedStage(name, job.kind, "wait", [f"it reads what {', '.join(unfinished)} makes"]))
            continue
        todo = check_stage(job, root, name=name, inputs=finished, restart=True)
        plan.append(PlannedStage(name, job.kind, todo.action, todo.reasons))
        if todo.action == "skip":
            finished[name] = str(todo.folder)
    return plan


def pipeline_stages(recipe: PipelineRecipe) -> dict[str, JobKind]:
    """Return each stage's recipe by name, in order, all in the pipeline's run. Raises RecipeError."""
    stages: dict[str, JobKind] = {}
    for stage in recipe.stages:
        job = stage_recipe(stage, stages=list(stages))
        stages[stage.name] = job.model_copy(update={"run": recipe.run})
    return stages


def _look_for_inputs(stages: Mapping[str, JobKind]) -> None:
    for job in stages.values():
        outside_inputs(job.kind, job.model_dump(mode="json"))


def _is_newer(report: Path, results: Collection[StageResult]) -> bool:
    """Whether the report is younger than every stage's last event; a killed run may leave an old one."""
    if not report.is_file() or not all(result.skipped for result in results):
        return False
    journals = [result.folder / "events.jsonl" for result in results]
    written = report.stat().st_mtime_ns
    return all(written >= journal.stat().st_mtime_ns for journal in journals if journal.is_file())
