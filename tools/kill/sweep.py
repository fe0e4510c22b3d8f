"""Every step of every command as a place to be killed at.

`python -m tools.kill.sweep [TRY …]`, where a try is `ACT/EVERY/COMMAND`: at every EVERY-th step of a command all of its
processes are killed (`kill`), or only the one that takes the step (`alone`), or Ctrl-C is pressed (`interrupt`). Then
the same command is given again; what it leaves must equal what it leaves when nothing happens. Without tries, all is
killed at every step of all commands, which takes half an hour. Prints a JSON table.

The processes are forked from one that has imported everything, for imports would take most of the time; a training's
worker is, too. They are otherwise what `pipo` is. With `real-kill` and so on those that meet their end are real ones.
"""

import importlib
import importlib.util
import json
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pipo_cli
import pipo_core
from pipo_core.errors import PipoError
from tools.kill.world import (
    FAULTS,
    Contents,
    Step,
    World,
    before_merge_again,
    before_rollout_changed,
    check_killed,
    contents,
    fault,
    leftovers,
    pipo,
    processes_in,
    steps_in,
    wait_for_end,
)

Before = Callable[[World, Path], None] | None
COMMANDS: dict[str, tuple[str, Before]] = {
    "build": ("build", None),
    "merge": ("merge", None),
    "merge, over an earlier model": ("merge", before_merge_again),
    "rollout": ("rollout", None),
    "rollout, beside changed ones": ("rollout", before_rollout_changed),
    "eval": ("eval", None),
    "calibrate": ("calibrate", None),
    "run": ("run", None),
    "train": ("train", None),
    "distill": ("distill", None),
    "run with a training": ("run_train", None),
}
_VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "LOG_LEVEL": "ERROR",
    "CUDA_VISIBLE_DEVICES": "",
}


