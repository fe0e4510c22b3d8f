import errno
import fcntl
import multiprocessing
import multiprocessing.synchronize
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from pipo_core.errors import MachineError, UsageError
from pipo_core.files import FolderLock

SPAWN = multiprocessing.get_context("spawn")


def _hold(folder: Path, held: multiprocessing.synchronize.Event) -> None:
    with FolderLock(folder):
        held.set()
        time.sleep(60)


def test_folder_lock_keeps_others_out_until_the_holder_dies(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    held = SPAWN.Event()
    holder = SPAWN.Process(target=_hold, args=(folder, held))
    holder.start()
    assert held.wait(30)
    with pytest.raises(UsageError, match="another pipo process works in"), FolderLock(folder):
        pass
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with FolderLock(folder), pytest.raises(UsageError), FolderLock(folder):
        pass
    with FolderLock(folder):
        pass


def test_a_lock_can_be_waited_for(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    lock.__enter__()
    timer = threading.Timer(0.3, lock.__exit__, (None, None, None))
    timer.start()
    with FolderLock(tmp_path, patience=30):
        timer.join()
        with (
            pytest.raises(UsageError, match=r"works in the run$"),
            FolderLock(tmp_path, patience=0.1, about=Path("the run")),
        ):
            pass


def test_a_file_system_without_locks_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(handle: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(MachineError, match=r"run cannot be locked: Function not implemented$") as caught:
        FolderLock(tmp_path / "run").__enter__()
    assert "another file system" in str(caught.value.hint)
