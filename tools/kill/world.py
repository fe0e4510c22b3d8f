"""Runs small commands, each in its own process with a fault at a chosen step, and checks the files that they leave."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipo_core.files import read_json, read_jsonl, read_record, write_json
from pipo_core.pipeline.records import write_stage_record
from pipo_core.train.checkpoints import newest_complete
from tests.tiny import make_model, write_rows

FAULTS = Path(__file__).parent / "faults"
CHECKOUT = Path(__file__).resolve().parents[2]
_SECONDS = 300

_ENGINE = {"batch": 2, "threads": 1, "device": "cpu", "precision": "fp32"}
_TIMES = (
    *("seconds", "tokens_per_second", "ttft_s", "time_s", "at_s", "session", "resumed_from_step", "ckpt"),
    *("rollout_share", "teacher_share", "student_share"),
    *("step_s", "right_per_second", "best", "best_pairs", "findings"),  # of a calibration
)
"""Files that differ from run to run, or that contain their own path."""
_LIBRARY_TIMES = ("elapsed_time", "remaining_time", "train_speed(s/it)", "memory(GiB)")
_NOTES = (
    *("log.txt", "worker.log", "events.jsonl", "job.json", "recipe.yaml", "complete.json", "card.md"),
    *("args.json", "training_args.bin", "README.md", "logging.jsonl"),  # of the libraries
)
"""Files with times and paths in them."""

Contents = dict[str, Any]
Step = tuple[str, int, str, str]
"""Role, number, what it does, path."""


@dataclass(frozen=True)
class Done:
    """How a process ended, and the steps that it and its workers took."""

    code: int
    out: str
    err: str
    steps: list[Step]


class World:
    """Models, data and recipes in a folder, and the commands that use them."""

    def __init__(self, folder: Path) -> None:
        """Make everything; it takes seconds."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.base = make_model(folder / "base")
        self.pair = make_model(folder / "pair", layout="pipo")
        self.rows = write_rows(folder / "rows.jsonl", 24)
        self.adapter = _make_adapter(self.base, folder / "trained")
        for name, recipe in self._recipes().items():
            (folder / f"{name}.yaml").write_text(json.dumps({"run": "r", **recipe}))

    def words(self, name: str, out: Path, *more: str) -> list[str]:
        """Return the command line of `pipo` for the recipe ``name``, writing below ``out``; see `_recipes`."""
        file = self.folder / f"{name}.yaml"
        kind = json.loads(file.read_text())["kind"]
        return ["run" if kind == "pipeline" else kind, str(file), "--out", str(out), *more]

    def _recipes(self) -> dict[str, dict[str, Any]]:
        regular = {"name": "regular", "method": "regular", "ckpt": str(self.base)}
        pair = {"name": "pipo", "method": "pipo", "ckpt": str(self.pair), "tau": [0.0, 0.5]}
        evaluation = {
            "name": "eval",
            "recipe": "eval.yaml",
            "set": {"arms": [{**pair, "ckpt": "stage:merge"}], "baseline": None},
        }
        return {
            "train": {
                "kind": "train",
                "model": str(self.base),
                "data": {"train": str(self.rows), "max_length": 256},
                "pad_augmentation": [{"kind": "segment", "rho_max": 0.5}],
                "tuning": {"method": "lora", "rank": 4, "alpha": 8, "dropout": 0.2},
                "optimizer": {"learning_rate": 1e-3},
                "batch": {"per_device": 4},
                "max_steps": 8,
                "precision": "fp32",
                "save": {"every_steps": 2, "keep": 2},
                "log_every_steps": 1,
                "launch": {"threads": 1},
            },
            "distill": {
                "kind": "distill",
                "model": str(self.pair),
                "teacher": str(self.base),
                "data": {"train": str(self.rows), "max_prompt": 64},
                "rollout": {"slots": 6, "batch": 4},
                "tuning": {"method": "full"},
                "optimizer": {"learning_rate": 1e-3},
                "batch": {"per_device": 4},
                "max_steps": 6,
                "precision": "fp32",
                "save": {"every_steps": 2, "keep": 2},
                "log_every_steps": 1,
                "launch": {"threads": 1},
            },
            "merge": {"kind": "merge", "source": str(self.adapter)},
            "rollout": {
                "kind": "rollout",
                "model": str(self.base),
                "method": "regular",
                "problems": {"source": "tiny", "split": "train", "count": 3, "seed": 1},
                "samples": 2,
                "budget": {"tokens": 6},
                "engine": _ENGINE,
            },
            "eval": {
                "kind": "eval",
                "suite": "tiny",
                "problems": {"count": 2, "seed": 1},
                "samples": 2,
                "budget": {"tokens": 6},
                "arms": [regular, pair],
                "baseline": "regular",
                "engine": _ENGINE,
            },
            "calibrate": {
                "kind": "calibrate",
                "suite": "tiny",
                "problems": {"count": 2, "seed": 1},
                "samples": 1,
                "budget": {"tokens": 6},
                "ckpt": str(self.pair),
                "tau": [0.0, 0.5],
                "regular": {"ckpt": str(self.base), "drafts": [1]},
                "loads": {"context": 8, "requests": [1, 2], "new_tokens": 16, "trials": 1},
                "engine": _ENGINE,
            },
            "build": {"kind": "build", "worked": {"source": "tiny", "split": "train", "count": 6, "seed": 1}},
            # Without a training, which has many steps of its own and is tried by itself.
            "run": {
                "kind": "pipeline",
                "stages": [
                    {"name": "answers", "recipe": "rollout.yaml"},
                    {"name": "data", "recipe": "build.yaml"},
                    {"name": "merge", "recipe": "merge.yaml"},
                    evaluation,
                ],
            },
            "run_train": {
                "kind": "pipeline",
                "stages": [
                    {"name": "data", "recipe": "build.yaml"},
                    {"name": "train", "recipe": "train.yaml", "set": {"data.train": "stage:data", "max_steps": 2}},
                    {"name": "merge", "recipe": "merge.yaml", "set": {"source": "stage:train"}},
                    evaluation,
                ],
            },
        }


