"""What the command-line tests share: small recipes, stand-ins for the jobs, and `pipo` called in this process."""

import json
import os
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from pipo_cli.app import app
from pipo_core.pipeline.run import PipelineResult
from pipo_core.pipeline.stage import StageResult
from pipo_core.recipes.kinds import Recipe
from tests.samples import arm, bench, evaluation

TRAIN = "kind: train\nmodel: ./base\ndata: {train: rows.jsonl}\nepochs: 3\nbatch: {accumulation: 4}\n"
ROW = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<think>\\nb"}]}\n'
EVAL = (
    "kind: eval\nbudget: {tokens: 9}\nbaseline: a\n"
    "arms: [{name: a, method: regular, ckpt: x/y}, {name: b, method: pipo, ckpt: x/y}]\n"
)
BENCH = "kind: bench\nprompt_tokens: [4]\narms: [{name: a, method: regular, ckpt: x/y}]\n"


class Calls:
    """Stands in for the jobs: keeps the recipes, returns a summary or raises."""

    def __init__(self) -> None:
        self.recipes: list[Any] = []
        self.roots: list[Path] = []
        self.error: BaseException | None = None
        self.summaries: dict[str, dict[str, Any]] = {
            "train": {"steps": 1200, "loss": 0.51234, "seconds": 1.0},
            "merge": {"artifact": "model", "dtype": "bfloat16"},
            "eval": evaluation(arm("pipo", 0.5, 0.87, 1.8)),
            "bench": bench(),
        }

    def stage(self, recipe: Recipe, root: Path, *, reporter: object, restart: bool) -> StageResult:
        self.recipes.append(recipe)
        self.roots.append(root)
        if self.error is not None:
            raise self.error
        summary = self.summaries[recipe.kind]
        return StageResult(root / recipe.run / recipe.kind, recipe.kind, summary, skipped=False, seconds=61.0)

    def pipeline(self, recipe: Recipe, root: Path, *, reporter: object) -> PipelineResult:
        self.recipes.append(recipe)
        folder = root / recipe.run
        stages = [
            StageResult(folder / name, name, self.summaries[name], skipped=name == "train", seconds=61.0)
            for name in ("train", "eval", "bench")
        ]
        return PipelineResult(folder, folder / "report.md", stages)


def pipo(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.stdout, result.stderr


def checkpoint(folder: Path, state: str = "done", age: float = 0.0, **config: Any) -> Path:
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text(json.dumps(config))
    record = folder / "stage.json"
    record.write_text(json.dumps({"state": state}))
    when = record.stat().st_mtime - age
    os.utime(record, (when, when))
    return folder / "model"
