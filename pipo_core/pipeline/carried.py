"""Answers that a changed evaluation takes over from the one before it.

A change of settings starts an evaluation in a new folder, and the old one stays beside it. Most changes leave most
answers as they are: one more arm, one more sample, one more suite. An arm's answers are taken over if it has the same
checkpoint, by content, the same method and the same engine as before. Which of them are still wanted is decided answer
by answer, by the fingerprint of what was asked (`pipo_core.data.asking.ask`).
"""

import shutil
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pipo_core.files import fingerprint, new_file
from pipo_core.pipeline.identity import flat
from pipo_core.pipeline.records import stage_record
from pipo_core.pipeline.status import PREVIOUS
from pipo_core.recipes.evaluate import EvalRecipe
from pipo_core.recipes.schema import neutral_keys
from pipo_core.reporting import Reporter

_BY_LABEL = ("name", "tau", "acceptance")
"""Settings of an arm that are in the names of its files."""
_BY_ANSWER = ("sampling",)
"""Settings of an arm that are in the fingerprint of each answer."""


def carry_answers(recipe: EvalRecipe, out: Path, reporter: Reporter) -> None:
    """Copy the answer files of arms that are as they were from the folder that was set aside.

    Nothing is copied over files that are there already.

    Args:
        recipe: the settings.
        out: the stage's folder, whose record is written.
        reporter: is told how many files were taken over.
    """
    from pipo_core.evaluate.runner import ANSWERS  # imports torch

    previous = out.with_name(out.name + PREVIOUS)
    before, now = _arms(stage_record(previous)), _arms(stage_record(out))
    kept = [
        decoding.label(arm.name)
        for arm in recipe.arms
        if arm.name in before and before[arm.name] == now.get(arm.name)
        for decoding in arm.decodings()
    ]
    copied = 0
    for file in sorted((previous / ANSWERS).glob("*/*.jsonl")):
        target = out / ANSWERS / file.parent.name / file.name
        if file.stem in kept and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with file.open("rb") as lines, new_file(target) as copy:
                shutil.copyfileobj(lines, copy)
            copied += 1
    if copied:
        reporter.info(f"{out.name}: takes over the answers of {copied} files of {previous.name}")


def _arms(record: Mapping[str, Any]) -> dict[str, str]:
    """Return a fingerprint of what decides an arm's answers, besides what is asked, by the arm's name."""
    settings = record.get("settings")
    if record.get("kind") != "eval" or not isinstance(settings, Mapping):
        return {}
    neutral = neutral_keys(EvalRecipe)
    values = {key: value for key, value in flat(dict(settings)) if not any(fnmatchcase(key, one) for one in neutral)}
    found = {}
    for index, arm in enumerate(settings.get("arms", ())):
        own = _below(values, f"arms.{index}.")
        engine = _below(own, "engine.") or _below(values, "engine.")
        own = {
            key: value
            for key, value in own.items()
            if key not in _BY_LABEL and key.partition(".")[0] not in ("engine", "ckpt", *_BY_ANSWER)
        }
        ckpt = record.get("inputs", {}).get(f"arms.{index}.ckpt", {}).get("fingerprint")
        found[str(arm["name"])] = fingerprint([own, engine, ckpt])
    return found


def _below(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
