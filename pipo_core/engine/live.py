"""An engine for many threads: one thread steps it, the others submit requests and read their deltas.

Only the stepping thread touches the engine. The others put submissions and cancellations into a queue, which it empties
before every step, so a submission waits for at most one step.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from pipo_core.engine.api import Completion, Delta, EngineStats, Request, SteppedEngine
from pipo_core.errors import PipoError, UsageError

_LOG = logging.getLogger(__name__)


class LiveStream:
    """The deltas of one request, to be iterated once, in any thread or with ``async for``.

    The iteration ends with the delta that has the completion.

    Attributes:
        id: the request's.
        tokens: real tokens written so far; the end token is counted once the request has ended.
        first_after: seconds from the submission to the first token, or to the end of an answer without one; None
            before.
        last_after: seconds from the submission to the newest delta; None before the first.
    """

    def __init__(self, request_id: str) -> None:
        self.id = request_id
        self.tokens = 0
        self.first_after: float | None = None
        self.last_after: float | None = None
        self._submitted = time.monotonic()
        self._deltas: deque[Delta] = deque()
        self._arrived = threading.Condition()
        self._wake: Callable[[], None] | None = None  # wakes an asynchronous reader
        self._ended = False

    def put(self, delta: Delta) -> None:
        """Add a delta; called by the engine's thread."""
        self._measure(delta)
        with self._arrived:
            self._deltas.append(delta)
            self._arrived.notify()
            if self._wake is not None:
                self._wake()

    def __iter__(self) -> Iterator[Delta]:
        while not self._ended:
            with self._arrived:
                self._arrived.wait_for(lambda: self._deltas)
                delta = self._take()
            yield delta

    async def __aiter__(self) -> AsyncIterator[Delta]:
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop has been closed: there is no reader any more
                loop.call_soon_threadsafe(arrived.set)

        with self._arrived:
            self._wake = wake
        try:
            while not self._ended:
                arrived.clear()
                with self._arrived:
                    delta = self._take() if self._deltas else None
                if delta is None:
                    await arrived.wait()
                else:
                    yield delta
        finally:
            with self._arrived:
                self._wake = None

    def result(self) -> Completion:
        """Wait for the end of the request and return its completion.

        Raises:
            UsageError: if the last delta was read before.
        """
        completion = None
        for delta in self:
            completion = delta.completion
        if completion is None:
            raise UsageError(f"request {self.id}: its deltas were read before")
        return completion

    def _measure(self, delta: Delta) -> None:
        self.last_after = time.monotonic() - self._submitted
        self.tokens += sum(token.kind != "rejected" for token in delta.tokens)
        if delta.completion is not None:
            self.tokens = delta.completion.tokens
        if self.first_after is None and (delta.tokens or delta.completion is not None):
            self.first_after = self.last_after

    def _take(self) -> Delta:
        delta = self._deltas.popleft()
        self._ended = delta.completion is not None
        return delta


@dataclass(frozen=True)
class _Submission:
    request: Request
    stream: LiveStream
    accepted: "Future[None]" = field(default_factory=Future)

    def refuse(self, error: Exception) -> None:
        """Let whoever submitted the request know, unless nobody waits any more."""
        if self.accepted.set_running_or_notify_cancel():
            self.accepted.set_exception(error)


