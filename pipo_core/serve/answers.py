"""Answers in OpenAI's shapes, whole or as server-sent events."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from pipo_core.engine import Completion, Delta
from pipo_core.engine.live import LiveStream
from pipo_core.serve.choices import ChoiceText, Parts, called
from pipo_core.serve.schemas import ChatBody, CompletionBody, error_body
from pipo_core.serve.scores import chat_scores, completion_scores
from pipo_core.serve.service import Service
from pipo_core.serve.tracing import Trace

_SHUT_DOWN = "the server shut down before the answer was complete"
_SILENT_SECONDS = 2.0
STILL_HERE = ": still here\n\n"
"""A comment, which clients of server-sent events read over."""


@dataclass
class Accepted:
    """An accepted body, with one engine stream for each of its choices.

    Attributes:
        body: as it was read.
        prompts: the ids of each.
        opens_thought: whether answers begin with a thought that is given separately.
        streams: of its choices, in their order.
        id: of the answer.
        trace: of the request.
        created: when it was accepted, in seconds since 1970.
    """

    body: ChatBody | CompletionBody
    prompts: Sequence[Sequence[int]]
    opens_thought: bool
    streams: list[LiveStream]
    id: str
    trace: Trace
    created: int = field(default_factory=lambda: int(time.time()))
    _ended: bool = False

    def watch(self, service: Service) -> None:
        """See to it that the requests end with the client's, even if nothing of the answer was ever sent."""

        def end() -> None:
            if not self._ended:
                self.cancel(service)
                self.ended(service, [])

        self.trace.at_end = end

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all its prompts together."""
        return sum(map(len, self.prompts))

    def cancel(self, service: Service) -> None:
        """End the requests; their streams then end too."""
        for stream in self.streams:
            service.live.cancel(stream.id)

    def open_text(self) -> ChoiceText:
        """Return what splits one choice's text."""
        offered = self.body.called if isinstance(self.body, ChatBody) else []
        return ChoiceText(opens_thought=self.opens_thought, tools=[tool.for_template() for tool in offered])

    def ended(self, service: Service, completions: Sequence[Completion]) -> None:
        """Count the answer, and put its figures into the log."""
        self._ended = True
        service.metrics.count(completions, self.streams, self.prompt_tokens)
        first = min((stream.first_after for stream in self.streams if stream.first_after is not None), default=None)
        self.trace.facts |= {
            "prompt": self.prompt_tokens,
            "tokens": sum(stream.tokens for stream in self.streams),
            "ttft": "-" if first is None else f"{first:.3f}s",
        }


def usage_of(asked: Accepted, completions: Sequence[Completion]) -> dict[str, int]:
    """Return the counts of tokens, PAD not counted."""
    written = sum(completion.tokens for completion in completions)
    return {
        "prompt_tokens": asked.prompt_tokens,
        "completion_tokens": written,
        "total_tokens": asked.prompt_tokens + written,
    }


# ---------------------------------------------------------------------- whole


async def complete(service: Service, request: Request, asked: Accepted) -> list[Completion] | Response:
    """Return the completions of all choices, or the error that one of them is; end them if the client disconnects."""

    async def end_with_client() -> None:
        await _disconnected(request)
        asked.trace.left = True
        asked.cancel(service)

    gone = asyncio.create_task(end_with_client())
    try:
        completions = [await _collect(stream) for stream in asked.streams]
    finally:
        gone.cancel()
    asked.ended(service, completions)
    for completion in completions:
        if completion.finish_reason in ("error", "cancelled"):
            status = 500 if completion.finish_reason == "error" else 503
            return JSONResponse(error_body(why_not(completion), kind="server_error"), status)
    return completions


async def answer_whole(service: Service, request: Request, asked: Accepted) -> Response:
    """Return the answer once all choices are complete; end them if the client disconnects."""
    completions = await complete(service, request, asked)
    if isinstance(completions, Response):
        return completions
    if isinstance(asked.body, ChatBody):
        kind = "chat.completion"
        choices = [_chat_choice(service, asked, index, one) for index, one in enumerate(completions)]
    else:
        kind = "text_completion"
        choices = _text_choices(service, asked, asked.body, completions)
    return JSONResponse({**_head(service, asked, kind), "choices": choices, "usage": usage_of(asked, completions)})


def why_not(completion: Completion) -> str:
    """Return what is said of a completion that failed or was cut off."""
    return _SHUT_DOWN if completion.finish_reason == "cancelled" else f"the request failed: {completion.error}"


