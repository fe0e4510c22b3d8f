"""The HTTP interface: OpenAI's completions and chat completions on a `LiveEngine`, streamed or whole.

Token counts exclude PAD, the token that takes a rejected draft's place: texts, usage and budgets never contain it. When
a client disconnects, its sequences are cancelled.
"""

import asyncio
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from transformers import PreTrainedTokenizerBase

from pipo_core.chat import END_OF_THOUGHT, THOUGHT, ThoughtSplitter, encode_prompt
from pipo_core.engine import Completion, Delta
from pipo_core.engine.live import LiveEngine, LiveStream
from pipo_core.errors import PipoError, UsageError
from pipo_core.serve.metrics import Metrics
from pipo_core.serve.requests import to_requests
from pipo_core.serve.schemas import BodyError, ChatBody, CompletionBody, error_body, read_body

MAX_BODY_BYTES = 16 << 20
_PATIENCE_SECONDS = 0.5
"""Seconds between checks that the client of a whole answer is still connected."""


@dataclass
class Service:
    """A model that is served, and how.

    Attributes:
        live: the engine.
        tokenizer: the model's.
        model: the name that clients must give.
        api_key: the key that clients must send; None for no check.
        reasoning: ``separate`` puts a thought into ``reasoning_content``, ``inline`` leaves it in the content.
        metrics: counters.
        started: when the server was started, in seconds since 1970.
    """

    live: LiveEngine
    tokenizer: PreTrainedTokenizerBase
    model: str
    api_key: str | None = None
    reasoning: Literal["separate", "inline"] = "separate"
    metrics: Metrics = field(default_factory=Metrics)
    started: int = field(default_factory=lambda: int(time.time()))


@dataclass
class _Asked:
    """An accepted body, with one engine stream for each of its choices."""

    body: ChatBody | CompletionBody
    prompt_tokens: int
    opens_thought: bool
    streams: list[LiveStream]
    id: str
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def is_chat(self) -> bool:
        return isinstance(self.body, ChatBody)


class _Refused(Exception):
    """A request that is rejected with its own HTTP status and an error body in OpenAI's shape."""

    def __init__(self, status: int, message: str, *, kind: str = "invalid_request_error", **fields: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(message, kind=kind, **fields)


def create_app(service: Service) -> FastAPI:
    """Return the HTTP application that answers with `service`."""
    app = FastAPI(title="pipo", docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(BodyError)
    async def refused(_: Request, error: BodyError) -> Response:
        service.metrics.requests["400"] += 1
        return JSONResponse(error_body(error.message, param=error.param, code=error.code), 400)

    @app.exception_handler(PipoError)
    async def failed(_: Request, error: PipoError) -> Response:
        status = 400 if isinstance(error, UsageError) else 503
        service.metrics.requests[str(status)] += 1
        kind = "invalid_request_error" if status == 400 else "server_error"
        return JSONResponse(error_body(error.message, kind=kind), status)

    @app.exception_handler(_Refused)
    async def turned_away(_: Request, error: _Refused) -> Response:
        service.metrics.requests[str(error.status)] += 1
        return JSONResponse(error.body, error.status)

    @app.exception_handler(HTTPException)
    async def not_served(_: Request, error: HTTPException) -> Response:
        service.metrics.requests[str(error.status_code)] += 1
        return JSONResponse(error_body(str(error.detail)), error.status_code, headers=error.headers)

    @app.get("/health")
    async def health() -> Response:
        accepting = service.live.accepting
        return JSONResponse({"status": "ok" if accepting else "draining"}, 200 if accepting else 503)

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        _check_key(service, request)
        return PlainTextResponse(service.metrics.text(service.live.stats()))

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        _check_key(service, request)
        return JSONResponse({"object": "list", "data": [_model(service)]})

    @app.get("/v1/models/{name}")
    async def model(request: Request, name: str) -> Response:
        _check_key(service, request)
        _check_model(service, name)
        return JSONResponse(_model(service))

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        _check_key(service, request)
        body = read_body(ChatBody, await _read_json(request))
        messages = [{"role": message.role, "content": message.text} for message in body.messages]
        ids = await asyncio.to_thread(encode_prompt, service.tokenizer, messages)
        return await _answer(service, request, body, ids)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        _check_key(service, request)
        body = read_body(CompletionBody, await _read_json(request))
        encode = service.tokenizer.backend_tokenizer.encode
        ids = (await asyncio.to_thread(encode, body.prompt, add_special_tokens=False)).ids
        return await _answer(service, request, body, ids)

    return app


# ---------------------------------------------------------------------- before an answer


def _check_key(service: Service, request: Request) -> None:
    if service.api_key is None:
        return
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    # Compared in constant time, so that response times do not reveal how much of a guess was right.
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), service.api_key.encode()):
        raise _Refused(401, "the API key is wrong or missing", kind="authentication_error", code="invalid_api_key")


def _check_model(service: Service, name: str) -> None:
    if name != service.model:
        message = f"there is no model {name!r}; this server has {service.model!r}"
        raise _Refused(404, message, param="model", code="model_not_found")


async def _read_json(request: Request) -> Any:
    """Return the parsed JSON body of a request.

    Raises:
        _Refused: if the body is too large; the rest of it is then not read.
        BodyError: if it is not valid JSON.
    """
    raw = bytearray()
    async for piece in request.stream():
        raw += piece
        if len(raw) > MAX_BODY_BYTES:
            raise _Refused(413, f"the body is larger than {MAX_BODY_BYTES:,} bytes")
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise BodyError("the body is not valid JSON") from None


