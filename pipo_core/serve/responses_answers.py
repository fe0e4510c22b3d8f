"""Answers of ``/v1/responses``: a list of items, whole or as a sequence of numbered events."""

import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from pipo_core.chat import ToolCall
from pipo_core.engine import Completion
from pipo_core.serve.answers import STILL_HERE, Accepted, complete, deltas_of, usage_of, why_not
from pipo_core.serve.choices import Parts
from pipo_core.serve.responses_body import ResponsesBody
from pipo_core.serve.service import Service

Event = dict[str, Any]


@dataclass
class _Open:
    """The item that is being written: a thought or a message.

    Attributes:
        kind: ``reasoning`` or ``message``.
        id: of the item.
        text: so far.
    """

    kind: str
    id: str
    text: str = ""

    @property
    def part(self) -> dict[str, Any]:
        """Its one part."""
        if self.kind == "reasoning":
            return {"type": "reasoning_text", "text": self.text}
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": []}

    def item(self, status: str) -> dict[str, Any]:
        """Return it as it stands in the output."""
        content = [] if status == "in_progress" else [self.part]
        common = {"type": self.kind, "id": self.id, "status": status, "content": content}
        return {**common, "summary": []} if self.kind == "reasoning" else {**common, "role": "assistant"}


@dataclass
class _Writer:
    """Makes an answer's items, and the events that tell of them.

    Attributes:
        output: the finished items.
    """

    output: list[dict[str, Any]] = field(default_factory=list)
    _open: _Open | None = None

    def add(self, parts: Parts) -> Iterator[Event]:
        """Yield the events of what a piece of text adds."""
        yield from self._write("reasoning", parts.thought)
        yield from self._write("message", parts.answer)
        for call in parts.calls:
            yield from self.close("completed")
            yield from self._call(call)

    def close(self, status: str) -> Iterator[Event]:
        """Yield the events at the end of the open item."""
        if self._open is None:
            return
        item, name = self._open, _event_name(self._open.kind)
        where = self._where(item.id)
        done = {**where, "content_index": 0, "text": item.text}
        yield {"type": f"response.{name}.done", **done, **({"logprobs": []} if item.kind == "message" else {})}
        yield {"type": "response.content_part.done", **where, "content_index": 0, "part": item.part}
        self._open = None
        yield from self._finish(item.item(status))

    def _write(self, kind: str, text: str) -> Iterator[Event]:
        if not text:
            return
        if self._open is None or self._open.kind != kind:
            yield from self.close("completed")
            self._open = _Open(kind, _new_id("rs" if kind == "reasoning" else "msg"))
            added = {"output_index": len(self.output), "item": self._open.item("in_progress")}
            yield {"type": "response.output_item.added", **added}
            part = {**self._where(self._open.id), "content_index": 0, "part": self._open.part}
            yield {"type": "response.content_part.added", **part}
        self._open.text += text
        delta = {**self._where(self._open.id), "content_index": 0, "delta": text}
        name = _event_name(kind)
        yield {"type": f"response.{name}.delta", **delta, **({"logprobs": []} if kind == "message" else {})}

    def _call(self, call: ToolCall) -> Iterator[Event]:
        item = {"type": "function_call", "id": _new_id("fc"), "call_id": _new_id("call"), "name": call.name}
        begun = {**item, "arguments": "", "status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": len(self.output), "item": begun}
        where = self._where(item["id"])
        yield {"type": "response.function_call_arguments.delta", **where, "delta": call.arguments}
        told = {**where, "name": call.name, "arguments": call.arguments}
        yield {"type": "response.function_call_arguments.done", **told}
        yield from self._finish({**item, "arguments": call.arguments, "status": "completed"})

    def _finish(self, item: dict[str, Any]) -> Iterator[Event]:
        yield {"type": "response.output_item.done", "output_index": len(self.output), "item": item}
        self.output.append(item)

    def _where(self, item_id: str) -> dict[str, Any]:
        return {"item_id": item_id, "output_index": len(self.output)}


async def respond_whole(service: Service, request: Request, asked: Accepted, body: ResponsesBody) -> Response:
    """Return the answer once it is complete; end it if the client disconnects."""
    completions = await complete(service, request, asked)
    if isinstance(completions, Response):
        return completions
    writer = _Writer()
    parts = asked.open_text().feed(completions[0].text, last=True)
    for _ in (*writer.add(parts), *writer.close(_status(completions[0]))):
        pass  # nobody listens to the events of an answer that is given whole
    return JSONResponse(_response(service, asked, body, _status(completions[0]), writer.output, completions))


async def respond_in_events(service: Service, asked: Accepted, body: ResponsesBody) -> AsyncIterator[str]:
    """Yield the server-sent events of an answer; cancel it if the client stops reading."""
    number = 0

    def told(event: Event) -> str:
        nonlocal number
        number += 1
        return f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': number - 1})}\n\n"

    writer, text = _Writer(), asked.open_text()
    begun = _response(service, asked, body, "in_progress", [], [])
    yield told({"type": "response.created", "response": begun})
    yield told({"type": "response.in_progress", "response": begun})
    async for arrived in deltas_of(service, asked):
        if arrived is None:
            yield STILL_HERE
            continue
        delta = arrived[1]
        completion = delta.completion
        for event in writer.add(text.feed(delta.text, last=completion is not None)):
            yield told(event)
        if completion is None:
            continue
        status = _status(completion)
        for event in writer.close("incomplete" if status == "failed" else status):
            yield told(event)
        ended = _response(service, asked, body, status, writer.output, [completion])
        yield told({"type": f"response.{status}", "response": ended})


def _status(completion: Completion) -> str:
    if completion.finish_reason in ("error", "cancelled"):
        return "failed"
    return "incomplete" if completion.finish_reason == "length" else "completed"


def _response(
    service: Service,
    asked: Accepted,
    body: ResponsesBody,
    status: str,
    output: Sequence[dict[str, Any]],
    completions: Sequence[Completion],
) -> dict[str, Any]:
    failed = status == "failed" and bool(completions)
    counts = usage_of(asked, completions)
    usage = {
        "input_tokens": counts["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": counts["completion_tokens"],
        # Tokens of the thought are not counted apart.
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": counts["total_tokens"],
    }
    sampling = asked.body.sampling(service.defaults)
    return {
        "id": asked.id,
        "object": "response",
        "created_at": asked.created,
        "completed_at": int(time.time()) if status == "completed" else None,
        "status": status,
        "error": {"code": "server_error", "message": why_not(completions[0])} if failed else None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "model": service.model,
        "output": list(output),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": body.reasoning.model_dump(),
        "store": False,
        "temperature": sampling["temperature"],
        "text": body.text.model_dump(exclude_none=True, by_alias=True),
        "tool_choice": body.tool_choice if isinstance(body.tool_choice, str) else body.tool_choice.model_dump(),
        "tools": list(body.tools),
        "top_p": sampling["top_p"],
        "truncation": body.truncation,
        "usage": usage if completions else None,
        "metadata": {},
    }


def _event_name(kind: str) -> str:
    return "reasoning_text" if kind == "reasoning" else "output_text"


def _new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"