def pipo(words: list[str], plan: dict[str, Any] | None = None) -> Done:
    """Run `pipo` to its end, with a fault if ``plan`` says so; a kill takes all of its processes."""
    process = start(words, plan)
    out, err = process.communicate(timeout=_SECONDS)
    return Done(process.returncode, out, err, steps_in(Path(plan["log"])) if plan else [])


def start(words: list[str], plan: dict[str, Any] | None = None) -> "subprocess.Popen[str]":
    """Start `pipo` in its own process group, with Python's handler of Ctrl-C."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(FAULTS), str(CHECKOUT)])}
    variables["PIPO_TESTS_FAULT"] = json.dumps(plan or fault(Path("/nowhere"), Path(os.devnull)))
    return subprocess.Popen(
        [sys.executable, "-m", "pipo_cli.main", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=variables,
        start_new_session=True,
    )


def fault(root: Path, log: Path, role: str = "", at: int | None = None, act: str = "kill") -> dict[str, Any]:
    """Return the plan of a fault at step ``at`` of ``role`` below ``root``; without ``at`` steps are only counted."""
    return {"root": str(root), "log": str(log), "role": role, "at": at, "act": act}


def steps_in(log: Path) -> list[Step]:
    """Return the steps that a run's log holds."""
    lines = [line.split(" ", 3) for line in log.read_text().splitlines()] if log.is_file() else []
    return [(words[0], int(words[1]), words[2], words[3]) for words in lines if words[1] != "pid"]


def processes_in(log: Path, role: str | None = None) -> list[int]:
    """Return the ids of the processes (of one role) that a run's log names."""
    lines = [line.split() for line in log.read_text().splitlines()] if log.is_file() else []
    return [int(words[2]) for words in lines if words[1] == "pid" and role in (None, words[0])]