def _model(service: Service) -> dict[str, Any]:
    return {
        "id": service.model,
        "object": "model",
        "created": service.started,
        "owned_by": "pipo",
        "max_model_len": service.live.max_length,
    }


async def _answer(
    service: Service, request: Request, body: ChatBody | CompletionBody, prompt_ids: Sequence[int]
) -> Response:
    _check_model(service, body.model)
    name = f"{'chatcmpl' if isinstance(body, ChatBody) else 'cmpl'}-{uuid.uuid4().hex}"
    live = service.live
    asked = to_requests(body, prompt_ids, name=name, max_length=live.max_length)
    streams: list[LiveStream] = []
    try:
        for one in asked:
            streams.append(await live.submit_async(one))
    except BaseException:
        _cancel(service, streams)
        raise
    tail = service.tokenizer.decode(list(prompt_ids[-4:]), skip_special_tokens=False)
    thinks = isinstance(body, ChatBody) and THOUGHT in tail and END_OF_THOUGHT not in tail
    accepted = _Asked(body, len(prompt_ids), thinks and service.reasoning == "separate", streams, name)
    if body.stream:
        return StreamingResponse(_events(service, accepted), media_type="text/event-stream")
    return await _whole(service, request, accepted)


def _cancel(service: Service, streams: Sequence[LiveStream]) -> None:
    for stream in streams:
        service.live.cancel(stream.id)


# ---------------------------------------------------------------------- a whole answer


async def _whole(service: Service, request: Request, asked: _Asked) -> Response:
    ends = asyncio.gather(*(_collect(stream) for stream in asked.streams))
    try:
        while not ends.done():
            await asyncio.wait([ends], timeout=_PATIENCE_SECONDS)
            if not ends.done() and await request.is_disconnected():
                _cancel(service, asked.streams)  # the streams then end
        completions = await ends
    except asyncio.CancelledError:
        _cancel(service, asked.streams)
        raise
    for completion in completions:
        service.metrics.count(completion, asked.prompt_tokens)
    broken = next((completion for completion in completions if completion.finish_reason == "error"), None)
    if broken is not None:
        return JSONResponse(error_body(f"the request failed: {broken.error}", kind="server_error"), 500)
    choices = [_choice(asked, index, completion) for index, completion in enumerate(completions)]
    kind = "chat.completion" if asked.is_chat else "text_completion"
    return JSONResponse({**_head(service, asked, kind), "choices": choices, "usage": _usage(asked, completions)})


async def _collect(stream: LiveStream) -> Completion:
    async for delta in stream:
        if delta.completion is not None:
            return delta.completion
    raise RuntimeError(f"the stream of {stream.id} ended without a completion")


def _choice(asked: _Asked, index: int, completion: Completion) -> dict[str, Any]:
    common = {"index": index, "finish_reason": _reason(completion), "logprobs": None}
    if not asked.is_chat:
        return {**common, "text": completion.text}
    message: dict[str, Any] = {"role": "assistant", "content": completion.text}
    if asked.opens_thought:
        splitter = ThoughtSplitter()
        thought, answer = splitter.feed(completion.text)
        message = {"role": "assistant", "reasoning_content": thought + splitter.end(), "content": answer}
    return {**common, "message": message}


def _reason(completion: Completion) -> str:
    return completion.finish_reason if completion.finish_reason in ("stop", "length") else "stop"


def _head(service: Service, asked: _Asked, kind: str) -> dict[str, Any]:
    return {"id": asked.id, "object": kind, "created": asked.created, "model": service.model}


def _usage(asked: _Asked, completions: Sequence[Completion]) -> dict[str, int]:
    written = sum(completion.tokens for completion in completions)
    return {
        "prompt_tokens": asked.prompt_tokens,
        "completion_tokens": written,
        "total_tokens": asked.prompt_tokens + written,
    }


# ---------------------------------------------------------------------- a stream


async def _events(service: Service, asked: _Asked) -> AsyncIterator[str]:
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
                service.metrics.count(delta.completion, asked.prompt_tokens)
                if delta.completion.finish_reason == "error":
                    failure = error_body(f"the request failed: {delta.completion.error}", kind="server_error")
                    yield f"data: {json.dumps(failure)}\n\n"
                else:
                    yield _event(service, asked, index, {}, _reason(delta.completion))
        options = asked.body.stream_options
        if options is not None and options.include_usage:
            head = _head(service, asked, _chunk_kind(asked))
            yield f"data: {json.dumps({**head, 'choices': [], 'usage': _usage(asked, completions)})}\n\n"
        yield "data: [DONE]\n\n"
    finally:
        if len(completions) < len(asked.streams):
            _cancel(service, asked.streams)
        for reader in readers:
            reader.cancel()


async def _read(index: int, stream: LiveStream, arrived: "asyncio.Queue[tuple[int, Delta]]") -> None:
    async for delta in stream:
        arrived.put_nowait((index, delta))


def _parts(asked: _Asked, splitter: ThoughtSplitter | None, delta: Delta) -> list[dict[str, str]]:
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


def _event(service: Service, asked: _Asked, index: int, part: dict[str, str], reason: str | None = None) -> str:
    common = {"index": index, "finish_reason": reason, "logprobs": None}
    choice = {**common, "delta": part} if asked.is_chat else {**common, "text": part.get("text", "")}
    return f"data: {json.dumps({**_head(service, asked, _chunk_kind(asked)), 'choices': [choice]})}\n\n"


def _chunk_kind(asked: _Asked) -> str:
    return "chat.completion.chunk" if asked.is_chat else "text_completion"
