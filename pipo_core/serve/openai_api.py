"""The HTTP interface: OpenAI's completions and chat completions on a `LiveEngine`.

Token counts exclude PAD, the token that takes a rejected draft's place: texts, usage and budgets never contain it. When
a client disconnects, its requests are cancelled.
"""

import asyncio
import hmac
import json
import uuid
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from pipo_core.chat import encode_prompt
from pipo_core.errors import PipoError, UsageError
from pipo_core.messages import END_OF_THOUGHT, THOUGHT
from pipo_core.serve.answers import Accepted, answer_in_events, answer_whole
from pipo_core.serve.requests import to_requests
from pipo_core.serve.schemas import BodyError, ChatBody, CompletionBody, error_body, read_body
from pipo_core.serve.service import Refused, Service

_BODY_SECONDS = 30.0
"""How long a client may take to send a body."""
_LARGE_BODY = 64 << 10
"""Larger bodies are parsed in a thread, for parsing them would keep everybody else waiting."""


def create_app(service: Service) -> FastAPI:
    """Return the HTTP application that answers with `service`."""
    app = FastAPI(title="pipo", docs_url=None, redoc_url=None, openapi_url=None)
    _add_error_handlers(app, service)

    @app.get("/health")
    async def health() -> Response:
        accepting = service.live.accepting
        return JSONResponse({"status": "ok" if accepting else "draining"}, 200 if accepting else 503)

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        _check_client(service, request)
        return PlainTextResponse(service.metrics.text(service.live.stats()))

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        _check_client(service, request)
        return JSONResponse({"object": "list", "data": [_model(service)]})

    @app.get("/v1/models/{name:path}")
    async def model(request: Request, name: str) -> Response:
        _check_client(service, request)
        _check_model(service, name)
        return JSONResponse(_model(service))

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        _check_client(service, request)
        body = read_body(ChatBody, await _read_json(service, request))
        _check_model(service, body.model)
        _check_size(service, sum(len(message.text) for message in body.messages), "messages")
        messages = [message.for_template() for message in body.messages]
        thinking = body.chat_template_kwargs.enable_thinking
        ids = await asyncio.to_thread(encode_prompt, service.tokenizer, messages, thinking=thinking)
        if not thinking and _opens_thought(service, ids):
            param = "chat_template_kwargs.enable_thinking"
            raise BodyError(f"{param}: the model's chat template always opens a thought", param=param)
        return await _answer(service, request, body, [ids])

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        _check_client(service, request)
        body = read_body(CompletionBody, await _read_json(service, request))
        _check_model(service, body.model)
        _check_size(service, max(map(len, body.prompt)), "prompt")
        encode = service.tokenizer.backend_tokenizer.encode
        prompts = [
            (await asyncio.to_thread(encode, prompt, add_special_tokens=False)).ids
            if isinstance(prompt, str)
            else prompt
            for prompt in body.prompt
        ]
        return await _answer(service, request, body, prompts)

    return app


def _add_error_handlers(app: FastAPI, service: Service) -> None:
    """Give every error OpenAI's shape, and count it by its status."""

    def answer(status: int, body: dict[str, Any], headers: Any = None) -> Response:
        service.metrics.requests[str(status)] += 1
        return JSONResponse(body, status, headers=headers)

    @app.exception_handler(BodyError)
    async def rejected(_: Request, error: BodyError) -> Response:
        return answer(400, error_body(error.message, param=error.param, code=error.code))

    @app.exception_handler(PipoError)
    async def failed(_: Request, error: PipoError) -> Response:
        if isinstance(error, UsageError):
            return answer(400, error_body(error.message))
        return answer(503, error_body(error.message, kind="server_error"))

    @app.exception_handler(Refused)
    async def turned_away(_: Request, error: Refused) -> Response:
        return answer(error.status, error.body, {"Retry-After": "1"} if error.status == 429 else None)

    @app.exception_handler(HTTPException)
    async def not_served(_: Request, error: HTTPException) -> Response:
        return answer(error.status_code, error_body(str(error.detail)), error.headers)