def wait_for_end(pids: list[int], seconds: float = 60) -> None:
    """Wait until none of the processes runs."""
    deadline = time.monotonic() + seconds
    while any(_is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a process that should have ended still runs"
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


# ---------------------------------------------------------------------- what must be there


def _below(name: str, known: Contents) -> Contents:
    return {path: content for path, content in known.items() if path.startswith(f"{name}/")}


def contents(out: Path, name: str = "") -> Contents:
    """Return the files that must be equal with and without a kill, by relative path, without times and paths.

    Of checkpoints it holds the newest and that there is one: a training that stops early makes one there, which may
    stay beside the last. ``name`` leads the paths.
    """
    found: Contents = {}
    older: set[Path] = set()
    for folder in out.glob("*/*/checkpoints"):
        steps = sorted(folder.glob("checkpoint-*[0-9]"), key=lambda path: int(path.name.rpartition("-")[2]))
        found[folder.relative_to(out).as_posix()] = bool(steps)
        older |= {*steps[:-1]}
    for file in sorted(out.rglob("*")):
        path = file.relative_to(out)
        hidden = any(part.startswith(".") for part in path.parts)
        aside = any(".damaged" in part for part in path.parts)
        if file.is_file() and not hidden and not aside and file.name not in _NOTES and not older & {*file.parents}:
            found[(Path(name) / path).as_posix()] = _content(file)
    return found


def leftovers(out: Path) -> list[str]:
    """Return the files that a finished command must not leave."""
    return [str(path) for path in out.rglob("*") if path.name.endswith((".partial", ".aside"))]


def check_killed(out: Path, allowed: list[Contents], steps: list[Step]) -> None:
    """Assert that a killed run left no partial file under a final name, and the checkpoint that it had made.

    ``allowed`` is what there was before and what there is in the end. Files that grow are judged by what the same
    command makes of them.
    """
    for name in ("results.json", "train.jsonl", "report.md", "profile.json"):
        for file in out.rglob(name):
            path = file.relative_to(out).as_posix()
            assert _content(file) in [known.get(path) for known in allowed], path
    folders = {path.rpartition("/")[0] for known in allowed for path in known}
    for name in sorted(name for name in folders if name.endswith(("/model", "/adapter"))):
        found = contents(out / name, name) if (out / name).is_dir() else {}
        assert found in [_below(name, known) for known in allowed], f"{name} is neither the old one nor the new"
    for folder in out.glob("*/*/checkpoints"):
        marked = [step for step in steps[:-1] if step[2] == "rename" and step[3].endswith("/complete.json")]
        if marked:
            made_by = read_json(folder.parent / "job.json")["made_by"]
            assert newest_complete(folder, made_by) is not None, "there is no checkpoint to go on from"


def _content(file: Path) -> Any:
    if file.suffix == ".png" or file.name == "report.md":
        return "there" if file.stat().st_size > 1000 else "too small"
    if file.name == "stage.json":
        record = read_json(file)
        return _plain({key: record[key] for key in ("state", "summary", "outputs", "settings")})
    if file.name in ("profile.json", "steps.json"):  # their seals are of times, too
        return _plain({key: value for key, value in read_json(file).items() if key != "seal"})
    if file.name == "rollout.json":
        return {key: value for key, value in read_record(file).items() if key not in ("begun", "finished")}
    if file.name == "trainer_state.json":
        return _plain(read_json(file)["log_history"])
    if file.name == "adapter_config.json":  # PEFT writes sets, in an order that differs between processes
        return {key: sorted(value) if isinstance(value, list) else value for key, value in read_json(file).items()}
    if file.suffix == ".json":
        return _plain(read_json(file))
    if file.name == "rollouts.jsonl" or (
        file.suffix == ".jsonl" and "answers" in (file.parent.name, file.parents[1].name)
    ):
        rows = (_plain(row) for row in read_jsonl(file))
        return sorted(json.dumps(row, sort_keys=True) for row in rows)  # in whichever order they were completed
    if file.suffix == ".jsonl":
        return _plain(read_jsonl(file))
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key not in (*_TIMES, *_LIBRARY_TIMES)}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


# ---------------------------------------------------------------------- what is there before


def before_merge_again(world: World, out: Path) -> None:
    """A merge that was killed after its model was written and before its record: the model is replaced."""
    shutil.copytree(world.folder / "whole" / "merge", out)
    record = out / "r" / "merge" / "stage.json"
    write_stage_record(record.parent, {**read_json(record), "state": "running"})


def before_rollout_changed(world: World, out: Path) -> None:
    """Rollouts of another seed, and before them of yet another: neither may be lost."""
    shutil.copytree(world.folder / "whole" / "rollout", out)
    for folder, seed in (("rollout", 7), ("rollout.previous", 8)):
        if not (out / "r" / folder).exists():
            shutil.copytree(out / "r" / "rollout", out / "r" / folder)
        record = out / "r" / folder / "stage.json"
        content = read_json(record)
        write_stage_record(record.parent, {**content, "settings": {**content["settings"], "seed": seed}})


def _make_adapter(base: Path, folder: Path) -> Path:
    """Write an adapter with random weights, laid out as by a training, and return the folder of the run."""
    import torch
    from peft import LoraConfig, get_peft_model

    from pipo_core.model import load_checkpoint
    from pipo_core.model.writing import copy_tokenizer
    from pipo_core.recipes.sft import TrainRecipe
    from pipo_core.train.layout import ADAPTER, ADAPTER_RECORD
    from pipo_core.train.trainable import modules_in_full

    settings = TrainRecipe.model_validate({"model": str(base), "data": {"train": "x"}, "max_steps": 1})
    torch.manual_seed(1)
    config = LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], modules_to_save=modules_in_full(settings), init_lora_weights=False
    )
    adapted = get_peft_model(load_checkpoint(base), config)
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(folder / ADAPTER)
    copy_tokenizer(base, folder / ADAPTER)
    write_json(folder / ADAPTER / ADAPTER_RECORD, {"objective": "pipo", "base": "base"})
    return folder
