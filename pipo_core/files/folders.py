"""Folders that are replaced in one step, and the removal of what killed writers left."""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipo_core.files.atomic import PARTIAL, fsync, partial_beside
from pipo_core.files.disk_space import writing
from pipo_core.files.locks import try_lock

_ASIDE = ".aside"


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `final` that replaces `final` if the block succeeds.

    After a kill at any moment, `final` is the old folder or the new one. After an error in the block the temporary
    folder is removed. A temporary folder of a killed process is removed by the next call for the same `final`: it is
    recognised because a living writer holds a lock on its folder.

    Args:
        final: the name for the folder; its parent is created.

    Raises:
        MachineError: if the disk is full.
    """
    with writing(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        _clean_up_after_killed(final)
        temporary = partial_beside(final)
        temporary.mkdir()
        handle = os.open(temporary, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield temporary
            usual_modes(temporary)
            fsync_tree(temporary)
            _replace(final, temporary)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        finally:
            os.close(handle)


def usual_modes(folder: Path) -> None:
    """Give the files below a folder the rights that new files have: safetensors makes them for the owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            mode = file.stat().st_mode & 0o777
            wanted = mode | (0o666 & ~mask)
            if wanted != mode:
                file.chmod(wanted)


def fsync_tree(folder: Path) -> None:
    """Flush a folder with all its files and subfolders to the disk."""
    for inner, _, names in os.walk(folder, topdown=False):
        for name in names:
            fsync(Path(inner, name))
        fsync(Path(inner))


def link_that_leaves(folder: Path) -> Path | None:
    """Return a link below a folder that leads out of it; None if there is none.

    In a Hugging Face cache the files of a snapshot are links to the repository's contents: those stay inside.
    """
    whole = folder.resolve()
    # Only a repository's own folder is widened: any other one called `snapshots` may lie in somebody's home.
    repository = next((parent.parent for parent in (whole, *whole.parents) if parent.name == "snapshots"), None)
    if repository is not None and repository.name.startswith(("models--", "datasets--")):
        whole = repository
    links = (path for path in sorted(folder.rglob("*")) if path.is_symlink())
    return next((path for path in links if not path.resolve().is_relative_to(whole)), None)


def remove_partial(folder: Path, *, deep: bool = True) -> None:
    """Remove the temporary files and folders that killed writers left in a folder.

    No other process may be writing there.

    Args:
        folder: where to look.
        deep: whether to look in its subfolders, too.
    """
    # All names are collected first: a walk fails at a folder that is removed during the walk.
    for path in [*(folder.rglob if deep else folder.glob)(f".*{PARTIAL}")]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove an existing folder; it is renamed first, so that its name never belongs to a part of it."""
    _clean_up_after_killed(folder)
    doomed = partial_beside(folder)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _replace(final: Path, temporary: Path) -> None:
    """Rename the folder `temporary` to `final`, and remove the folder that had this name."""
    aside = _aside(final)
    if not final.exists():
        temporary.rename(final)
    elif not _exchange(temporary, final):
        # A folder that is not empty cannot be replaced by a rename. If the process is killed between these two lines,
        # there is no `final`, and the next call puts the old folder back.
        final.rename(aside)
        temporary.rename(final)
    fsync(final.parent)
    for old in (aside, temporary):
        shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap the names of two paths in a single step; return False if the system cannot do that.

    Raises:
        OSError: if the swap fails for any other reason.
    """
    import ctypes  # imported here, because most commands do not need it

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    at_fdcwd, rename_exchange = -100, 2  # from Linux's headers
    if renameat2(at_fdcwd, os.fsencode(one), at_fdcwd, os.fsencode(other), rename_exchange) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))


def _aside(final: Path) -> Path:
    return final.with_name(f".{final.name}{_ASIDE}")


def _clean_up_after_killed(final: Path) -> None:
    """Put back or remove the old folder that was set aside, and remove the temporary folders of killed writers."""
    aside = _aside(final)
    if aside.exists() and final.exists():
        shutil.rmtree(aside, ignore_errors=True)
    elif aside.exists():
        aside.rename(final)
    for folder in final.parent.glob(f".{_glob_literal(final.name)}.*{PARTIAL}"):
        if not folder.is_dir():
            continue
        handle = os.open(folder, os.O_RDONLY)
        try:
            if try_lock(handle):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)


def _glob_literal(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)
