"""Continuous batching over `pipo_core.decode`: admit, step, retire."""

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from transformers import PreTrainedTokenizerBase

from pipo_core.decode.prefill import PromptReader
from pipo_core.decode.rows import Emitted, RowSettings
from pipo_core.engine.api import CapacityError, Completion, Delta, EngineStats, FinishReason, Request
from pipo_core.engine.chat import end_ids
from pipo_core.engine.methods import Method, RowState
from pipo_core.engine.writer import Writer
from pipo_core.errors import UsageError
from pipo_core.recipes.suggest import one_line

_LOG = logging.getLogger(__name__)

_ADMIT_SHARE = 4
"""New rows start when a quarter of the batch is free: prefilling rows one by one would starve the running ones."""

_ROOM = 128
"""Slots of decoding for which new rows get space at once; whole budgets would not fit, and most answers end sooner."""


@dataclass
class _Reading:
    """A long prompt that is read piece by piece."""

    writer: Writer
    settings: RowSettings
    reader: PromptReader


class TorchEngine:
    """Runs requests on a model in this process, ``batch`` of them at a time.

    Args:
        method: a decoding method on a model.
        tokenizer: the model's.
        batch: rows that run together.
        prefill_chunk: prompt positions (for pair decoding slots) that are read at once.
        max_length: the most tokens of prompt and budget; what the model was made for where None.
    """

    def __init__(
        self,
        method: Method,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch: int,
        prefill_chunk: int = 2048,
        max_length: int | None = None,
    ) -> None:
        self._method = method
        self._tokenizer = tokenizer
        self._batch = batch
        self._chunk = prefill_chunk
        self._max_length = max_length or int(method.model.config.max_position_embeddings)
        self._waiting: deque[Request] = deque()
        self._reading: _Reading | None = None
        self._running: list[Writer] = []
        self._state: RowState | None = None
        self._ids: set[str] = set()  # of requests that have not ended
        self._deltas: list[Delta] = []  # of requests that ended between two steps
        self._decode_next = False  # a piece of prompts was the last thing done: now the rows that run
        self._group_next = False  # a piece of the long prompt was the last one read: now waiting requests
        self._filling = False  # more requests could have started with the last group
        self._steps = self._tokens = self._drafts = self._kept = 0

    # ------------------------------------------------------------ what others see

    @property
    def end_ids(self) -> frozenset[int]:
        """The ids that end a text of this model."""
        return end_ids(self._tokenizer)

    @property
    def max_length(self) -> int:
        """The most tokens that prompt and budget of a request may have together and are sure to fit."""
        return self._max_length

    @property
    def has_work(self) -> bool:
        """Whether a request has not ended, or its last delta was not handed out."""
        return bool(self._ids or self._deltas)

    def stats(self) -> EngineStats:
        """Return where the engine stands."""
        running = len(self._running) + (self._reading is not None)
        return EngineStats(
            running=running,
            waiting=len(self._waiting),
            rows_free=self._batch - running,
            steps=self._steps,
            tokens=self._tokens,
            drafts=self._drafts,
            kept=self._kept,
        )

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield the completions in the order in which they end.

        A failure of one request is its completion's error; one that hits all running rows is raised.

        Raises:
            UsageError: before anything runs, if a request cannot be taken.
        """
        mine: list[str] = []
        try:
            for request in requests:
                self.add(request)
                mine.append(request.id)
            while self.has_work:
                for delta in self._advance():
                    if delta.completion is not None:
                        yield delta.completion
        except Exception as error:
            self._lose_rows(error)
            raise
        finally:  # where it was left early
            for request_id in mine:
                self.cancel(request_id)
            self._deltas.clear()

    def add(self, request: Request) -> None:
        """Queue a request.

        Raises:
            UsageError: if an id is outside the vocabulary, or a request of this id has not ended.
            CapacityError: if its prompt and budget can never fit.
        """
        vocabulary = self._method.model.config.vocab_size
        if request.id in self._ids:
            raise UsageError(f"request {request.id} is already here")
        if not all(0 <= token < vocabulary for token in request.prompt_ids):
            raise UsageError(f"request {request.id}: a prompt id is outside the vocabulary of {vocabulary}")
        length = len(request.prompt_ids) + request.most_slots
        if length > self._max_length:
            raise CapacityError(
                f"request {request.id}: a prompt of {len(request.prompt_ids)} tokens and a budget of "
                f"{request.most_slots} do not fit {self._max_length}",
                hint="a smaller budget or a shorter prompt; engine.max_length sets the limit",
            )
        self._ids.add(request.id)
        self._waiting.append(request)

    def cancel(self, request_id: str) -> None:
        """End a request and free its row at once; a request that has ended, or never was, is let be."""
        if request_id not in self._ids:
            return
        reading = self._reading
        if reading is not None and reading.writer.request.id == request_id:
            self._reading = None
            self._end(reading.writer, "cancelled")
            return
        for writer in self._running:
            if writer.request.id == request_id:
                self._end(writer, "cancelled")
                self._retire()
                return
        request = next(request for request in self._waiting if request.id == request_id)
        self._waiting.remove(request)
        self._end(Writer(request, self._tokenizer), "cancelled")

    def step(self) -> list[Delta]:
        """Read one piece of prompts or advance every row by one step; return what that added.

        A failure ends the requests that it hit with an error, and the engine goes on.
        """
        try:
            return self._advance()
        except Exception as error:  # noqa: BLE001 - whatever it was, other requests must go on
            _LOG.debug("a step failed: the running requests end", exc_info=True)
            self._lose_rows(error)
            return self._hand_out()

    # ------------------------------------------------------------ admit, step, retire

    def _advance(self) -> list[Delta]:
        """Do what `step` does; failures of a method's step are raised."""
        rows_are_next = self._running and self._decode_next
        self._decode_next = not rows_are_next and self._prefill()
        if self._running and not self._decode_next:
            self._write(self._running, self._method.step(self._state))
            self._retire()
            self._steps += 1
        return self._hand_out()

    def _hand_out(self) -> list[Delta]:
        deltas, self._deltas = self._deltas, []
        return deltas

    def _prefill(self) -> bool:
        """Read a piece of the long prompt, or start waiting requests, in turn; return whether there was any."""
        group = self._next_group()
        if self._reading is not None and not (group and self._group_next):
            self._group_next = True
            self._read_piece(self._reading)
        elif group:
            self._group_next = False
            for _ in group:
                self._waiting.popleft()
            if self._positions(group[0]) > self._chunk:
                self._open_reader(group[0])
            else:
                self._start(group)
        else:
            return False
        self._steps += 1
        return True

    def _next_group(self) -> list[Request]:
        """Return the requests that can start now, first come first served: short ones together, a long one alone.

        Together they are as many positions as are read at once, padding counted.
        """
        free = self.stats().rows_free
        if not self._waiting or not (self._filling or free * _ADMIT_SHARE >= min(self._batch, len(self._waiting))):
            return []
        self._filling = False
        group: list[Request] = []
        widest = 0
        for request in islice(self._waiting, free):
            positions = self._positions(request)
            widest = max(widest, positions)
            if group and (len(group) + 1) * widest > self._chunk:
                self._filling = True  # go on with the next group as soon as the rows have had their step
                break
            if positions > self._chunk and self._reading is not None:
                break
            group.append(request)
        return group

    def _positions(self, request: Request) -> int:
        """Return how many positions a prompt fills."""
        return -(-len(request.prompt_ids) // self._method.width)

    def _open_reader(self, request: Request) -> None:
        """Begin to read a long prompt."""
        writer = Writer(request, self._tokenizer)
        settings = self._settings([writer])
        with self._failing_alone(writer):
            reader = self._method.open_reader([request.prompt_ids], settings, self._chunk)
            self._reading = _Reading(writer, settings, reader)
            self._read_piece(self._reading)

    def _read_piece(self, reading: _Reading) -> None:
        """Read on in a long prompt; its row starts with the last piece."""
        writer, started = reading.writer, None
        with self._failing_alone(writer):
            reading.reader.advance()
            if reading.reader.done:
                prompts = [writer.request.prompt_ids]
                started = self._method.prefill(prompts, reading.settings, reader=reading.reader)
        if started is not None or writer.done:
            self._reading = None
        if started is not None:
            self._join([writer], *started)

    def _start(self, requests: Sequence[Request]) -> None:
        """Start rows for the requests, one by one if they fail together, so that the faulty one fails alone."""
        writers = [Writer(request, self._tokenizer) for request in requests]
        try:
            prompts = [request.prompt_ids for request in requests]
            state, emitted = self._method.prefill(prompts, self._settings(writers))
        except Exception as error:  # noqa: BLE001 - one of them may be at fault, whatever it was
            _LOG.debug("requests that start together failed", exc_info=True)
            if len(requests) == 1:
                self._fail(writers[0], error)
                return
            for request in requests:
                self._start([request])
            return
        self._join(writers, state, emitted)

    def _settings(self, writers: Sequence[Writer]) -> RowSettings:
        return RowSettings(
            sampling=[writer.request.sampling for writer in writers],
            pad_id=int(self._tokenizer.pad_token_id),
            end_ids=[writer.end_ids for writer in writers],
            room=min(max(writer.slots_left for writer in writers), _ROOM),
        )

    def _join(self, writers: list[Writer], state: RowState, emitted: Emitted) -> None:
        """Let new rows run with the others."""
        self._running += writers
        if self._state is None:
            self._state = state
        else:
            self._state.join(state)
        self._write(writers, emitted)
        self._retire()

    def _write(self, writers: Sequence[Writer], emitted: Emitted) -> None:
        """Hand every row what it wrote."""
        now = time.perf_counter()
        tokens, counts = emitted.tokens.tolist(), emitted.counts.tolist()
        sure = [None] * len(counts) if emitted.confidence is None else emitted.confidence.tolist()
        for writer, row, count, confidence in zip(writers, tokens, counts, sure, strict=True):
            completion = writer.completion
            drafts, kept = completion.drafts, completion.kept
            with self._failing_alone(writer):
                self._deltas.append(
                    writer.write(row, count=count, offered=emitted.offered, now=now, confidence=confidence)
                )
            self._tokens += sum(completion.slot_token_counts[-1:])
            self._drafts += completion.drafts - drafts
            self._kept += completion.kept - kept

    def _retire(self) -> None:
        """Free the rows of requests that have ended; the last rows fill the holes, so that few are moved."""
        rows = list(range(len(self._running)))
        for index in range(len(self._running) - 1, -1, -1):
            if self._running[index].done:
                self._ids.discard(self._running[index].request.id)
                rows[index] = rows[-1]
                rows.pop()
        if not rows:
            self._running, self._state = [], None
        elif self._state is not None and len(rows) < len(self._running):
            self._running = [self._running[row] for row in rows]
            self._state.keep(rows)

    def _end(self, writer: Writer, reason: FinishReason, error: str | None = None) -> None:
        self._ids.discard(writer.request.id)
        self._deltas.append(writer.end(reason, error))

    @contextmanager
    def _failing_alone(self, writer: Writer) -> Iterator[None]:
        """A failure in here ends this request, and no other."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it was, it becomes the request's error
            _LOG.debug("request %s failed", writer.request.id, exc_info=True)
            self._fail(writer, error)

    def _fail(self, writer: Writer, error: Exception) -> None:
        self._end(writer, "error", one_line(error))

    def _lose_rows(self, error: Exception) -> None:
        """End all running requests: what the failed step left in their caches cannot be trusted."""
        lost, self._running, self._state = self._running, [], None
        for writer in lost:
            if not writer.done:
                self._fail(writer, error)
