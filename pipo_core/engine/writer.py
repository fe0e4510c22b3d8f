"""Writes one request's answer: budgets, end tokens, stop strings and counts, all without PAD."""

import math
import time
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from pipo_core.chat import Detokenizer
from pipo_core.decode.token_scores import TokenScore
from pipo_core.engine.api import Completion, Delta, FinishReason, Request, Slot, Written


class Writer:
    """Turns the steps of a sequence into deltas and a `Completion`.

    Args:
        request: the request; its prompt has been laid out.
        tokenizer: the model's.
        end_ids: the model's end tokens, for a request that names none.
    """

    def __init__(self, request: Request, tokenizer: PreTrainedTokenizerBase, end_ids: frozenset[int]) -> None:
        self.request = request
        self.done = False
        self.drafts = 0
        self.kept = 0
        self.slot_token_counts: list[int] = []
        stop_ids = end_ids if request.stop_ids is None else request.stop_ids
        self.end_ids: frozenset[int] = frozenset() if request.ignore_end else stop_ids
        prompt = len(request.prompt_ids)
        self.completion = Completion(request.id, prompt_tokens=prompt, slot_token_counts=self.slot_token_counts)
        self._record: list[Slot] = []
        self._detokenizer = Detokenizer(tokenizer, request.stop, request.stop_behind)
        self._scores: list[TokenScore] = []
        self._texts: list[str] = []  # texts of the deltas so far
        self._handed_out = 0  # tokens of the deltas so far
        self._started = time.perf_counter()

    def write(
        self,
        tokens: Sequence[int],
        *,
        count: int,
        offered: int,
        now: float,
        confidence: float | None = None,
        scores: Sequence[TokenScore] = (),
    ) -> Delta:
        """Add the tokens of one step and return the delta.

        Args:
            tokens: the first token and the kept drafts, ``count`` together, then the rejected drafts.
            count: how many of the tokens were written.
            offered: how many drafts the method made.
            now: when the step ended, in seconds of `time.perf_counter`.
            confidence: the gate's confidence in the draft.
            scores: of the tokens that were sampled, in their order; empty if nobody asks for them.
        """
        completion = self.completion
        completion.time_s = now - self._started
        if not self.slot_token_counts:
            completion.ttft_s = completion.time_s
        drafts_before = self.drafts
        texts: list[str] = []
        taken = 0
        for token in tokens[:count]:
            if self.done or not self._tokens_left:
                break
            texts.append(self._take(token))
            taken += 1
            if taken == 1 and not self.done:
                self.drafts += offered
        self.kept += taken - 1
        self.slot_token_counts.append(taken)
        if self.request.record:
            drafted = self.drafts > drafts_before
            self._record.append(Slot(tokens[0], tokens[1] if drafted else None, taken > 1))
        if not self.done and (not self._tokens_left or len(self.slot_token_counts) == self.request.max_slots):
            self._finish("length")

        new = completion.token_ids[self._handed_out :]
        written = [Written(token, "kept", confidence) for token in new]
        if new:
            written[0] = Written(new[0], "first", None)
        rejected = self.drafts - drafts_before - (count - 1)
        if rejected > 0:
            written += [Written(token, "rejected", confidence) for token in tokens[count : count + rejected]]
        return self._delta("".join(texts), tuple(written), self._told(scores[:taken]))

    def end(self, reason: FinishReason, error: str | None = None) -> Delta:
        """End the answer after the last delta, because of a cancellation or a failure, and return the last delta."""
        del self.completion.token_ids[self._handed_out :]
        self.completion.error = error
        self._finish(reason)
        return self._delta("", ())

    @property
    def _tokens_left(self) -> float:
        limit = self.request.max_tokens
        return math.inf if limit is None else limit - len(self.completion.token_ids)

    def score_prompt(self, scores: Sequence[TokenScore]) -> None:
        """Keep the scores of the prompt's tokens, from the second on, if the request asks for them."""
        if self.request.prompt_scores is not None:
            self.completion.prompt_scores = [_cut(score, self.request.prompt_scores) for score in scores]

    def _told(self, scores: Sequence[TokenScore]) -> tuple[TokenScore, ...]:
        """Return what the request wants to know of some scores; another one in the batch may want more."""
        width = self.request.sampling.logprobs
        told = () if width is None else tuple(_cut(score, width) for score in scores)
        self._scores += told
        return told

    def _take(self, token: int) -> str:
        """Add one token and return the text that has become final; the token may end the answer."""
        if token in self.end_ids:
            self._finish("stop")
            return ""
        self.completion.token_ids.append(token)
        text = self._detokenizer.add(token)
        if self._detokenizer.stopped:
            self._finish("stop")
        return text

    def _finish(self, reason: FinishReason) -> None:
        self.done = True
        self.completion.finish_reason = reason

    def _delta(self, text: str, written: tuple[Written, ...], scores: tuple[TokenScore, ...] = ()) -> Delta:
        """Return a delta with `text`; the last one also has the held-back text and the completion."""
        if self.done and not self._detokenizer.stopped and self.completion.finish_reason != "error":
            text += self._detokenizer.finish()
        self._texts.append(text)
        self._handed_out = len(self.completion.token_ids)
        if not self.done:
            return Delta(self.request.id, text, written, scores=scores)
        completion = self.completion
        completion.text = "".join(self._texts)
        completion.tokens = sum(self.slot_token_counts)
        completion.slots, completion.drafts, completion.kept = len(self.slot_token_counts), self.drafts, self.kept
        completion.record = self._record if self.request.record else None
        completion.scores = None if self.request.sampling.logprobs is None else self._scores
        return Delta(self.request.id, text, written, completion, scores)


def _cut(score: TokenScore, width: int) -> TokenScore:
    """Return a score with the ``width`` likeliest tokens."""
    return score._replace(top=score.top[:width])
