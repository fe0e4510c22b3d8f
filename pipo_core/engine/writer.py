"""One request's answer as it is written: budgets, ends, stop strings and counts, all on real tokens."""

import math
import time
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from pipo_core.engine.api import Completion, FinishReason, Request

_STOP_TAIL = 8
"""Tokens decoded beyond a stop string's own length, so that a string that begins inside a token is found."""


class Writer:
    """Turns the slots of a row into a `Completion`."""

    def __init__(self, request: Request, tokenizer: PreTrainedTokenizerBase) -> None:
        self.completion = Completion(request.id)
        self.done = False
        self.end_ids: frozenset[int] = frozenset() if request.ignore_end else request.stop_ids
        self._request = request
        self._tokenizer = tokenizer
        self._started = time.perf_counter()

    @property
    def slots_left(self) -> int:
        """The most slots that the row can still write."""
        limits = [limit for limit in (self._request.max_tokens, self._request.max_slots) if limit is not None]
        return min(limits) - self.completion.slots

    def write(self, tokens: Sequence[int], *, offered: int, now: float) -> None:
        """Take what one step wrote.

        Args:
            tokens: the first token and the kept drafts.
            offered: how many drafts there were.
            now: when the step ended, `time.perf_counter` seconds.
        """
        completion = self.completion
        completion.slots += 1
        completion.time_s = now - self._started
        if completion.slots == 1:
            completion.ttft_s = completion.time_s
        written = 0
        for token in tokens:
            if self.done or not self._tokens_left:
                break
            self._take(token)
            written += 1
            if written == 1 and not self.done:
                completion.drafts += offered
        completion.kept += written - 1
        completion.slot_token_counts.append(written)
        if not self.done and (not self._tokens_left or completion.slots == self._request.max_slots):
            self._finish("length")

    @property
    def _tokens_left(self) -> float:
        limit = self._request.max_tokens
        return math.inf if limit is None else limit - len(self.completion.token_ids)

    def _take(self, token: int) -> None:
        """Take one token; it may end the text, by itself or by completing a stop string."""
        if token in self.end_ids:
            self._finish("stop")
            return
        self.completion.token_ids.append(token)
        self._stop_at_string()

    def _stop_at_string(self) -> None:
        """End the text before the first stop string in it, if the newest tokens complete one."""
        if not self._request.stop:
            return
        longest = max(len(stop.encode()) for stop in self._request.stop)
        tail = self._decode(self.completion.token_ids[-(longest + _STOP_TAIL) :])
        if any(stop in tail for stop in self._request.stop):
            text = self._decode(self.completion.token_ids)
            places = [text.find(stop) for stop in self._request.stop if stop in text]
            if places:
                self._finish("stop")
                self.completion.text = text[: min(places)]

    def _finish(self, reason: FinishReason) -> None:
        self.done = True
        self.completion.finish_reason = reason
        self.completion.text = self._decode(self.completion.token_ids)

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))