async def _disconnected(request: Request) -> None:
    """Return when the client has disconnected; the body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        continue


async def _collect(stream: LiveStream) -> Completion:
    async for delta in stream:
        if delta.completion is not None:
            return delta.completion
    raise RuntimeError(f"the stream of {stream.id} ended without a completion")


def _chat_choice(service: Service, asked: Accepted, index: int, completion: Completion) -> dict[str, Any]:
    text = asked.open_text()
    thought, answer, calls = text.feed(completion.text, last=True)
    message: dict[str, Any] = {"role": "assistant", "content": None if calls and not answer else answer}
    message |= {"reasoning_content": thought} if asked.opens_thought else {}
    message |= {"tool_calls": [called(call) for call in calls]} if calls else {}
    scores = None if completion.scores is None else chat_scores(service.texts, completion.scores)
    reason = text.reason(completion.finish_reason)
    return {"index": index, "finish_reason": reason, "logprobs": scores, "message": message}


def _text_choices(
    service: Service, asked: Accepted, body: CompletionBody, completions: Sequence[Completion]
) -> list[dict[str, Any]]:
    choices = []
    for index, completion in enumerate(completions):
        first = completions[index - index % body.n]  # of this prompt
        prompt = asked.prompts[index // body.n]
        said = service.tokenizer.decode(list(prompt)) if body.echo else ""
        scores = None
        if completion.scores is not None:
            scored = [*(first.prompt_scores or ()), *completion.scores]
            unscored = prompt[:1] if first.prompt_scores is not None else ()
            as_ids = body.return_tokens_as_token_ids
            scores = completion_scores(service.texts, scored, unscored=unscored, as_ids=as_ids)
        text = said + completion.text
        choices.append({"index": index, "finish_reason": completion.finish_reason, "logprobs": scores, "text": text})
    return choices


def _head(service: Service, asked: Accepted, kind: str) -> dict[str, Any]:
    return {"id": asked.id, "object": kind, "created": asked.created, "model": service.model}


# ---------------------------------------------------------------------- streamed


async def deltas_of(service: Service, asked: Accepted) -> AsyncIterator[tuple[int, Delta] | None]:
    """Yield the deltas of an answer's choices; cancel its requests if the reader stops early.

    What a choice has written while its reader was busy comes as one delta: a slow client costs fewer events, not more.
    None comes when there was nothing for `_SILENT_SECONDS`: then something must be sent, or nobody would find out that
    the client has left.
    """
    completions: list[Completion] = []
    arrived: asyncio.Queue[tuple[int, Delta]] = asyncio.Queue()
    readers = [asyncio.create_task(_read(index, stream, arrived)) for index, stream in enumerate(asked.streams)]
    try:
        while len(completions) < len(asked.streams):
            try:
                async with asyncio.timeout(_SILENT_SECONDS):
                    waiting: dict[int, Delta] = dict([await arrived.get()])
            except TimeoutError:
                yield None
                continue
            while not arrived.empty():
                index, delta = arrived.get_nowait()
                waiting[index] = _joined(waiting[index], delta) if index in waiting else delta
            for index, delta in waiting.items():
                completions += [] if delta.completion is None else [delta.completion]
                yield index, delta
    finally:
        if len(completions) < len(asked.streams):
            asked.cancel(service)
        for reader in readers:
            reader.cancel()
        asked.ended(service, completions)


async def answer_in_events(service: Service, asked: Accepted) -> AsyncIterator[str]:
    """Yield the server-sent events of an answer; cancel its requests if the client stops reading."""
    chat = isinstance(asked.body, ChatBody)
    head = _head(service, asked, "chat.completion.chunk" if chat else "text_completion")
    texts = [asked.open_text() for _ in asked.streams]
    completions = []
    if chat:
        for index in range(len(asked.streams)):
            yield _event(head, _chat_chunk(index, {"role": "assistant", "content": ""}))
    async for arrived in deltas_of(service, asked):
        if arrived is None:
            yield STILL_HERE
            continue
        index, delta = arrived
        told = _chat_chunks if chat else _text_chunks
        for choice in told(service, index, texts[index], delta):
            yield _event(head, choice)
        if delta.completion is None:
            continue
        completions.append(delta.completion)
        if delta.completion.finish_reason in ("error", "cancelled"):
            yield f"data: {json.dumps(error_body(why_not(delta.completion), kind='server_error'))}\n\n"
        else:
            reason = texts[index].reason(delta.completion.finish_reason)
            yield _event(head, _chat_chunk(index, {}, reason) if chat else _text_chunk(index, "", reason))
    options = asked.body.stream_options
    if options is not None and options.include_usage:
        yield f"data: {json.dumps({**head, 'choices': [], 'usage': usage_of(asked, completions)})}\n\n"
    yield "data: [DONE]\n\n"


async def _read(index: int, stream: LiveStream, arrived: "asyncio.Queue[tuple[int, Delta]]") -> None:
    with suppress(asyncio.CancelledError):
        async for delta in stream:
            arrived.put_nowait((index, delta))


def _joined(first: Delta, second: Delta) -> Delta:
    return Delta(
        first.id,
        first.text + second.text,
        first.tokens + second.tokens,
        second.completion,
        first.scores + second.scores,
    )


def _chat_chunks(service: Service, index: int, text: ChoiceText, delta: Delta) -> list[dict[str, Any]]:
    """Return what a delta adds to a chat's choice: a chunk for its thought, its answer, and each call."""
    before = text.calls
    parts: Parts = text.feed(delta.text, last=delta.completion is not None)
    fields: list[dict[str, Any]] = [{"reasoning_content": parts.thought}] if parts.thought else []
    fields += [{"content": parts.answer}] if parts.answer else []
    fields += [
        {"tool_calls": [{"index": number, **called(call)}]} for number, call in enumerate(parts.calls, start=before)
    ]
    if delta.scores and not fields:
        fields = [{}]
    chunks = [_chat_chunk(index, added) for added in fields]
    if delta.scores:
        chunks[0]["logprobs"] = chat_scores(service.texts, delta.scores)
    return chunks


def _text_chunks(service: Service, index: int, text: ChoiceText, delta: Delta) -> list[dict[str, Any]]:
    """Return what a delta adds to a completion's choice."""
    added = text.feed(delta.text, last=delta.completion is not None).answer
    if not added and not delta.scores:
        return []
    chunk = _text_chunk(index, added)
    if delta.scores:
        scores = completion_scores(service.texts, delta.scores, begin=text.scored)
        text.scored += sum(map(len, scores["tokens"]))
        chunk["logprobs"] = scores
    return [chunk]


def _chat_chunk(index: int, added: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "finish_reason": reason, "logprobs": None, "delta": added}


def _text_chunk(index: int, added: str, reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "finish_reason": reason, "logprobs": None, "text": added}


def _event(head: dict[str, Any], choice: dict[str, Any]) -> str:
    return f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"
