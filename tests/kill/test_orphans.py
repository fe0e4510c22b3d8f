"""A training whose parent is gone: it hears of it, and nobody else comes near its folder until it has ended."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pipo_core.errors import UsageError
from pipo_core.files import FolderLock, workers_lock_of
from pipo_core.pipeline import stage
from pipo_core.pipeline.stage import run_stage
from pipo_core.recipes.build import BuildRecipe
from pipo_core.reporting import SilentReporter
from pipo_core.train.worker.stop import StoppedEarly, StopRequest


def test_while_it_trains_it_is_asked_to_stop(tmp_path: Path) -> None:
    stop = StopRequest(tmp_path / "stop")
    theirs, ours = os.pipe()
    stop.end_with(theirs)
    stop.training_begins()
    time.sleep(0.1)
    assert not stop.requested()
    os.close(ours)
    deadline = time.monotonic() + 30
    while not stop.requested():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_before_it_trains_it_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stop = StopRequest(tmp_path / "stop")
    stop.listen()
    theirs, ours = os.pipe()
    try:
        with pytest.raises(StoppedEarly):
            stop.end_with(theirs)
            os.close(ours)
            time.sleep(30)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Listener(SilentReporter):
    def __init__(self) -> None:
        self.said: list[str] = []

    def info(self, msg: str) -> None:
        self.said.append(msg)


def test_the_next_start_waits_for_what_a_killed_one_left_behind(tmp_path: Path) -> None:
    rows = tmp_path / "rollouts.jsonl"
    rows.write_text("")
    folder = tmp_path / "r" / "build"
    ended: list[float] = []

    def job(recipe: Any, out: Path, reporter: object, made_by: str) -> dict[str, Any]:
        assert ended, "nothing starts before it has ended"
        return {}

    lock = FolderLock(workers_lock_of(folder))
    lock.__enter__()

    def end() -> None:
        ended.append(time.monotonic())
        lock.__exit__(None, None, None)

    timer = threading.Timer(0.5, end)
    timer.start()
    listener = Listener()
    run_stage(BuildRecipe(run="r", rollouts=[str(rows)]), tmp_path, reporter=listener, jobs={"build": job})
    timer.join()
    assert "waits for a process that a killed run left behind" in listener.said[0]


def test_one_that_does_not_end_is_not_run_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_WORKERS_PATIENCE_SECONDS", 0.2)
    rows = tmp_path / "rollouts.jsonl"
    rows.write_text("")
    folder = tmp_path / "r" / "build"
    with (
        FolderLock(workers_lock_of(folder)),
        pytest.raises(UsageError, match=f"another pipo process works in {folder}$"),
    ):
        run_stage(BuildRecipe(run="r", rollouts=[str(rows)]), tmp_path, reporter=SilentReporter(), jobs={})
    assert not folder.exists()
