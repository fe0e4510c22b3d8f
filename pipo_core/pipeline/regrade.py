"""Grades the answers of a finished evaluation anew: after a grader was mended, or a suite's file was."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipo_core.errors import MissingInputError, UsageError
from pipo_core.files import FolderLock, lock_of
from pipo_core.pipeline.fingerprints import FingerprintCache
from pipo_core.pipeline.outputs import prints_of
from pipo_core.pipeline.records import RECORD, stage_record, stage_state, write_stage_record
from pipo_core.pipeline.stage import RECIPE, StageResult
from pipo_core.pipeline.status import PREVIOUS
from pipo_core.recipes.evaluate import EvalRecipe
from pipo_core.recipes.load import load_recipe
from pipo_core.reporting import Reporter


def regrade(folder: Path, reporter: Reporter) -> StageResult:
    """Grade every answer of an evaluation anew, write its results, and return its outcome.

    Neither the model nor an engine is needed; answers stay as they are. The earlier results stay until the new ones
    are complete.

    Args:
        folder: the stage's folder, or a run's folder with one stage of the kind.
        reporter: shows progress and warnings.

    Raises:
        MissingInputError: if the folder holds no finished evaluation, or the questions are gone.
        UsageError: if another process works in the folder.
    """
    folder = _stage_of(folder)
    with FolderLock(lock_of(folder), about=folder):
        state = stage_state(folder)
        record = dict(stage_record(folder))
        if record.get("kind") != "eval":
            raise UsageError(f"{folder} is a stage of kind {record.get('kind')}, not eval")
        if state != "done":
            raise MissingInputError(
                f"{folder} is not finished (state: {state})", hint="give its command again; it goes on where it stopped"
            )
        recipe = load_recipe(folder / RECIPE)
        if not isinstance(recipe, EvalRecipe):
            raise UsageError(f"{folder / RECIPE} is of kind {recipe.kind}, not eval")
        # Imported here, because it imports torch.
        from pipo_core.evaluate.runner import run_regrade

        summary = run_regrade(recipe, folder, reporter=reporter)
        cache = FingerprintCache()
        record["inputs"] = {key: _read_anew(key, given, cache) for key, given in record["inputs"].items()}
        record |= {"summary": summary, "prints": prints_of(folder, cache)}
        write_stage_record(folder, record)
        return StageResult(folder, "eval", summary, False, record.get("seconds", 0.0))


def _read_anew(key: str, given: Mapping[str, Any], cache: FingerprintCache) -> dict[str, Any]:
    """Return a recorded input, of a suite with the fingerprint of what is there now: the verdicts are of that."""
    if key != "suite" and not key.startswith("benchmark."):
        return dict(given)
    return {**given, "fingerprint": cache.of_artifact(Path(given["path"])).fingerprint}


def _stage_of(folder: Path) -> Path:
    if (folder / RECORD).is_file():
        return folder
    stages = sorted(path.parent for path in folder.glob(f"*/{RECORD}") if PREVIOUS not in path.parent.name)
    found = [stage for stage in stages if stage_record(stage).get("kind") == "eval"]
    if len(found) == 1:
        return found[0]
    what = f"holds {len(found)} evaluations, such as {found[0].name}" if found else "holds no evaluation"
    raise MissingInputError(f"{folder} {what}", hint="give the folder of one stage of pipo eval")