class ForkedWorker:
    """Stands in for the `Popen` of a training's worker; other commands it starts as they are."""

    armed: Any = None
    popen = subprocess.Popen

    def __new__(cls, words: list[str], **options: Any) -> Any:
        if "pipo_core.train.worker" not in words:
            return cls.popen(words, **options)
        return super().__new__(cls)

    def __init__(self, words: list[str], *, stderr: Any, **options: Any) -> None:
        (their_in, our_in), (our_out, their_out) = os.pipe(), os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            os.setsid()
            os.close(our_in)
            for ours, theirs in ((0, their_in), (1, their_out), (2, stderr.fileno())):
                os.dup2(theirs, ours)
            # Starting a program closes these; among them is the lock of the one that starts it.
            os.closerange(3, self.armed.log)
            os.closerange(self.armed.log + 1, 1 << 16)
            self.armed.become("worker")
            os._exit(_call(lambda: _train(Path(words[-1]))))
        os.close(their_in)
        os.close(their_out)
        self.stdin, self.stdout = os.fdopen(our_in, "w"), os.fdopen(our_out)

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the end and return the exit code."""
        if self.returncode is None:
            _, status = os.waitpid(self.pid, os.WNOHANG if timeout == 0 else 0)
            if _:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def terminate(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        os.kill(self.pid, signal.SIGKILL)


def _train(job: Path) -> int:
    from pipo_core.train.worker.process import main

    sys.stdin = os.fdopen(0)
    return main(job)


def _call(function: Callable[[], Any]) -> int:
    try:
        return int(function() or 0)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except BaseException:  # noqa: BLE001 - the caller gets a code, whatever it was
        traceback.print_exc()
        return 99


def forked(words: list[str], plan: dict[str, Any], said: Path) -> int:
    """Run `pipo` in a fork of this process and return its exit code."""
    pid = os.fork()
    if not pid:
        os.setsid()
        output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        for ours in (1, 2):
            os.dup2(output, ours)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        ForkedWorker.armed = _faults().arm(plan, "pipo")
        subprocess.Popen = ForkedWorker  # type: ignore[misc, assignment]
        sys.argv = ["pipo", *words]
        from pipo_cli.main import main

        os._exit(_call(main))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _faults() -> Any:
    spec = importlib.util.spec_from_file_location("faults", FAULTS / "sitecustomize.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prepare(world: World, title: str) -> None:
    """Make what the state before a command is made of, if it needs one."""
    name, before = COMMANDS[title]
    done = world.folder / "whole" / name
    if before is not None and not done.exists():
        forked(world.words(name, done), fault(done, Path(os.devnull)), Path(os.devnull))


class Trial:
    """One command: what it makes when nothing happens, and what it comes to when something does."""

    def __init__(self, world: World, title: str) -> None:
        """Run the command once without a fault."""
        self._world, self._title = world, title
        self._name, self._before = COMMANDS[title]
        self._place = world.folder / "tries" / title.replace(" ", "-")
        self._place.mkdir(parents=True)
        prepare(world, title)
        self._allowed: list[Contents] = [contents(self._fresh())]
        code, steps, said = self._attempt("", None, "")
        assert code == 0, said
        self._whole = contents(self._place / "out")
        self._allowed.append(self._whole)
        self._steps = steps

    def sweep(self, act: str, every: int) -> dict[str, Any]:
        """Act at every ``every``-th step and return how often it came to the same end after all."""
        began = time.monotonic()
        tried = self._steps[every // 2 :: every]
        met, failures = 0, []
        for role, at, step, path in tried:
            self._fresh()
            try:
                met += self._try(role, at, act)
            except (AssertionError, PipoError) as error:
                failures.append({"role": role, "step": at, "at": f"{step} {path}", "found": str(error)[-1500:]})
                say(json.dumps(failures[-1]))
            wait_for_end([pid for file in self._place.glob("*.log") for pid in processes_in(file)])
        roles = {role: sum(step[0] == role for step in self._steps) for role in ("pipo", "worker")}
        return {
            "command": self._title,
            "act": act,
            **{f"steps of {role}": count for role, count in roles.items() if count},
            "tried": len(tried),
            "met": met,
            "survived": len(tried) - len(failures),
            "failures": failures,
            "minutes": round((time.monotonic() - began) / 60, 1),
        }

    def _try(self, role: str, at: int, act: str) -> bool:
        """Return whether the fault was met; raise AssertionError or PipoError unless all is well in the end."""
        code, steps, said = self._attempt(role, at, act)
        kind = act.removeprefix("real-")
        expected = {"kill": -9, "alone": -9 if role == "pipo" else 4, "interrupt": 130}[kind]
        assert code in (expected, 0), f"exit code {code}: {said}"
        if kind == "interrupt":
            assert code == 0 or "interrupted; the same command goes on" in said, said
        if kind != "alone":  # what is left behind must then end by itself, and the next start wait for it
            wait_for_end([pid for file in self._place.glob("*.log") for pid in processes_in(file)])
            check_killed(self._place / "out", self._allowed, steps)
        again, _, said = self._attempt("again", None, "")
        assert again == 0, said
        out = self._place / "out"
        assert not leftovers(out), leftovers(out)
        found = contents(out)
        assert found == self._whole, _difference(found, self._whole)
        return code == expected

    def _attempt(self, role: str, at: int | None, act: str) -> tuple[int, list[Step], str]:
        """Run the command, with a fault at step ``at`` of ``role``: its exit code, steps and output."""
        out, log, said = (self._place / name for name in ("out", f"{role}.log", "said.txt"))
        log.unlink(missing_ok=True)
        words, plan = self._world.words(self._name, out), fault(out, log, role, at, act.removeprefix("real-"))
        if act.startswith("real-"):
            done = pipo(words, plan)
            return done.code, done.steps, done.out + done.err
        code = forked(words, plan, said)
        return code, steps_in(log), said.read_text()

    def _fresh(self) -> Path:
        out = self._place / "out"
        shutil.rmtree(out, ignore_errors=True)
        if self._before is not None:
            self._before(self._world, out)
        return out


def _difference(found: Contents, whole: Contents) -> str:
    lines = [
        f"{path}: {str(found.get(path, 'absent'))[:300]} instead of {str(whole.get(path, 'absent'))[:300]}"
        for path in sorted(found.keys() | whole.keys())
        if found.get(path) != whole.get(path)
    ]
    return "\n".join(lines)


def import_everything() -> None:
    """Import what any command may, so that forks need not."""
    os.environ.update(_VARIABLES)
    import swift  # noqa: F401 - what takes longest

    for package in (pipo_core, pipo_cli):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            plugin = module.name.startswith("pipo_core.sglang.")  # is imported by SGLang's processes only
            if not module.name.endswith("__main__") and not plugin:
                importlib.import_module(module.name)


def say(line: str) -> None:
    """Write a line where the table does not go."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def main() -> None:
    """Do the tries and print the table."""
    words = sys.argv[1:] or [f"kill/1/{title}" for title in COMMANDS]
    tries = [(act, int(every), title) for act, every, title in (word.split("/", 2) for word in words)]
    import_everything()
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        table = []
        trials: dict[str, Trial] = {}
        for act, every, title in tries:
            if title not in trials:
                trials[title] = Trial(world, title)
            table.append(trials[title].sweep(act, every))
            say(json.dumps({**table[-1], "failures": len(table[-1]["failures"])}))
        sys.stdout.write(json.dumps(table, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