class LiveEngine:
    """Steps an engine in its own thread while there is work.

    Every accepted request gets a last delta, even if the engine fails.
    """

    def __init__(self, engine: SteppedEngine) -> None:
        self._engine = engine
        self._changed = threading.Condition()  # guards all of the following
        self._wishes: deque[_Submission | str] = deque()  # a string is the id of a request to cancel
        self._streams: dict[str, LiveStream] = {}  # of accepted requests that have not ended
        self._accepting = True
        self._closing = False
        self._stats = engine.stats()
        self._thread = threading.Thread(target=self._run, name="pipo-engine", daemon=True)
        self._thread.start()

    @property
    def accepting(self) -> bool:
        """Whether requests are still accepted."""
        return self._accepting

    @property
    def pending(self) -> int:
        """How many requests run or wait."""
        with self._changed:
            return len(self._streams) + sum(isinstance(wish, _Submission) for wish in self._wishes)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        return self._engine.tokenizer

    @property
    def end_ids(self) -> frozenset[int]:
        """The ids that end a text of this model."""
        return self._engine.end_ids

    @property
    def max_length(self) -> int:
        """The most tokens of prompt and budget together that fit for any request."""
        return self._engine.max_length

    def stats(self) -> EngineStats:
        """Return the engine's state and counts after its last step."""
        return self._stats

    def submit(self, request: Request) -> LiveStream:
        """Queue a request and return its stream; waits for the current step to end.

        Raises:
            UsageError: if an id is outside the vocabulary, or a request of this id has not ended.
            CapacityError: if its prompt and budget can never fit.
            PipoError: after `drain` or `close`.
        """
        submission = self._enqueue(request)
        submission.accepted.result()
        return submission.stream

    async def submit_async(self, requests: Sequence[Request]) -> list[LiveStream]:
        """Queue requests at once and return their streams, as `submit` does, without blocking the event loop.

        If one is refused, or whoever waits is cancelled, all of them end.

        Raises:
            UsageError: if an id is outside the vocabulary, or a request of this id has not ended.
            CapacityError: if its prompt and budget can never fit.
            PipoError: after `drain` or `close`.
        """
        submissions = [self._enqueue(request) for request in requests]
        try:
            await asyncio.gather(*(asyncio.wrap_future(submission.accepted) for submission in submissions))
        except BaseException:
            for request in requests:
                self.cancel(request.id)
            raise
        return [submission.stream for submission in submissions]

    def cancel(self, request_id: str) -> None:
        """End a request before the next step; its stream ends with a completion that was ``cancelled``."""
        with self._changed:
            self._wishes.append(request_id)
            self._changed.notify_all()

    def cancel_all(self) -> int:
        """Take no more requests and end those accepted before the next step; return how many that are."""
        with self._changed:
            self._accepting = False
            pending = [*self._streams, *(wish.request.id for wish in self._wishes if isinstance(wish, _Submission))]
            self._wishes.extend(pending)
            self._changed.notify_all()
            return len(pending)

    def drain(self, timeout: float | None = None) -> bool:
        """Accept no more requests and wait for the accepted ones; return whether all of them ended.

        Args:
            timeout: seconds to wait at most; None for no limit.
        """
        with self._changed:
            self._accepting = False
            return self._changed.wait_for(lambda: not self._streams and not self._wishes, timeout)

    def close(self) -> None:
        """Cancel the requests that have not ended, and end the thread."""
        with self._changed:
            self._closing = True
            self.cancel_all()
        self._thread.join()

    def _enqueue(self, request: Request) -> _Submission:
        submission = _Submission(request, LiveStream(request.id))
        with self._changed:
            if not self._accepting:
                raise PipoError("the engine takes no more requests: it is shutting down")
            self._wishes.append(submission)
            self._changed.notify_all()
        return submission

    def _run(self) -> None:
        """Empty the queue and step, until the engine is closed and has no work."""
        try:
            while self._wait():
                for delta in self._engine.step():
                    self._hand_on(delta)
                self._stats = self._engine.stats()
        except Exception:  # noqa: BLE001 - of whatever kind
            # Engines end failed requests with an error. One that raises instead cannot be trusted any further.
            _LOG.exception("the engine broke down")
        finally:
            self._give_up()

    def _wait(self) -> bool:
        """Empty the queue and wait until there is work; return False once the engine is closed and has none."""
        with self._changed:
            while True:
                while self._wishes:
                    self._fulfil(self._wishes.popleft())
                self._changed.notify_all()
                if self._engine.has_work:
                    return True
                if self._closing:
                    return False
                self._changed.wait()

    def _fulfil(self, wish: "_Submission | str") -> None:
        if isinstance(wish, str):
            self._engine.cancel(wish)
        elif self._closing:
            wish.refuse(PipoError("the engine takes no more requests: it is shutting down"))
        elif wish.accepted.set_running_or_notify_cancel():  # else nobody waits for it any more
            try:
                self._engine.add(wish.request)
            except Exception as error:  # noqa: BLE001 - whoever submitted the request gets it
                wish.accepted.set_exception(error)
            else:
                self._streams[wish.request.id] = wish.stream
                wish.accepted.set_result(None)

    def _hand_on(self, delta: Delta) -> None:
        stream = self._streams[delta.id]
        stream.put(delta)
        if delta.completion is not None:
            with self._changed:
                del self._streams[delta.id]
                self._changed.notify_all()

    def _give_up(self) -> None:
        """End all requests that are left when the thread ends; after a breakdown nobody else would."""
        with self._changed:
            self._accepting = False
            for stream in self._streams.values():
                lost = Completion(stream.id, finish_reason="error", error="the engine broke down", lost=True)
                stream.put(Delta(stream.id, completion=lost))
            for wish in self._wishes:
                if isinstance(wish, _Submission):
                    wish.refuse(PipoError("the engine broke down"))
            self._streams.clear()
            self._wishes.clear()
            self._changed.notify_all()
