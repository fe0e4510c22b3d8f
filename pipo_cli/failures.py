"""The table of failures: from an exception to a message, a next command and an exit code.

0 done, 1 failed while running, 2 usage or recipe, 3 missing input or download, 4 environment,
130 interrupted.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass, field

from pipo_core.errors import Interrupted, PipoError

GO_ON = "the same command goes on"


@dataclass(frozen=True)
class Failure:
    """The message, hint and exit code of an exception; `problems` if it holds several."""

    message: str
    hint: str | None
    exit_code: int
    problems: list[str] = field(default_factory=list)


def _pipo(error: BaseException) -> Failure | None:
    if not isinstance(error, PipoError):
        return None
    # Some errors hold a list of problems. They are recognised by the attribute, so that no module must be imported.
    return Failure(error.message, error.hint, error.exit_code, getattr(error, "problems", []))


def _interrupted(error: BaseException) -> Failure | None:
    if not isinstance(error, KeyboardInterrupt | Interrupted):
        return None
    if not isinstance(error, Interrupted):
        return Failure(f"interrupted; {GO_ON}", None, 130)
    return Failure(f"interrupted; {error.hint or GO_ON} ({error.message})", None, 130)


def _package(error: BaseException) -> Failure | None:
    if not isinstance(error, ModuleNotFoundError):
        return None
    return Failure(
        f"the Python package {error.name!r} is missing",
        "in pipo's checkout: pip install -c constraints.txt -e '.[all]'",
        4,
    )


def _memory(error: BaseException) -> Failure | None:
    # torch's class is recognised by its name, so that torch need not be imported.
    by_torch = type(error).__name__ == "OutOfMemoryError" or (
        # On a CPU torch raises no class of its own.
        isinstance(error, RuntimeError) and "alloc_cpu.cpp" in str(error)
    )
    if isinstance(error, MemoryError) or by_torch:
        return Failure(f"out of memory: {_line(error)}", "a smaller batch (engine.batch or batch.per_device)", 4)
    return None


def _system(error: BaseException) -> Failure | None:
    if not isinstance(error, OSError):
        return None
    if error.errno == errno.ENAMETOOLONG:
        return Failure(f"{str(error.filename)[:60]}…: the name is too long for a file", None, 2)
    about = f"{error.filename}: " if error.filename else ""
    text = about + (error.strerror or _line(error))
    if isinstance(error, FileNotFoundError):
        return Failure(text, None, 3)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Failure(text, "free space there, then give the same command again", 4)
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return Failure(text, "choose another folder with --out", 4)
    return Failure(text, "the same with --debug shows where", 1)


def _unexpected(error: BaseException) -> Failure:
    return Failure(f"{type(error).__name__}: {_line(error)}", "the same with --debug shows where", 1)


TABLE: tuple[Callable[[BaseException], Failure | None], ...] = (
    _interrupted,
    _pipo,
    _package,
    _memory,
    _system,
)


def describe(error: BaseException) -> Failure:
    """Return the failure that the first matching row of the table makes of an exception."""
    for row in TABLE:
        failure = row(error)
        if failure is not None:
            return failure
    return _unexpected(error)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:299] + "…"