# ---------------------------------------------------------------------- before an answer


def _check_client(service: Service, request: Request) -> None:
    """Raise unless the client knows the key, and calls the server by one of its names.

    A web page can make a browser send requests to a server of the same machine. It cannot choose the ``Host`` header,
    which then has the page's own name.
    """
    if service.hosts is not None and _host_name(request.headers.get("host", "")) not in service.hosts:
        raise Refused(403, "the Host header is not a name of this server", kind="permission_error")
    _check_key(service, request)


def _host_name(host: str) -> str:
    """Return the name in a ``Host`` header, in lower case: without port, and an IPv6 address without brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _check_key(service: Service, request: Request) -> None:
    if service.api_key is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    given = given.strip() if scheme.lower() == "bearer" else ""
    # Compared in constant time, so that response times do not reveal how much of a guess was right.
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), service.api_key.encode()):
        raise Refused(401, "the API key is wrong or missing", kind="authentication_error", code="invalid_api_key")


def _check_model(service: Service, name: str) -> None:
    if name != service.model:
        message = f"there is no model {name!r}; this server has {service.model!r}"
        raise Refused(404, message, param="model", code="model_not_found")


def _check_size(service: Service, characters: int, param: str) -> None:
    """Raise for a text that cannot fit the context, before it is tokenized."""
    if characters > service.max_prompt_bytes:
        message = f"{param}: {characters:,} characters are more than {service.live.max_length:,} tokens of context hold"
        raise BodyError(message, param=param, code="context_length_exceeded")


async def _read_json(service: Service, request: Request) -> Any:
    """Return the parsed JSON body of a request.

    Raises:
        Refused: if it is not declared as JSON, too large, or too slow; the rest of it is then not read.
        BodyError: if it is not valid JSON.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "the Content-Type must be application/json")
    raw = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for piece in request.stream():
                raw += piece
                if len(raw) > service.max_body_bytes:
                    raise Refused(413, f"the body is larger than {service.max_body_bytes:,} bytes")
    except TimeoutError:
        raise Refused(408, f"the body did not arrive within {_BODY_SECONDS:.0f} seconds") from None
    try:
        return json.loads(raw) if len(raw) < _LARGE_BODY else await asyncio.to_thread(json.loads, raw)
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
    service: Service, request: Request, body: ChatBody | CompletionBody, prompts: Sequence[Sequence[int]]
) -> Response:
    live = service.live
    name = f"{'chatcmpl' if isinstance(body, ChatBody) else 'cmpl'}-{uuid.uuid4().hex}"
    thinks = isinstance(body, ChatBody) and _opens_thought(service, prompts[0])
    requests = [
        one
        for number, prompt in enumerate(prompts)
        for one in to_requests(
            body,
            prompt,
            name=f"{name}-{number}",
            max_length=live.max_length,
            defaults=service.defaults,
            stop_behind=END_OF_THOUGHT if thinks else "",
        )
    ]
    if live.pending + len(requests) > service.max_requests:
        raise Refused(429, "too many requests are waiting; try again later", kind="rate_limit_error")
    separate = thinks and service.reasoning == "separate"
    streams = await live.submit_async(requests)
    accepted = Accepted(body, sum(map(len, prompts)), separate, streams, name)
    if body.stream:
        return StreamingResponse(answer_in_events(service, accepted), media_type="text/event-stream")
    return await answer_whole(service, request, accepted)


def _opens_thought(service: Service, prompt_ids: Sequence[int]) -> bool:
    """Return whether a prompt ends with an opened thought."""
    tail = service.tokenizer.decode(list(prompt_ids[-4:]), skip_special_tokens=False)
    return THOUGHT in tail and END_OF_THOUGHT not in tail
