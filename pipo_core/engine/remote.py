"""An engine that asks servers: one or several, SGLang's or any with OpenAI's interface.

All requests run as tasks of one event loop in a thread of its own. Ending a task closes its connection, by which the
server knows that nobody waits for the answer any more.
"""

import asyncio
import contextlib
import json
import logging
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
from transformers import PreTrainedTokenizerBase

from pipo_core.engine.api import Completion, Delta, FinishReason, Reports, Request
from pipo_core.engine.dialects import Dialect
from pipo_core.engine.fleet import Fleet, PassingError
from pipo_core.engine.server_scores import StrangeAnswerError
from pipo_core.errors import MachineError, UsageError
from pipo_core.text import one_line

_LOG = logging.getLogger(__name__)
_PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that another try may not meet."""
_OF_THE_REQUEST = (400, 413, 422)
"""Statuses that say what is wrong with the request."""
_CLOSING_S = 5.0
"""How long streams that were left half-read may take to close."""
_MOST_REFUSALS = 8
"""Passing statuses that one request may meet, while others are answered, before it counts as failed."""


class RefusedRequestError(UsageError):
    """A server refuses this very request, which others may not meet: it is too long, say."""


class RemoteEngine:
    """Asks servers for answers, many at once; see `pipo_core.engine.api.Engine`.

    A try that fails on the way (no connection, a server that ends, too many requests) is made again, on another server
    if there is one: an answer changes nothing on a server, so it may be asked for twice. `Request.once` forbids it.

    Attributes:
        dialect: what is said to the servers.
        urls: the servers' addresses.
        failure: returns why no server will ever answer again; None while they may.
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
        patience_s: float = 600.0,
        api_key: str | None = None,
        timeout_s: float = 3600.0,
        on_close: Callable[[], None] = lambda: None,
        failure: Callable[[], MachineError | None] = lambda: None,
    ) -> None:
        """Prepare to ask; nothing is sent yet.

        Args:
            dialect: what is said to the servers.
            urls: the servers' addresses, without a path.
            tokenizer: the model's; None if it is not here.
            end_ids: that end a text of this model.
            max_length: the most tokens of prompt and budget together.
            concurrency: requests in flight, on all servers together.
            patience_s: how long no server may answer before the requests count as failed, in seconds.
            api_key: sent with each request.
            timeout_s: the longest silence of a server, in seconds.
            on_close: called when the engine is closed.
            failure: returns why no server will ever answer again; None while they may.
        """
        self.urls = tuple(urls)
        self.failure = failure
        self.dialect = dialect
        self._fleet = Fleet(urls, patience_s, failure)
        self._tokenizer = tokenizer
        self.end_ids = end_ids
        self.max_length = max_length
        self.reports = Reports()
        self._concurrency = concurrency
        self._on_close = on_close
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._timeout = httpx.Timeout(timeout_s, connect=10.0)
        self._through_proxy = uses_proxy(urls)
        # Made once: it takes longer than a short answer.
        self._certificates = httpx.create_ssl_context(trust_env=self._through_proxy)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}

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
        with contextlib.closing(self._run(requests, stream=False)) as deltas:
            for delta in deltas:
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
        loop, task = self._loop, self._tasks.get(request_id)
        if loop is not None and task is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just ended, and the request with it
                loop.call_soon_threadsafe(task.cancel)

    def client(self) -> httpx.Client:
        """Return a client that speaks to the servers as requests do, for what is no request."""
        return httpx.Client(headers=self._headers, timeout=self._timeout, trust_env=self._through_proxy)

    def refusal(self, request: Request) -> str | None:  # noqa: ARG002 - the protocol's
        """Return None: how much a server takes is known when it has been asked."""
        return None

    def close(self) -> None:
        """End what was opened for this engine."""
        self._on_close()

    def _run(self, requests: Iterable[Request], *, stream: bool) -> Generator[Delta]:
        asked = list(requests)
        for request in asked:
            self.dialect.ask(request, stream=stream)
        deltas: queue.SimpleQueue[Delta] = queue.SimpleQueue()
        loop = self._loop = asyncio.new_event_loop()
        everything = loop.create_task(self._answer_all(asked, stream, deltas))
        # A daemon: the end of the process ends the connections, and with them the requests.
        thread = threading.Thread(target=_run_loop, args=(loop, everything), daemon=True)
        thread.start()
        try:
            open_requests = len(asked)
            while open_requests:
                delta = deltas.get()
                open_requests -= delta.completion is not None
                yield delta
        finally:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(everything.cancel)
            thread.join(10)

    async def _answer_all(self, requests: Sequence[Request], stream: bool, deltas: "queue.SimpleQueue[Delta]") -> None:
        self._fleet.start()
        limit = asyncio.Semaphore(self._concurrency)
        connections = httpx.Limits(max_connections=None, max_keepalive_connections=self._concurrency)
        async with httpx.AsyncClient(
            headers=self._headers,
            timeout=self._timeout,
            limits=connections,
            trust_env=self._through_proxy,
            verify=self._certificates,
        ) as client:
            answers = (self._answer(client, request, stream, deltas, limit) for request in requests)
            self._tasks = {
                request.id: asyncio.create_task(answer) for request, answer in zip(requests, answers, strict=True)
            }
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _answer(
        self,
        client: httpx.AsyncClient,
        request: Request,
        stream: bool,
        deltas: "queue.SimpleQueue[Delta]",
        limit: asyncio.Semaphore,
    ) -> None:
        """Put a request's deltas into the queue; the last one has its completion, whatever happens."""
        try:
            async with limit:
                await self._try_until_answered(client, request, stream, deltas)
        except asyncio.CancelledError:
            deltas.put(_ended(request, "cancelled"))
        except Exception as error:  # noqa: BLE001 - it becomes the request's error
            # Only what is said of the request itself is the request's: a wrong key or a page of HTML is the server's.
            lost = not isinstance(error, RefusedRequestError)
            deltas.put(_ended(request, "error", one_line(str(error)) or type(error).__name__, lost=lost))

    async def _try_until_answered(
        self, client: httpx.AsyncClient, request: Request, stream: bool, deltas: "queue.SimpleQueue[Delta]"
    ) -> None:
        began, first, refusals, last = time.perf_counter(), 0.0, 0, ""
        while True:
            try:
                async with self._fleet.server() as url:
                    async for delta in self._try(client, url, request, stream=stream):
                        elapsed = time.perf_counter() - began
                        first = first or elapsed
                        if delta.completion is not None:
                            delta.completion.time_s = elapsed
                            # What arrived is the measure; of a whole answer only the server knows its beginning.
                            if stream or not delta.completion.ttft_s:
                                delta.completion.ttft_s = first
                        deltas.put(delta)
                return
            except PassingError as error:
                last = str(error)
                if first:  # another try would write another text than the one that was handed out
                    raise MachineError(f"the answer broke off: {last}") from error
                refusals += error.refused
                if refusals == _MOST_REFUSALS:
                    raise MachineError(f"no answer in {refusals} tries: {last}") from error
            except MachineError as error:
                if first:
                    raise MachineError(f"the answer broke off: {error.message}") from error
                raise MachineError(f"{error.message}: {last}" if last else error.message) from error

    async def _try(
        self, client: httpx.AsyncClient, url: str, request: Request, *, stream: bool
    ) -> AsyncIterator[Delta]:
        """Yield the deltas of one try.

        Raises:
            PassingError: if another try may succeed, and the request allows it.
            PipoError: if there is to be none.
        """
        try:
            async for delta in self._asked(client, url, request, stream=stream):
                yield delta
        except PassingError as error:
            if request.once:
                raise MachineError(str(error)) from error
            raise

    async def _asked(
        self, client: httpx.AsyncClient, url: str, request: Request, *, stream: bool
    ) -> AsyncIterator[Delta]:
        path, body = self.dialect.ask(request, stream=stream)
        try:
            if not stream:
                answer = _checked(await client.post(url + path, json=body))
                completion = self.dialect.completion(request, answer)
                yield Delta(request.id, completion.text, completion=completion)
                return
            reader = self.dialect.reader(request)
            async with client.stream("POST", url + path, json=body) as response:
                if not response.is_success:
                    await response.aread()
                    _checked(response)
                async for event in _events(response.aiter_lines()):
                    text = reader.add(event)
                    if text is not None:
                        yield Delta(request.id, text)
            yield Delta(request.id, completion=reader.completion())
        except httpx.HTTPError as error:
            raise PassingError(f"{url}: {one_line(str(error)) or type(error).__name__}") from error


