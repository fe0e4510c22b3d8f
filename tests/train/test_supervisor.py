"""How the supervisor explains the end of a training."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from pipo_core.errors import CheckpointError, Interrupted, MachineError, PipoError
from pipo_core.reporting import Reporter
from pipo_core.train import supervisor
from pipo_core.train.sft import run_train
from tests.tiny import recipe
from tests.train.trainings import (
    Listener,
)


def run_script(
    monkeypatch: pytest.MonkeyPatch,
    base_model: Path,
    rows: Path,
    out: Path,
    script: str,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Let a short script stand for the worker: what it writes and how it ends is all the parent sees."""
    monkeypatch.setattr(supervisor, "command", lambda recipe, job: [sys.executable, "-c", script])
    return run_train(recipe(base_model, rows), out, reporter=reporter, made_by="test")


def test_a_killed_worker_is_explained(
    monkeypatch: pytest.MonkeyPatch, base_model: Path, rows: Path, tmp_path: Path
) -> None:
    with pytest.raises(MachineError, match="killed, most likely for lack of memory"):
        run_script(monkeypatch, base_model, rows, tmp_path, "import os; os.kill(os.getpid(), 9)")


def test_a_crash_shows_its_reason_and_the_end_of_the_log(
    monkeypatch: pytest.MonkeyPatch, base_model: Path, rows: Path, tmp_path: Path
) -> None:
    script = "import sys; print('{broken'); print('chatter', file=sys.stderr); sys.exit(3)"
    listener = Listener()
    with pytest.raises(PipoError, match="training failed: exit code 3") as caught:
        run_script(monkeypatch, base_model, rows, tmp_path, script, listener)
    assert "worker.log" in (caught.value.hint or "")
    assert "{broken" in listener.said[-1]
    assert "chatter" in listener.said[-1]


def test_an_error_of_the_worker_is_raised_here(
    monkeypatch: pytest.MonkeyPatch, base_model: Path, rows: Path, tmp_path: Path
) -> None:
    event = json.dumps({"event": "error", "kind": "CheckpointError", "message": "damaged", "hint": "copy it again"})
    with pytest.raises(CheckpointError, match="damaged") as caught:
        run_script(monkeypatch, base_model, rows, tmp_path, f"import sys; print('{event}'); sys.exit(1)")
    assert caught.value.hint == "copy it again"


def test_rows_that_are_too_long_are_reported(
    monkeypatch: pytest.MonkeyPatch, base_model: Path, rows: Path, tmp_path: Path
) -> None:
    script = (
        "import json\n"
        "print(json.dumps({'event': 'begin', 'step': 0, 'steps': 6, 'rows': 40, 'dropped': 3}))\n"
        "print(json.dumps({'event': 'done', 'step': 6, 'rows': 40, 'dropped': 3}))\n"
    )
    listener = Listener()
    summary = run_script(monkeypatch, base_model, rows, tmp_path, script, listener)
    assert summary["dropped_rows"] == 3
    assert any("3 examples are longer than data.max_length" in line for line in listener.said)


def test_ctrl_c_before_training_began_stops_at_once(
    monkeypatch: pytest.MonkeyPatch, base_model: Path, rows: Path, tmp_path: Path
) -> None:
    script = "import signal, time, os; os.kill(os.getppid(), signal.SIGINT); time.sleep(60)"
    with pytest.raises(Interrupted, match="before the next checkpoint"):
        run_script(monkeypatch, base_model, rows, tmp_path, script)
