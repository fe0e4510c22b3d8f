import errno
from pathlib import Path

import pytest

from pipo_core.errors import MachineError
from pipo_core.files import full_disk, writing


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk quota is used up"),
        (ValueError("Error while serializing: I/O error: No space left on device (os error 28)"), "the disk is full"),
        (RuntimeError("[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed"), "the disk is full"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 59328 vs 59216"), "the disk is full"),
        (OSError(errno.EIO, "Input/output error"), None),
        (RuntimeError("something else"), None),
    ],
)
def test_a_full_disk_is_known_by_number_and_by_words(tmp_path: Path, error: Exception, full: str | None) -> None:
    if full is None:
        assert full_disk(error, tmp_path) is None
        with pytest.raises(type(error)), writing(tmp_path):
            raise error
        return
    with pytest.raises(MachineError, match=f"weights could not be written: {full}") as caught, writing(Path("weights")):
        raise error
    assert caught.value.exit_code == 4