def uses_proxy(urls: Sequence[str]) -> bool:
    """Return whether the environment's proxies are meant for servers: not for those of this machine."""
    return not all((urlsplit(url).hostname or "") in ("localhost", "127.0.0.1", "::1") for url in urls)


def _run_loop(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]") -> None:
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(task)
    # A stream that was left half-read is closed by tasks of its own.
    rest = asyncio.all_tasks(loop)
    if rest:
        loop.run_until_complete(asyncio.wait(rest, timeout=_CLOSING_S))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def _checked(response: httpx.Response) -> Mapping[str, Any]:
    """Return the object that a response holds.

    Raises:
        PassingError: for a status that another try may not meet.
        RefusedRequestError: for one that says what is wrong with the request.
        UsageError: for another one, such as of a wrong key.
        StrangeAnswerError: if it holds no object.
    """
    said = one_line(response.text[:300])
    if response.status_code in _PASSING:
        raise PassingError(f"{response.url}: status {response.status_code}: {said}", refused=True)
    if not response.is_success:
        error = RefusedRequestError if response.status_code in _OF_THE_REQUEST else UsageError
        raise error(f"{response.url} answers with status {response.status_code}: {said}")
    try:
        content = response.json()
    except ValueError as error:
        raise StrangeAnswerError(f"{response.url} does not answer with JSON: {said}") from error
    if not isinstance(content, dict):
        raise StrangeAnswerError(f"{response.url} does not answer with a JSON object: {said}")
    return content


def _ended(request: Request, reason: FinishReason, error: str | None = None, *, lost: bool = False) -> Delta:
    return Delta(request.id, completion=Completion(request.id, finish_reason=reason, error=error, lost=lost))


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[Mapping[str, Any]]:
    """Yield the objects of a stream of server-sent events; it is read to its end, so its connection can be used again.

    Raises:
        PassingError: if the server reports an error in the stream.
        StrangeAnswerError: for an event that is no JSON object.
    """
    async for line in lines:
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or data == "[DONE]":
            continue
        try:
            event = json.loads(data)
        except ValueError as error:
            raise StrangeAnswerError(f"an event is not JSON: {one_line(data[:200])}") from error
        if not isinstance(event, dict):
            raise StrangeAnswerError(f"an event is not a JSON object: {one_line(data[:200])}")
        if event.get("error") is not None:
            raise PassingError(one_line(str(event["error"]))[:300], refused=True)
        yield event
