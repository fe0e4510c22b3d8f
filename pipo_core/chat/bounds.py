"""Limits in memory and time for programs of others: a chat template is one, and comes with a checkpoint."""

import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipo_core.errors import CheckpointError

_MEMORY = 1 << 30
"""Bytes beyond what the process has taken already."""
_SECONDS = 10


@contextmanager
def bounded(what: str) -> Iterator[None]:
    """Run a block of the main thread with little memory and time; elsewhere, and on other systems, without limits.

    Args:
        what: names the block in messages.

    Raises:
        CheckpointError: if the block takes too much of either.
    """
    status = Path("/proc/self/statm")
    if threading.current_thread() is not threading.main_thread() or not status.is_file():
        yield
        return
    taken = int(status.read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = taken + _MEMORY if before[0] == resource.RLIM_INFINITY else min(before[0], taken + _MEMORY)

    def too_long(*_: object) -> None:
        raise TimeoutError

    handler = signal.signal(signal.SIGALRM, too_long)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
        signal.alarm(_SECONDS)
        yield
    except Exception as error:
        reason = next((each for each in (error, error.__cause__) if isinstance(each, MemoryError | TimeoutError)), None)
        if reason is None:
            raise
        reached = f"{_MEMORY >> 30} GiB of memory" if isinstance(reason, MemoryError) else f"{_SECONDS} seconds"
        raise CheckpointError(f"{what} takes more than {reached}") from error
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGALRM, handler)
