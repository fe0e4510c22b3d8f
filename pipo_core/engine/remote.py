"""An engine that asks servers: one or several, SGLang's or any with OpenAI's interface."""

import contextlib
import json
import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
from transformers import PreTrainedTokenizerBase

from pipo_core.engine.api import Completion, Delta, Reports, Request
from pipo_core.engine.dialects import Dialect, StrangeAnswerError
from pipo_core.errors import MachineError, UsageError
from pipo_core.text import one_line

_PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that another try may not meet."""
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 20.0


class _PassingError(Exception):
    """A failure that another try may not meet."""


@dataclass
class _Server:
    """One server: how many requests it is answering, and until when it is left alone after a failure."""

    url: str
    running: int = 0
    rests_until: float = 0.0
    failures: int = field(default=0)


class Fleet:
    """Chooses a server for each try: the least busy one of those that work."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._servers = [_Server(url) for url in urls]
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def server(self) -> Iterator[str]:
        """Take a server for one try; a failure that may pass makes it rest, twice as long each time."""
        with self._lock:
            now = time.monotonic()
            chosen = min(self._servers, key=lambda one: (max(one.rests_until - now, 0), one.running))
            chosen.running += 1
        try:
            yield chosen.url
        except _PassingError:
            with self._lock:
                pause = min(_FIRST_PAUSE_S * 2**chosen.failures, _LONGEST_PAUSE_S)
                chosen.rests_until = time.monotonic() + pause
                chosen.failures += 1
            raise
        else:
            chosen.failures = 0
        finally:
            with self._lock:
                chosen.running -= 1


