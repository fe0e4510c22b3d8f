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

from pipo_core.chat import ThoughtSplitter
from pipo_core.engine import Completion, Delta
from pipo_core.engine.live import LiveStream
from pipo_core.serve.schemas import ChatBody, CompletionBody, error_body
from pipo_core.serve.service import Service

_SHUT_DOWN = "the server shut down before the answer was complete"


@dataclass
class Accepted:
    """An accepted body, with one engine stream for each of its choices.

    Attributes:
        body: as it was read.
        prompt_tokens: of all its prompts together.
        opens_thought: whether answers begin with a thought that is given separately.
        streams: of its choices, in their order.
        id: of the answer.
        created: when it was accepted, in seconds since 1970.
    """

    body: ChatBody | CompletionBody
    prompt_tokens: int
    opens_thought: bool
    streams: list[LiveStream]
    id: str
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def is_chat(self) -> bool:
        """Whether the body is a chat."""
        return isinstance(self.body, ChatBody)

    def cancel(self, service: Service) -> None:
        """End the requests; their streams then end too."""
        for stream in self.streams:
            service.live.cancel(stream.id)


# ---------------------------------------------------------------------- whole


async def answer_whole(service: Service, request: Request, asked: Accepted) -> Response:
    """Return the answer once all choices are complete; end them if the client disconnects."""
    gone = asyncio.create_task(_disconnected(request))
    gone.add_done_callback(lambda _: asked.cancel(service))  # no harm to requests that have ended
    try:
        completions = [await _collect(stream) for stream in asked.streams]
    finally:
        gone.cancel()
    service.metrics.count(completions, asked.streams, asked.prompt_tokens)
    for completion in completions:
        if completion.finish_reason == "error":
            return JSONResponse(error_body(f"the request failed: {completion.error}", kind="server_error"), 500)
        if completion.finish_reason == "cancelled":
            return JSONResponse(error_body(_SHUT_DOWN, kind="server_error"), 503)
    choices = [_choice(asked, index, completion) for index, completion in enumerate(completions)]
    kind = "chat.completion" if asked.is_chat else "text_completion"
    return JSONResponse({**_head(service, asked, kind), "choices": choices, "usage": _usage(asked, completions)})


async def _disconnected(request: Request) -> None:
    """Return when the client has disconnected; the body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        continue


async def _collect(stream: LiveStream) -> Completion:
    async for delta in stream:
        if delta.completion is not None:
            return delta.completion
    raise RuntimeError(f"the stream of {stream.id} ended without a completion")


def _choice(asked: Accepted, index: int, completion: Completion) -> dict[str, Any]:
    common = {"index": index, "finish_reason": completion.finish_reason, "logprobs": None}
    if not asked.is_chat:
        return {**common, "text": completion.text}
    message: dict[str, Any] = {"role": "assistant", "content": completion.text}
    if asked.opens_thought:
        splitter = ThoughtSplitter()
        thought, answer = splitter.feed(completion.text)
        message = {"role": "assistant", "reasoning_content": thought + splitter.end(), "content": answer}
    return {**common, "message": message}


def _head(service: Service, asked: Accepted, kind: str) -> dict[str, Any]:
    return {"id": asked.id, "object": kind, "created": asked.created, "model": service.model}


def _usage(asked: Accepted, completions: Sequence[Completion]) -> dict[str, int]:
    written = sum(completion.tokens for completion in completions)
    return {
        "prompt_tokens": asked.prompt_tokens,
        "completion_tokens": written,
        "total_tokens": asked.prompt_tokens + written,
    }


# ---------------------------------------------------------------------- streamed


async def answer_in_events(service: Service, asked: Accepted) -> AsyncIterator[str]:
    """Yield the server-sent events of an answer; cancel its requests if the client stops reading."""
    completions: list[Completion] = []
    arrived: asyncio.Queue[tuple[int, Delta]] = asyncio.Queue()
    readers = [asyncio.create_task(_read(index, stream, arrived)) for index, stream in enumerate(asked.streams)]
    splitters = [ThoughtSplitter() if asked.opens_thought else None for _ in asked.streams]
    try:
        if asked.is_chat:
            for index in range(len(asked.streams)):
                yield _event(service, asked, index, {"role": "assistant", "content": ""})
        while len(completions) < len(asked.streams):
            index, delta = await arrived.get()
            for part in _parts(asked, splitters[index], delta):
                yield _event(service, asked, index, part)
            if delta.completion is not None:
                completions.append(delta.completion)
                yield _end_event(service, asked, index, delta.completion)
        options = asked.body.stream_options
        if options is not None and options.include_usage:
            head = _head(service, asked, _chunk_kind(asked))
            yield f"data: {json.dumps({**head, 'choices': [], 'usage': _usage(asked, completions)})}\n\n"
        yield "data: [DONE]\n\n"
    finally:
        if len(completions) < len(asked.streams):
            asked.cancel(service)
        for reader in readers:
            reader.cancel()
        service.metrics.count(completions, asked.streams, asked.prompt_tokens)


async def _read(index: int, stream: LiveStream, arrived: "asyncio.Queue[tuple[int, Delta]]") -> None:
    with suppress(asyncio.CancelledError):
        async for delta in stream:
            arrived.put_nowait((index, delta))


def _parts(asked: Accepted, splitter: ThoughtSplitter | None, delta: Delta) -> list[dict[str, str]]:
    """Return the fields that a delta adds to the answer, one chunk each."""
    if not asked.is_chat:
        return [{"text": delta.text}] if delta.text else []
    if splitter is None:
        return [{"content": delta.text}] if delta.text else []
    thought, answer = splitter.feed(delta.text)
    if delta.completion is not None:
        thought += splitter.end()
    fields = {"reasoning_content": thought, "content": answer}
    return [{name: text} for name, text in fields.items() if text]


def _end_event(service: Service, asked: Accepted, index: int, completion: Completion) -> str:
    if completion.finish_reason in ("error", "cancelled"):
        why = _SHUT_DOWN if completion.finish_reason == "cancelled" else f"the request failed: {completion.error}"
        return f"data: {json.dumps(error_body(why, kind='server_error'))}\n\n"
    return _event(service, asked, index, {}, completion.finish_reason)


def _event(service: Service, asked: Accepted, index: int, part: dict[str, str], reason: str | None = None) -> str:
    common = {"index": index, "finish_reason": reason, "logprobs": None}
    choice = {**common, "delta": part} if asked.is_chat else {**common, "text": part.get("text", "")}
    return f"data: {json.dumps({**_head(service, asked, _chunk_kind(asked)), 'choices': [choice]})}\n\n"


def _chunk_kind(asked: Accepted) -> str:
    return "chat.completion.chunk" if asked.is_chat else "text_completion"
