"""Continuous batching over `pipo_core.decode`: admit, step, retire.

`TorchEngine.step` either reads a piece of prompts or calls the method's `step`, which advances every running sequence.
"""

import logging
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from pipo_core.chat import encode_prompt, end_ids
from pipo_core.decode.method import Method, RunningState, StepOutput
from pipo_core.decode.prefill import PrefillSettings, PromptReader
from pipo_core.engine.admission import Admission
from pipo_core.engine.api import CapacityError, Completion, Delta, EngineStats, FinishReason, Reports, Request
from pipo_core.engine.memory import MemoryPlan
from pipo_core.engine.writer import Writer
from pipo_core.errors import UsageError
from pipo_core.model.quantisation import int8_parts
from pipo_core.model.sizes import Widths
from pipo_core.text import one_line

_LOG = logging.getLogger(__name__)

_RESERVED = 128
"""Positions of decoding for which new sequences get space at once; most answers end long before their budgets."""


@dataclass
class _Reading:
    """A long prompt that is being read piece by piece, and the requests that have it."""

    writers: list[Writer]
    reader: PromptReader


class TorchEngine:
    """Runs requests on a model in this process, ``batch`` of them at a time.

    Args:
        method: a decoding method on a model.
        tokenizer: the model's.
        batch: the most sequences that run together.
        prefill_chunk: the most prompt positions (for pair decoding: slots) that are read at once.
        max_length: the most tokens of prompt and budget together; None for the model's number of positions.
        memory: the memory that sequences may take; None for no limit.
        ends: the ids that end a text of this model; None for those of the tokenizer.
    """

    def __init__(
        self,
        method: Method[Any],
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch: int,
        prefill_chunk: int = 2048,
        max_length: int | None = None,
        memory: MemoryPlan | None = None,
        ends: frozenset[int] | None = None,
    ) -> None:
        self._ends = end_ids(tokenizer) if ends is None else ends
        self._method = method
        self._tokenizer = tokenizer
        self._batch = batch
        self._chunk = prefill_chunk
        self._admission = Admission(method, batch=batch, chunk=prefill_chunk, max_length=max_length, memory=memory)
        self._reading: _Reading | None = None
        self._running: list[Writer] = []
        self._state: RunningState | None = None
        self._ids: set[str] = set()  # of requests that have not ended
        self._deltas: list[Delta] = []  # of requests that ended between two steps
        self._decode_next = False  # the last step read a piece of prompts, so the next one decodes
        self._group_next = False  # the last piece was of the long prompt, so the next one starts waiting requests
        self._steps = self._tokens = self._drafts = self._kept = 0

    # ------------------------------------------------------------ what others see

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        return self._tokenizer

    @property
    def end_ids(self) -> frozenset[int]:
        """The ids that end a text of this model."""
        return self._ends

    @property
    def max_length(self) -> int:
        """The most tokens of prompt and budget together that fit for any request."""
        return self._admission.max_length

    @property
    def reports(self) -> Reports:
        """What the engine can report."""
        model = self._method.model
        device = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else model.device.type
        parts, element = int8_parts(model.lm_head.weight), model.text_model.norm.weight.dtype.itemsize
        return Reports(
            device=device,
            config=model.config,
            widths=Widths(model.lm_head.weight.dtype.itemsize if parts is None else parts[0].itemsize, element),
            cache_bytes=0 if self._state is None else self._state.cache_bytes,
        )

    @property
    def has_work(self) -> bool:
        """Whether there are requests that have not ended, or deltas that `step` has not returned."""
        return bool(self._ids or self._deltas)

    def stats(self) -> EngineStats:
        """Return the engine's state and counts."""
        running = len(self._running) + (0 if self._reading is None else len(self._reading.writers))
        return EngineStats(
            running=running,
            waiting=len(self._admission.waiting),
            free=self._batch - running,
            steps=self._steps,
            tokens=self._tokens,
            drafts=self._drafts,
            kept=self._kept,
        )

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield the requests' completions in the order in which they end.

        Raises:
            UsageError: before anything runs, if a request is not valid for this engine.
        """
        with closing(self.stream(requests)) as deltas:
            for delta in deltas:
                if delta.completion is not None:
                    yield delta.completion

    def stream(self, requests: Iterable[Request]) -> Generator[Delta]:
        """Yield the requests' deltas, step by step.

        A failure of one request ends in its completion's ``error``.

        Raises:
            UsageError: before anything runs, if a request is not valid for this engine.
            Exception: a failure of a step, which all running sequences share.
        """
        mine: list[str] = []
        try:
            for request in requests:
                self.add(request)
                mine.append(request.id)
            while self.has_work:
                yield from self._advance()
        except Exception as error:
            self._lose_running(error)
            raise
        finally:  # the stream may have been closed early
            for request_id in mine:
                self.cancel(request_id)
            self._deltas.clear()

    def add(self, request: Request) -> None:
        """Queue a request.

        Raises:
            UsageError: if an id is outside the vocabulary, or a request of this id has not ended.
            CapacityError: if its prompt and budget can never fit.
        """
        if request.id in self._ids:
            raise UsageError(f"request {request.id} is running or waiting already")
        request = self._laid_out(request)
        self._admission.check(request)
        self._ids.add(request.id)
        self._admission.waiting.append(request)

    def places_for(self, request: Request) -> int:
        """Return how many requests like this one the memory has room for; the batch size if there is no limit."""
        return self._admission.places_for(self._laid_out(request))

    def refusal(self, request: Request) -> str | None:
        """Return why a request's prompt and budget can never fit; None if they do."""
        try:
            self._admission.check(self._laid_out(request))
        except CapacityError as error:
            return error.message
        return None

    def _laid_out(self, request: Request) -> Request:
        """Return a request with the ids of its prompt."""
        if request.prompt_ids:
            return request
        return replace(request, prompt_ids=tuple(encode_prompt(self._tokenizer, request.messages)))

    def cancel(self, request_id: str) -> None:
        """End a request and remove its sequence at once; nothing happens if it has ended or is unknown."""
        if request_id not in self._ids:
            return
        for writer in () if self._reading is None else self._reading.writers:
            if writer.request.id == request_id:
                self._end(writer, "cancelled")
                self._drop_ended_readers()
                return
        for writer in self._running:
            if writer.request.id == request_id:
                self._end(writer, "cancelled")
                self._retire()
                return
        waiting = self._admission.waiting
        request = next(request for request in waiting if request.id == request_id)
        waiting.remove(request)
        self._end(self._writer(request), "cancelled")

    def step(self) -> list[Delta]:
        """Read one piece of prompts, or advance every sequence by one step, and return the deltas.

        A failure ends the affected requests with an error, and the engine goes on.
        """
        try:
            return self._advance()
        except Exception as error:  # noqa: BLE001 - after any failure the other requests must go on
            self._lose_running(error)
            return self._hand_out()

    def close(self) -> None:
        """End every request and release the sequences' memory; the model stays, because engines may share it."""
        for request_id in list(self._ids):
            self.cancel(request_id)
        self._deltas.clear()
        self._state = None

    # ------------------------------------------------------------ admit, step, retire

    def _advance(self) -> list[Delta]:
        """Read one piece of prompts, or advance every sequence; a failure of the method's step is raised."""
        decode_now = self._running and self._decode_next
        self._decode_next = not decode_now and self._prefill()
        if self._state is not None and self._running and not self._decode_next:
            output = self._method.step(self._state)
            self._write(self._running, output, self._broken(self._state))
            self._retire()
        self._steps += 1
        return self._hand_out()

    def _hand_out(self) -> list[Delta]:
        deltas, self._deltas = self._deltas, []
        return deltas

    def _prefill(self) -> bool:
        """Read a piece of the long prompt or start waiting requests, in turn; return whether there was one to read."""
        reading = self._reading
        if reading is not None and not self._group_next:
            self._group_next = True
            self._read_piece(reading)
            return True
        group = self._take(reading)
        if not group and not self._running and reading is None and self._admission.waiting:
            self._state = None  # the empty buffers of earlier sequences keep the request from fitting
            group = self._take(reading)
        self._group_next = False
        if group and self._admission.is_long(group[0]):
            self._open_reader(group)
        elif group:
            self._start(group)
        elif reading is not None:
            self._read_piece(reading)
        return bool(group) or reading is not None

    def _take(self, reading: _Reading | None) -> list[Request]:
        return self._admission.take(
            running=[writer.request for writer in self._running],
            reading=[] if reading is None else [writer.request for writer in reading.writers],
            cache=None if self._state is None else self._state.cache,
        )

    def _open_reader(self, requests: Sequence[Request]) -> None:
        """Read the first piece of a long prompt, which all the requests have."""
        writers = [self._writer(request) for request in requests]
        with self._failing_together(writers):
            prompts = [request.prompt_ids for request in requests]
            reader = self._method.open_reader(prompts, self._settings(writers), self._chunk)
            self._reading = _Reading(writers, reader)
        if self._reading is not None:
            self._read_piece(self._reading)

    def _read_piece(self, reading: _Reading) -> None:
        """Read the next piece of a long prompt; its sequences start after the last one."""
        writers, reader, started = reading.writers, reading.reader, None
        with self._failing_together(writers):
            reader.advance()
            if reader.done:
                prompts = [writer.request.prompt_ids for writer in writers]
                started = self._method.prefill(prompts, reader.settings, reader=reader)
        if started is not None or writers[0].done:
            self._reading = None
        if started is not None:
            self._join(writers, *started)

    def _drop_ended_readers(self) -> None:
        """Forget the requests that were cancelled while their prompt is being read, and the prompt if none is left."""
        reading = self._reading
        if reading is None:
            return
        alive = [index for index, writer in enumerate(reading.writers) if not writer.done]
        reading.reader.keep(alive)
        self._reading = _Reading([reading.writers[index] for index in alive], reading.reader) if alive else None

    def _start(self, requests: Sequence[Request]) -> None:
        """Start requests together; if that fails, start each one alone, so that only the faulty one fails."""
        writers = [self._writer(request) for request in requests]
        prompts = [request.prompt_ids for request in requests]
        started = None
        try:
            started = self._method.prefill(prompts, self._settings(writers))
        except Exception as error:  # noqa: BLE001 - a single faulty request may be the cause of any failure
            if len(requests) == 1:
                self._fail(writers[0], error)
                return
            _LOG.debug("requests that start together failed", exc_info=True)
        if started is not None:
            self._join(writers, *started)
            return
        for request in requests:  # outside the except block, so that the traceback no longer holds tensors
            self._start([request])

    def _writer(self, request: Request) -> Writer:
        return Writer(request, self._tokenizer, self._ends)

    def _settings(self, writers: Sequence[Writer]) -> PrefillSettings:
        requests = [writer.request for writer in writers]
        budget = max(request.max_positions(self._method.max_step_positions) for request in requests)
        return PrefillSettings(
            sampling=[request.sampling for request in requests],
            end_ids=[writer.end_ids for writer in writers],
            reserved_positions=min(budget, _RESERVED),
            max_positions=[self._admission.max_positions(request) for request in requests],
            tau=[request.tau for request in requests],
            prompt_scores=[request.prompt_scores for request in requests],
        )

    def _join(self, writers: list[Writer], state: RunningState, output: StepOutput) -> None:
        """Add started sequences to the running ones."""
        broken = self._broken(state)
        self._running += writers
        if self._state is None:
            self._state = state
        else:
            self._state.join(state)
        self._write(writers, output, broken)
        self._retire()

    @staticmethod
    def _broken(state: RunningState) -> list[bool]:
        """Return for each sequence whether its scores were not finite."""
        broken: list[bool] = state.sampler.broken.tolist()
        return broken

    def _write(self, writers: Sequence[Writer], output: StepOutput, broken: Sequence[bool]) -> None:
        """Give each writer the tokens of its sequence, and end the requests of broken sequences."""
        now = time.perf_counter()
        tokens, counts = output.tokens.tolist(), output.counts.tolist()
        sure = [None] * len(counts) if output.confidence is None else output.confidence.tolist()
        scores = [[]] * len(counts) if output.scores is None else output.scores
        for writer, prompt_scores in zip(writers, output.prompt_scores or (), strict=False):
            writer.score_prompt(prompt_scores)
        for writer, ids, count, confidence, scored, lost in zip(
            writers, tokens, counts, sure, scores, broken, strict=True
        ):
            if lost:
                self._end(writer, "error", "the model's scores are not finite")
                continue
            drafts, kept = writer.drafts, writer.kept
            try:
                delta = writer.write(
                    ids, count=count, offered=output.offered, now=now, confidence=confidence, scores=scored
                )
            except Exception as error:  # noqa: BLE001 - whatever it was, it becomes the request's error
                self._fail(writer, error)
                continue
            self._deltas.append(delta)
            if writer.done:
                self._ids.discard(writer.request.id)
            self._tokens += writer.slot_token_counts[-1]
            self._drafts += writer.drafts - drafts
            self._kept += writer.kept - kept

    def _retire(self) -> None:
        """Remove the sequences whose requests have ended; the last ones move into the gaps, so that few are moved."""
        kept = list(range(len(self._running)))
        for index in range(len(self._running) - 1, -1, -1):
            if self._running[index].done:
                kept[index] = kept[-1]
                kept.pop()
        if self._state is None or len(kept) == len(self._running):
            return
        self._running = [self._running[index] for index in kept]
        self._state.keep(kept)
        if not kept and self._method.block == 1:
            self._state = None

    def _end(self, writer: Writer, reason: FinishReason, error: str | None = None) -> None:
        self._ids.discard(writer.request.id)
        self._deltas.append(writer.end(reason, error))

    @contextmanager
    def _failing_together(self, writers: Sequence[Writer]) -> Iterator[None]:
        """Let a failure of the block end these requests only."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it was, it becomes the requests' error
            for writer in writers:
                self._fail(writer, error)

    def _fail(self, writer: Writer, error: Exception) -> None:
        _LOG.debug("request %s failed", writer.request.id, exc_info=error)
        self._end(writer, "error", one_line(error))

    def _lose_running(self, error: Exception) -> None:
        """End all running requests with an error: after a failed step their caches cannot be trusted."""
        lost, self._running, self._state = self._running, [], None
        for writer in lost:
            if not writer.done:
                writer.completion.lost = True
                self._fail(writer, error)