class RemoteEngine:
    """Asks servers for answers, many at once; see `pipo_core.engine.api.Engine`.

    A try that fails on the way (no connection, a server that ends, too many requests) is made again, on another server
    if there is one: an answer changes nothing on a server, so it may be asked for twice.
    """

    def __init__(
        self,
        dialect: Dialect,
        urls: Sequence[str],
        *,
        tokenizer: PreTrainedTokenizerBase | None,
        end_ids: frozenset[int] = frozenset(),
        max_length: int,
        concurrency: int = 64,
        tries: int = 6,
        api_key: str | None = None,
        timeout_s: float = 3600.0,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare to ask; nothing is sent yet.

        Args:
            dialect: what is said to the servers.
            urls: the servers' addresses, without a path.
            tokenizer: the model's; None if it is not here.
            end_ids: that end a text of this model.
            max_length: the most tokens of prompt and budget together.
            concurrency: requests in flight, on all servers together.
            tries: how often a request is sent before it counts as failed.
            api_key: sent with each request.
            timeout_s: the longest silence of a server, in seconds.
            on_close: called when the engine is closed.
        """
        self._dialect = dialect
        self._fleet = Fleet(urls)
        self._tokenizer = tokenizer
        self.end_ids = end_ids
        self.max_length = max_length
        self.reports = Reports()
        self._concurrency = concurrency
        self._tries = tries
        self._on_close = on_close
        self._cancelled: set[str] = set()
        self._client = httpx.Client(
            headers={} if api_key is None else {"Authorization": f"Bearer {api_key}"},
            timeout=httpx.Timeout(timeout_s, connect=10.0),
            limits=httpx.Limits(max_connections=None),
        )

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer.

        Raises:
            UsageError: if it is not here.
        """
        if self._tokenizer is None:
            raise UsageError("the model runs elsewhere, and its tokenizer is not here")
        return self._tokenizer

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield the requests' completions in the order in which they end.

        Raises:
            UsageError: before anything is sent, if the server cannot do what a request asks.
        """
        for delta in self._run(requests, stream=False):
            if delta.completion is not None:
                yield delta.completion

    def stream(self, requests: Iterable[Request]) -> Iterator[Delta]:
        """Yield the requests' deltas; their tokens are not told apart into first ones and drafts.

        Raises:
            UsageError: before anything is sent, if the server cannot do what a request asks.
        """
        return self._run(requests, stream=True)

    def cancel(self, request_id: str) -> None:
        """End a request at once; nothing happens if it has ended or is unknown."""
        self._cancelled.add(request_id)
        said = self._dialect.cancel(request_id)
        if said is not None:
            with contextlib.suppress(httpx.HTTPError), self._fleet.server() as url:
                self._client.post(url + said[0], json=said[1], timeout=10)

    def close(self) -> None:
        """Close the connections, and what was opened for this engine."""
        self._client.close()
        self._on_close()

    def _run(self, requests: Iterable[Request], *, stream: bool) -> Iterator[Delta]:
        asked = list(requests)
        for request in asked:
            self._dialect.ask(request, stream=stream)
        deltas: queue.SimpleQueue[Delta] = queue.SimpleQueue()
        stopped = threading.Event()
        pool = ThreadPoolExecutor(max_workers=max(1, min(self._concurrency, len(asked))))
        try:
            for request in asked:
                pool.submit(self._answer, request, stream, deltas, stopped)
            open_requests = len(asked)
            while open_requests:
                delta = deltas.get()
                open_requests -= delta.completion is not None
                yield delta
        finally:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _answer(
        self, request: Request, stream: bool, deltas: "queue.SimpleQueue[Delta]", stopped: threading.Event
    ) -> None:
        """Put a request's deltas into the queue; the last one has its completion, whatever happens."""
        began = time.perf_counter()
        first = 0.0
        try:
            for number in range(self._tries):
                if stopped.is_set() or request.id in self._cancelled:
                    break
                if number:
                    stopped.wait(_pause(number))
                try:
                    with self._fleet.server() as url:
                        for delta in self._try(url, request, stream=stream):
                            first = first or time.perf_counter() - began
                            if delta.completion is not None:
                                delta.completion.time_s = time.perf_counter() - began
                                delta.completion.ttft_s = delta.completion.ttft_s or first
                            deltas.put(delta)
                    return
                except _PassingError as error:
                    last = str(error)
                    if first:  # another try would write another text than the one that was handed out
                        raise MachineError(f"the answer broke off: {last}") from error
            else:
                raise MachineError(f"no server answered in {self._tries} tries: {last}")
            deltas.put(_ended(request, "cancelled"))
        except Exception as error:  # noqa: BLE001 - it becomes the request's error
            deltas.put(_ended(request, "error", one_line(str(error))))

    def _try(self, url: str, request: Request, *, stream: bool) -> Iterator[Delta]:
        """Yield the deltas of one try.

        Raises:
            _PassingError: if another try may succeed.
            PipoError: if none will.
        """
        path, body = self._dialect.ask(request, stream=stream)
        try:
            if not stream:
                answer = self._checked(self._client.post(url + path, json=body))
                completion = self._dialect.completion(request, answer)
                yield Delta(request.id, completion.text, completion=completion)
                return
            reader = self._dialect.reader(request)
            with self._client.stream("POST", url + path, json=body) as response:
                if not response.is_success:
                    response.read()
                    self._checked(response)
                for event in _events(response.iter_lines()):
                    if request.id in self._cancelled:
                        yield _ended(request, "cancelled")
                        return
                    text = reader.add(event)
                    if text:
                        yield Delta(request.id, text)
            yield Delta(request.id, completion=reader.completion())
        except httpx.HTTPError as error:
            raise _PassingError(f"{url}: {one_line(str(error)) or type(error).__name__}") from error

    @staticmethod
    def _checked(response: httpx.Response) -> Mapping[str, Any]:
        """Return the object that a response holds.

        Raises:
            _PassingError: for a status that another try may not meet.
            UsageError: for one that it will.
            StrangeAnswerError: if it holds no object.
        """
        said = one_line(response.text[:300])
        if response.status_code in _PASSING:
            raise _PassingError(f"{response.url}: status {response.status_code}: {said}")
        if not response.is_success:
            raise UsageError(f"{response.url} answers with status {response.status_code}: {said}")
        try:
            content = response.json()
        except ValueError as error:
            raise StrangeAnswerError(f"{response.url} does not answer with JSON: {said}") from error
        if not isinstance(content, dict):
            raise StrangeAnswerError(f"{response.url} does not answer with a JSON object: {said}")
        return content


def _pause(failures: int) -> float:
    """Return how long to wait after so many failures, in seconds; not all that wait come back at once."""
    return random.uniform(0.5, 1.5) * min(_FIRST_PAUSE_S * 2.0**failures, _LONGEST_PAUSE_S)  # noqa: S311


def _ended(request: Request, reason: Any, error: str | None = None) -> Delta:
    return Delta(request.id, completion=Completion(request.id, finish_reason=reason, error=error))


def _events(lines: Iterator[str]) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a stream of server-sent events, up to its end.

    Raises:
        _PassingError: if the server reports an error in the stream.
        StrangeAnswerError: for an event that is no JSON object.
    """
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        try:
            event = json.loads(data)
        except ValueError as error:
            raise StrangeAnswerError(f"an event is not JSON: {one_line(data[:200])}") from error
        if not isinstance(event, dict):
            raise StrangeAnswerError(f"an event is not a JSON object: {one_line(data[:200])}")
        if "error" in event:
            raise _PassingError(one_line(str(event["error"]))[:300])
        yield event
