"""What is said to servers, and what their answers mean: SGLang's own interface, and OpenAI's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase

from pipo_core.chat import encode_prompt
from pipo_core.engine.api import Completion, FinishReason, Request, Slot
from pipo_core.engine.server_scores import (
    StrangeAnswerError,
    check_scores,
    openai_scores,
    sglang_scores,
    with_scores,
)
from pipo_core.errors import UsageError
from pipo_core.messages import END_OF_THOUGHT, THOUGHT
from pipo_core.recipes.methods import Decoding

Json = Mapping[str, Any]
_CUT = "the stream ended before the answer did"


class Dialect(Protocol):
    """How one kind of server is asked."""

    def ask(self, request: Request, *, stream: bool) -> tuple[str, dict[str, Any]]:
        """Return the path and the body that ask for a request's answer.

        Raises:
            UsageError: for what the server cannot do.
        """
        ...

    def completion(self, request: Request, answer: Json) -> Completion:
        """Return what a whole answer says.

        Raises:
            StrangeAnswerError: if it does not have the expected form.
        """
        ...

    def reader(self, request: Request) -> "StreamReader":
        """Return what reads the events of a stream."""
        ...


class StreamReader(Protocol):
    """Reads the events of one stream."""

    def add(self, event: Json) -> str | None:
        """Return the text that an event adds; None if it brings no token."""
        ...

    def completion(self) -> Completion:
        """Return what the whole stream said.

        Raises:
            StrangeAnswerError: if it did not come to an end.
        """
        ...


def _reading(read: Callable[[], Completion]) -> Completion:
    try:
        return read()
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise StrangeAnswerError(f"the server's answer lacks or garbles {error}") from error


def _sampling_of(request: Request, *, min_tokens: str) -> dict[str, Any]:
    """Return the sampling settings of a request as a server reads them.

    Args:
        request: the request.
        min_tokens: the name of that setting, for which the interfaces have different ones.

    Raises:
        UsageError: if the request asks for log-probabilities of the prompt or the answer alone, or has a
            grammar.
    """
    sampling = request.sampling
    if sampling.logprobs != request.prompt_scores:
        raise UsageError("of servers log-probabilities are read of prompt and answer together, as many of each token")
    if sampling.grammar is not None:
        raise UsageError("grammars of the torch engine do not travel to servers")
    further = {
        "min_p": sampling.min_p,
        "logit_bias": {str(token): value for token, value in sampling.logit_bias},
        min_tokens: sampling.min_tokens,
    }
    # All are sent, also those that are off: servers have defaults of their own.
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or -1,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        **{name: value for name, value in further.items() if value},
    }


@dataclass(frozen=True)
class SGLangDialect:
    """SGLang's ``/generate``: token ids in and out, slots and drafts of pair models reported.

    Attributes:
        tokenizer: the model's, which lays out chats.
        decoding: how the server decodes.
        end_ids: that end a text, for requests that name none.
        weights: the version of the weights that answers must be written with; None for any.
    """

    tokenizer: PreTrainedTokenizerBase
    decoding: Decoding
    end_ids: frozenset[int]
    weights: str | None = None

    def ask(self, request: Request, *, stream: bool) -> tuple[str, dict[str, Any]]:
        """See `Dialect`."""
        check_scores(request, stream=stream)
        if request.prompt_scores is not None and self.decoding.spec.reads_pairs:
            raise UsageError("a pair model reads two tokens at once and scores no prompts")
        if request.stop_behind:
            raise UsageError("SGLang has no stop strings that count behind the thought only")
        sampling = _sampling_of(request, min_tokens="min_new_tokens") | {"max_new_tokens": self._max_tokens(request)}
        # Without the flag for deterministic inference, servers ignore seeds.
        sampling |= {"sampling_seed": request.sampling.seed % 2**31}
        if request.stop:
            sampling["stop"] = list(request.stop)
        sampling |= {"ignore_eos": True} if request.ignore_end else {"stop_token_ids": sorted(self._ends(request))}
        if self.decoding.spec.reads_pairs:
            tau = self.decoding.tau if request.tau is None else request.tau
            asked = {"tau": tau, "max_slots": request.max_slots, "record_drafts": request.record or None}
            given = {name: value for name, value in asked.items() if value is not None}
            sampling["custom_params"] = given | {"record_slots": True}
        body = {"input_ids": self._prompt(request), "sampling_params": sampling, "stream": stream}
        if request.prompt_scores is not None:
            body |= {"return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": request.prompt_scores}
        return "/generate", body

    def completion(self, request: Request, answer: Json) -> Completion:
        """See `Dialect`."""
        return _reading(lambda: self._read(request, answer))

    def reader(self, request: Request) -> StreamReader:
        """See `Dialect`."""
        return _SGLangStream(self, request)

    def _prompt(self, request: Request) -> list[int]:
        return list(request.prompt_ids or encode_prompt(self.tokenizer, request.messages))

    def _max_tokens(self, request: Request) -> int:
        """Return the budget in tokens; pair models have one in slots besides."""
        limits = [request.max_tokens]
        if request.max_slots is not None:
            limits.append(self.decoding.max_step_tokens * request.max_slots)
        return min(limit for limit in limits if limit is not None)

    def _ends(self, request: Request) -> frozenset[int]:
        return self.end_ids if request.stop_ids is None else request.stop_ids

    def _read(self, request: Request, answer: Json) -> Completion:
        meta = answer["meta_info"]
        reason, error = _finish_reason(meta["finish_reason"]["type"], meta["finish_reason"].get("message"))
        if reason == "error":
            return Completion(request.id, text=answer.get("text") or "", finish_reason=reason, error=error)
        if self.weights is not None and meta["weight_version"] != self.weights:
            raise StrangeAnswerError(
                f"the server has other weights ({meta['weight_version']!r}) than those that it was given"
            )
        written = [int(token) for token in answer["output_ids"]]
        by_end = reason == "stop" and bool(written) and not request.ignore_end and written[-1] in self._ends(request)
        counts = [1] * len(written)
        record = None
        if self.decoding.spec.reads_pairs:
            report = meta["pipo"][0]
            counts = [int(count) for count in report["slot_token_counts"]]
            ended_by_first = reason == "stop" and counts[-1] == 1
            record = _slots(written, counts, report["drafts"], ended_by_first) if request.record else None
        drafts = self.decoding.drafts_per_step * (len(counts) - (by_end and counts[-1] == 1))
        tau = self.decoding.tau if request.tau is None else request.tau
        if tau is not None and tau >= 1:
            drafts = 0  # no draft can be kept, and none is counted
        completion = Completion(
            request.id,
            token_ids=written[:-1] if by_end else written,
            text=answer["text"],
            prompt_tokens=int(meta["prompt_tokens"]),
            tokens=len(written),
            slots=len(counts),
            drafts=drafts,
            kept=len(written) - len(counts),
            slot_token_counts=counts,
            finish_reason=reason,
            record=record,
            ttft_s=float(meta.get("first_token_latency") or 0.0),
        )
        return completion if request.prompt_scores is None else with_scores(request, completion, sglang_scores(meta))


def _finish_reason(kind: str, message: str | None = None) -> tuple[FinishReason, str | None]:
    """Return why an answer ended, and what is wrong if neither the model nor the budget ended it."""
    if kind == "stop":
        return "stop", None
    if kind == "length":
        return "length", None
    return "error", message or f"the server ended the answer by {kind!r}"


def _slots(
    written: Sequence[int], counts: Sequence[int], drafts: Sequence[Sequence[Any]], ended_by_first: bool
) -> list[Slot]:
    """Return the slots of an answer with every draft, kept or not.

    A draft behind the end of a text was made, because a server learns of the end later, but it is none of the text's.
    """
    slots, read = [], 0
    for count, (draft, _) in zip(counts, drafts, strict=True):
        slots.append(Slot(written[read], int(draft), count == 2))
        read += count
    if ended_by_first:
        slots[-1] = slots[-1]._replace(draft=None)
    return slots


class _SGLangStream:
    """Each event has the whole text so far."""

    def __init__(self, dialect: SGLangDialect, request: Request) -> None:
        self._dialect = dialect
        self._request = request
        self._last: Json = {}
        self._text = ""
        self._tokens = 0

    def add(self, event: Json) -> str | None:
        before, tokens = self._text, self._tokens
        self._last = event
        self._text = str(event.get("text", before))
        self._tokens = len(event.get("output_ids") or ())
        # A token that decodes to no text yet is a token all the same: the time to the first one ends with it.
        return self._text[len(before) :] if self._tokens > tokens or self._text != before else None

    def completion(self) -> Completion:
        if not (self._last.get("meta_info") or {}).get("finish_reason"):
            raise StrangeAnswerError(_CUT)
        return self._dialect.completion(self._request, self._last)


@dataclass(frozen=True)
class OpenAIDialect:
    """OpenAI's interface: chats and completions as text; what servers do not report stays unknown.

    Attributes:
        model: the name that the server gives the model.
        tau: confidence threshold of requests that name none; None for the server's. Only pair models have one.
        max_length: tokens of prompt and answer together, if that is known. A budget of as many is not sent: the answer
            may then fill what the prompt leaves.
    """

    model: str
    tau: float | None = None
    max_length: int | None = None

    def ask(self, request: Request, *, stream: bool) -> tuple[str, dict[str, Any]]:
        """See `Dialect`."""
        check_scores(request, stream=stream)
        if request.max_tokens is None:  # a budget in slots besides is for scoring to apply, if slots are reported
            raise UsageError("a server of OpenAI's interface has budgets in tokens only", hint="give budget.tokens")
        if request.record or request.stop_behind or request.stop_ids is not None:
            raise UsageError("a server of OpenAI's interface reports no slots and has no stop ids")
        body: dict[str, Any] = {
            **_sampling_of(request, min_tokens="min_tokens"),
            "model": self.model,
            "seed": request.sampling.seed % 2**31,
            "stream": stream,
        }
        if self.max_length is None or request.max_tokens < self.max_length:
            body["max_tokens"] = request.max_tokens
        tau = self.tau if request.tau is None else request.tau
        body |= {} if tau is None else {"custom_params": {"tau": tau}}
        body |= {"stop": list(request.stop)} if request.stop else {}
        body |= {"ignore_eos": True} if request.ignore_end else {}
        body |= {"stream_options": {"include_usage": True}} if stream else {}
        if request.messages:
            return "/v1/chat/completions", {**body, "messages": [dict(message) for message in request.messages]}
        if request.prompt_scores is not None:
            body |= {"echo": True, "logprobs": request.prompt_scores, "return_tokens_as_token_ids": True}
        return "/v1/completions", {**body, "prompt": list(request.prompt_ids)}

    def completion(self, request: Request, answer: Json) -> Completion:
        """See `Dialect`."""
        return _reading(lambda: self._read(request, answer))

    def reader(self, request: Request) -> StreamReader:
        """See `Dialect`."""
        return _OpenAIStream(self, request)

    def _read(self, request: Request, answer: Json) -> Completion:
        choice = answer["choices"][0]
        reason, error = _finish_reason(choice["finish_reason"])
        text = _with_thought(choice["message"]) if request.messages else choice["text"]
        usage = answer["usage"]
        if usage is None:
            raise StrangeAnswerError("the server does not report how many tokens it read and wrote")
        completion = Completion(
            request.id,
            text=text,
            prompt_tokens=int(usage["prompt_tokens"]),
            tokens=int(usage["completion_tokens"]),
            finish_reason=reason,
            error=error,
        )
        if request.prompt_scores is None:
            return completion
        return with_scores(request, completion, openai_scores(choice["logprobs"]))


def _with_thought(message: Json) -> str:
    """Return an answer as the model wrote it: servers take the thought out. One without an answer never ended."""
    thought = message.get("reasoning_content") or message.get("reasoning")
    content = message.get("content") or ""
    if not thought:
        return str(content)
    return f"{THOUGHT}\n{thought}" + (f"\n{END_OF_THOUGHT}\n\n{content}" if content else "")


class _OpenAIStream:
    """Each event has the text that is new; the last ones have the reason of the end and the counts."""

    def __init__(self, dialect: OpenAIDialect, request: Request) -> None:
        self._dialect = dialect
        self._request = request
        self._thought = ""
        self._content = ""
        self._reason: str | None = None
        self._usage: Json | None = None

    def add(self, event: Json) -> str | None:
        self._usage = event.get("usage") or self._usage
        added = ""
        for choice in event.get("choices", ()):
            piece = choice.get("delta") or {"content": choice.get("text")}
            added += self._think(piece.get("reasoning_content") or piece.get("reasoning") or "")
            added += self._say(piece.get("content") or "")
            self._reason = choice.get("finish_reason") or self._reason
        return added or None

    def _think(self, piece: str) -> str:
        """Return what a piece of the thought adds to the text as the model wrote it."""
        opened = f"{THOUGHT}\n" if piece and not self._thought else ""
        self._thought += piece
        return opened + piece

    def _say(self, piece: str) -> str:
        """Return what a piece of the answer adds to the text as the model wrote it."""
        closed = f"\n{END_OF_THOUGHT}\n\n" if piece and self._thought and not self._content else ""
        self._content += piece
        return closed + piece

    def completion(self) -> Completion:
        if self._reason is None:
            raise StrangeAnswerError(_CUT)
        message = {"reasoning_content": self._thought, "content": self._content}
        choice = {"message": message, "text": self._content, "finish_reason": self._reason}
        return self._dialect.completion(self._request, {"choices": [choice], "usage": self._usage})
