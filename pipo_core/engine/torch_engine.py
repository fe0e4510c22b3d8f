"""Continuous batching over `pipo_core.decode`: admit, step, retire."""

import time
from collections import deque
from collections.abc import Iterable, Iterator

from transformers import PreTrainedTokenizerBase

from pipo_core.decode.rows import Emitted, RowSettings
from pipo_core.engine.api import Completion, Request
from pipo_core.engine.chat import end_ids
from pipo_core.engine.methods import Method, RowState
from pipo_core.engine.writer import Writer
from pipo_core.errors import UsageError

_ADMIT_SHARE = 4
"""New rows start when a quarter of the batch is free: prefilling rows one by one would starve the running ones."""


_ROOM = 128
"""Slots of decoding for which new rows get space at once; whole budgets would not fit, and most answers end sooner."""


class TorchEngine:
    """Runs requests on a model in this process, ``batch`` of them at a time.

    Args:
        method: a decoding method on a model.
        tokenizer: the model's.
        batch: rows that run together.
    """

    def __init__(self, method: Method, tokenizer: PreTrainedTokenizerBase, *, batch: int) -> None:
        self._method = method
        self._tokenizer = tokenizer
        self._batch = batch

    @property
    def end_ids(self) -> frozenset[int]:
        """The ids that end a text of this model."""
        return end_ids(self._tokenizer)

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yield the completions in the order in which they end.

        Raises:
            UsageError: before anything runs, if a prompt has an id that is not in the vocabulary.
        """
        waiting = deque(requests)
        self._check(waiting)
        running: list[Writer] = []
        state: RowState | None = None
        while waiting or running:
            free = self._batch - len(running)
            if waiting and free * _ADMIT_SHARE >= min(self._batch, len(waiting)):
                admitted = [waiting.popleft() for _ in range(min(free, len(waiting)))]
                state, writers, emitted = self._admit(state, admitted)
                yield from _write(writers, emitted)
                running += writers
            else:
                yield from _write(running, self._method.step(state))
            rows = _after_retiring(running)
            if not rows:
                running, state = [], None
            elif state is not None and len(rows) < len(running):
                running = [running[row] for row in rows]
                state.keep(rows)

    def _check(self, requests: Iterable[Request]) -> None:
        vocabulary = self._method.model.config.vocab_size
        for request in requests:
            if not all(0 <= token < vocabulary for token in request.prompt_ids):
                raise UsageError(f"request {request.id}: a prompt id is outside the vocabulary of {vocabulary}")

    def _admit(self, state: RowState | None, requests: list[Request]) -> tuple[RowState, list[Writer], Emitted]:
        """Start rows for the requests and append them to the running ones."""
        writers = [Writer(request, self._tokenizer) for request in requests]
        settings = RowSettings(
            sampling=[request.sampling for request in requests],
            pad_id=int(self._tokenizer.pad_token_id),
            end_ids=[writer.end_ids for writer in writers],
            room=min(max(writer.slots_left for writer in writers), _ROOM),
        )
        new, emitted = self._method.prefill([request.prompt_ids for request in requests], settings)
        if state is None:
            return new, writers, emitted
        state.join(new)
        return state, writers, emitted


def _write(writers: list[Writer], emitted: Emitted) -> Iterator[Completion]:
    """Hand every row its slot; yield the completions of those that end with it."""
    now = time.perf_counter()
    for writer, tokens, count in zip(writers, emitted.tokens.tolist(), emitted.counts.tolist(), strict=True):
        writer.write(tokens[:count], offered=emitted.offered, now=now)
        if writer.done:
            yield writer.completion


def _after_retiring(running: list[Writer]) -> list[int]:
    """Return which rows stay, in an order that moves as few as possible: the last ones fill the holes."""
    rows = list(range(len(running)))
    for index in range(len(running) - 1, -1, -1):
        if running[index].done:
            rows[index] = rows[-1]
            rows.pop()
    return rows
