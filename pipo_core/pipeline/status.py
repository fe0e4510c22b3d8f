"""What a stage would do, and why: decided from its folder, its recipe and its inputs, without changing anything."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipo_core.errors import UsageError
from pipo_core.pipeline.fingerprints import FingerprintCache
from pipo_core.pipeline.identity import Identity, changes, identity_of
from pipo_core.pipeline.inputs import Input, find_inputs
from pipo_core.pipeline.outputs import Damage, damage_of, recorded_prints, refuse_damaged_input
from pipo_core.pipeline.records import RECORD, stage_record
from pipo_core.recipes.kinds import JobKind
from pipo_core.train.checkpoints import has_complete
from pipo_core.train.layout import CHECKPOINTS

PREVIOUS = ".previous"
# Files that took hours to make, by kind: a folder with one of them is never replaced. Other kinds are cheap to repeat.
COSTLY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("train", "distill"), ("model", "adapter", "checkpoints/*/complete.json")),
    "rollout": ("rollouts.jsonl",),
    **dict.fromkeys(("eval", "calibrate"), ("answers/*/*.jsonl",)),
}
TRAININGS = ("train", "distill")
"""Kinds that start again only on request."""
_SHOWN = 3
"""Damaged files that are named; the others are counted."""

Action = Literal["skip", "start", "go on", "start again", "refuse"]


class ChangedError(UsageError):
    """Another training, or a damaged one, is in the folder that this one would use; `problems` says what is wrong."""

    def __init__(self, folder: Path, changes: list[str], *, damaged: bool) -> None:
        """Keep the changes.

        Args:
            folder: the folder of the training.
            changes: a phrase for each setting, input or file that differs from the training in there.
            damaged: whether files differ, and there is no checkpoint to make them again from.
        """
        self.problems = changes
        another = f"{folder} holds another training:"
        broken = f"{folder} holds a damaged training, and no checkpoint to make it good from:"
        if any(f"no readable {RECORD}" in change for change in changes):
            another = f"{folder} holds files of a training that is not known:"
        super().__init__(
            "\n".join([broken if damaged else another, *(f"  {change}" for change in changes)]),
            hint=f"add --restart to start again (the old training becomes {folder.name}{PREVIOUS}), "
            "or run=NAME to train in another folder",
        )


@dataclass(frozen=True)
class StageStatus:
    """What `run_stage` would do with a stage, and why.

    Attributes:
        folder: the stage's folder.
        action: `refuse` means that it would raise `ChangedError`: a training would have to start again without a
            request for that.
        reasons: one phrase for each change, or for the state that the stage was left in.
        inputs: the recipe's inputs.
        identity: the stage's identity.
        files: (size, mtime_ns, hash) of the inputs' files by path.
        settings: the recipe in its JSON form.
        earlier: the record of an earlier call; None if there is none.
        damaged: files of the finished stage that are no longer what it made.
    """

    folder: Path
    action: Action
    reasons: list[str]
    inputs: list[Input]
    identity: Identity
    files: dict[str, tuple[int, int, str]]
    settings: dict[str, Any]
    earlier: dict[str, Any] | None
    damaged: list[Damage]


def stage_folder(recipe: JobKind, root: Path, name: str | None = None) -> Path:
    """Return `root/<run>/<stage>`; a stage without a name has that of its kind and, of several shards, its shard's."""
    return root / recipe.run / (name or recipe.stage)


def check_stage(
    recipe: JobKind,
    root: Path,
    *,
    name: str | None = None,
    inputs: Mapping[str, str] | None = None,
    restart: bool = False,
) -> StageStatus:
    """Return what `run_stage` would do with a stage, without changing anything.

    Args:
        recipe: as in `run_stage`.
        root: as in `run_stage`.
        name: as in `run_stage`.
        inputs: as in `run_stage`.
        restart: as in `run_stage`.

    Raises:
        MissingInputError: if an input is absent, unfinished, damaged, or not of the form that its key needs.
    """
    folder = stage_folder(recipe, root, name)
    settings = recipe.model_dump(mode="json")
    found = find_inputs(recipe.kind, settings, paths_of(inputs))
    cache = FingerprintCache()
    for path in sorted(folder.parent.glob(f"*/{RECORD}")):
        record = stage_record(path.parent)
        cache.remember(record.get("files", {}))
        cache.remember(recorded_prints(path.parent, record))
    for item in found:
        refuse_damaged_input(item.key, item.path, cache)
    artifacts = {item.key: cache.of_artifact(item.path) for item in found}
    identity = identity_of(recipe, {key: artifact.fingerprint for key, artifact in artifacts.items()})
    files = {path: entry for artifact in artifacts.values() for path, entry in artifact.files.items()}
    earlier = stage_record(folder) or None
    damaged = damage_of(folder, earlier, cache) if earlier is not None and earlier["state"] == "done" else []
    action, reasons = _decide(recipe, folder, identity, earlier, [damage for damage in damaged if damage.matters])
    if action == "start again" and recipe.kind in TRAININGS and not restart and is_costly(folder, recipe.kind):
        action = "refuse"
    return StageStatus(folder, action, reasons, found, identity, files, settings, earlier, damaged)


def _decide(
    recipe: JobKind, folder: Path, identity: Identity, earlier: Mapping[str, Any] | None, damaged: list[Damage]
) -> tuple[Action, list[str]]:
    if earlier is None:
        if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            return "start again", [f"{folder} holds no readable {RECORD}"]
        return "start", []
    changed = changes(recipe, identity, earlier)
    if changed:
        return "start again", changed
    state = earlier["state"]
    if state == "done":
        reasons = [str(damage) for damage in damaged[:_SHOWN]]
        reasons += [f"{len(damaged) - _SHOWN} more files"] if len(damaged) > _SHOWN else []
        remade = recipe.kind not in TRAININGS or has_complete(folder / CHECKPOINTS)
        return ("skip" if not damaged else "go on" if remade else "start again"), reasons
    anew = ", and a bench measures anew" if recipe.kind == "bench" else ""
    if state == "running":
        return "go on", [f"it was killed while running{anew}"]
    if state == "interrupted":
        return "go on", [f"it was interrupted{anew}"]
    return "go on", [f"it failed: {earlier['message'].splitlines()[0]}{anew}"]


def paths_of(folders: Mapping[str, str] | None) -> dict[str, Path]:
    """Return the folders of earlier stages as paths, by name."""
    return {name: Path(folder) for name, folder in (folders or {}).items()}


def is_costly(folder: Path, kind: str) -> bool:
    """Return whether a stage's folder holds files of `COSTLY`; `kind` applies if the folder's record has none."""
    return any(any(folder.glob(pattern)) for pattern in COSTLY.get(stage_record(folder).get("kind", kind), ()))
