"""Transfers from the hub to the cache: several files at once, and resumed where an earlier call stopped.

huggingface_hub discards a partial file when it is interrupted. Here the bytes stay in `blobs/CHECKSUM.incomplete`, and
the next call asks for the rest. A content gets its final name only when its checksum is right. `cache.link_files` then
links it into a snapshot.
"""

import os
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from pipo_core.errors import MissingInputError
from pipo_core.hub.cache import Store, repo_type
from pipo_core.hub.checksums import matches
from pipo_core.hub.listing import RemoteFile
from pipo_core.hub.replies import TRANSIENT, opened
from pipo_core.recipes.catalog import Named
from pipo_core.reporting import Progress

AT_ONCE = 4
"""Files transferred at once: one connection seldom fills a fast line."""
TRIES = 4
"""Attempts in a row that may bring no bytes; an attempt that brings some resets the count."""
_LOOK_SECONDS = 0.2
_SLOW_SECONDS = 60.0
_SLOW_BYTES = 60 << 10
"""An attempt that brings less than this in `_SLOW_SECONDS` counts as one that brings nothing."""


class _StoppedError(Exception):
    """Raised in a transfer's thread when the call that started it is ending."""


class _SlowError(Exception):
    """Raised in an attempt that brings next to nothing."""


def bytes_there(store: Store, file: RemoteFile) -> int:
    """Return how many bytes of the file an earlier transfer left."""
    partial = store.partial(file.digest)
    size = partial.stat().st_size if partial.is_file() else 0
    return size if size <= file.size else 0  # longer than the file: not its beginning


def transfer(named: Named, commit: str, files: Iterable[RemoteFile], store: Store, bar: Progress) -> None:
    """Fetch the files into the store's blobs.

    Received bytes are kept, whatever ends the transfer: Ctrl-C, an error, or the end of the process.

    Args:
        named: the repository.
        commit: the commit to fetch.
        files: the files to fetch.
        store: the repository's folder in the cache.
        bar: counts bytes; starts with those of earlier transfers.

    Raises:
        MissingInputError: if a file arrives damaged; it is removed.
        httpx.HTTPError: if the hub cannot be reached any more.
        OSError: if the disk is full.
    """
    work = _Work(named, commit, store)
    # The largest file first: it takes the longest.
    ordered = sorted(files, key=lambda file: file.size, reverse=True)
    there = {file: bytes_there(store, file) for file in ordered}
    work.count(sum(there.values()))
    bar.update(work.done)
    pool = ThreadPoolExecutor(AT_ONCE)
    running = {pool.submit(work.fetch, file, there[file]) for file in ordered}
    try:
        while running:
            ended, running = wait(running, timeout=_LOOK_SECONDS, return_when=FIRST_EXCEPTION)
            bar.update(work.done)
            for future in ended:
                future.result()
    finally:
        # Threads are not waited for: one that is blocked by the network stops when its connection times out.
        work.stop.set()
        pool.shutdown(wait=False, cancel_futures=True)


class _Work:
    """State that the transfers of one repository share."""

    def __init__(self, named: Named, commit: str, store: Store) -> None:
        self.stop = threading.Event()
        self.done = 0
        self._guard = threading.Lock()
        self._named, self._commit, self._store = named, commit, store

    def count(self, bytes_more: int) -> None:
        with self._guard:
            self.done += bytes_more

    def fetch(self, file: RemoteFile, counted: int) -> None:
        """Fetch a file into its blob, resuming its partial file; `counted` of its bytes are counted already."""
        partial, blob = self._store.partial(file.digest), self._store.blob(file.digest)
        with _alone(self._store.lock(file.digest), self.stop):
            if blob.is_file():  # another process has fetched it
                self.count(file.size - counted)
                return
            blob.parent.mkdir(parents=True, exist_ok=True)
            if bytes_there(self._store, file) == 0:
                partial.unlink(missing_ok=True)
            with partial.open("ab") as content:
                self._receive_all(file, content)
                content.flush()
                os.fsync(content.fileno())
            if not matches(partial, file.digest):
                partial.unlink()
                raise MissingInputError(
                    f"{self._named.text}: {file.path} arrived damaged: its checksum is not the hub's; it was removed",
                    hint=self._named.download_command,
                )
            partial.replace(blob)

    def _receive_all(self, file: RemoteFile, content: BinaryIO) -> None:
        """Request the rest of the file until it is complete; give up after `TRIES` attempts without a byte."""
        from httpx import TransportError
        from huggingface_hub.errors import HfHubHTTPError

        vain = 0
        while (before := content.tell()) < file.size:
            lost: Exception | None = None
            slow = False
            try:
                self._receive(file, content)
            except TransportError as error:
                lost = error
            except _SlowError:
                slow = True
            except HfHubHTTPError as error:
                if error.response.status_code not in TRANSIENT:
                    raise
                lost = error
            content.flush()
            if content.tell() >= file.size:
                return
            vain = 0 if content.tell() > before and not slow else vain + 1
            if vain == TRIES:
                what = "next to nothing of it a minute" if slow else "less of it than it lists"
                ended = MissingInputError(
                    f"{self._named.text}: the hub sends {file.path} too slowly or not whole: {what}",
                    hint=f"{self._named.download_command} goes on where it stopped",
                )
                raise lost or ended
            if self.stop.wait(min(2.0**vain, 8.0)):
                raise _StoppedError

    def _receive(self, file: RemoteFile, content: BinaryIO) -> None:
        """Receive the rest of the file over one connection, or as much of it as arrives."""
        from huggingface_hub import hf_hub_url

        entry, have = self._named.entry, content.tell()
        address = hf_hub_url(entry.repo, file.path, repo_type=repo_type(entry), revision=self._commit)
        with opened(address, {"Range": f"bytes={have}-"} if have else None) as response:
            if have and response.status_code != 206:
                content.truncate(0)  # the server does not support ranges and sends the whole file
                content.seek(0)
                self.count(-have)
            looked, seen = time.monotonic(), content.tell()
            for step in response.iter_bytes():
                if self.stop.is_set():
                    raise _StoppedError
                self.count(content.write(step[: file.size - content.tell()]))
                if content.tell() == file.size:
                    return
                if time.monotonic() - looked > _SLOW_SECONDS:
                    if content.tell() - seen < _SLOW_BYTES:
                        raise _SlowError
                    looked, seen = time.monotonic(), content.tell()


@contextmanager
def _alone(lock: Path, stop: threading.Event) -> Iterator[None]:
    """Hold the lock, waiting while another process holds it."""
    from filelock import Timeout
    from huggingface_hub.utils import WeakFileLock

    lock.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(WeakFileLock(lock, timeout=1.0))
            except Timeout:
                if stop.is_set():
                    raise _StoppedError from None
            else:
                break
        yield
