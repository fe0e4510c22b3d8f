"""The HTTP interface: OpenAI's completions and chat completions on a `LiveEngine`.

Token counts exclude PAD, the token that takes a rejected draft's place: texts, usage and budgets never contain it. When
a client disconnects, its requests are cancelled.
"""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

from pipo_core.chat import encode_prompt, takes_tools
from pipo_core.decode.grammars import Grammar
from pipo_core.errors import PipoError, UsageError
from pipo_core.messages import END_OF_THOUGHT, THOUGHT
from pipo_core.serve.answers import Accepted, answer_in_events, answer_whole
from pipo_core.serve.arrivals import LARGE_BODY, check_client, check_model, check_size, read_json
from pipo_core.serve.compiling import compiled
from pipo_core.serve.openapi import described, documented
from pipo_core.serve.requests import to_requests
from pipo_core.serve.responses_answers import respond_in_events, respond_whole
from pipo_core.serve.responses_body import ResponsesBody, in_own_words, read_responses
from pipo_core.serve.schemas import Body, BodyError, ChatBody, CompletionBody, error_body, idle_fields, read_body
from pipo_core.serve.service import Refused, Service
from pipo_core.serve.tracing import LOG, NO_STATUS, Tracing, trace_of

_METHODS = ("GET", "POST")

BodyT = TypeVar("BodyT", bound=Body)
T = TypeVar("T")


def create_app(service: Service) -> Any:
    """Return the ASGI application that answers with `service`."""
    app = FastAPI(title="pipo", summary="OpenAI's interface to one model.", redoc_url=None)
    _add_error_handlers(app, service)
    _add_states(app, service)

    @app.post("/v1/chat/completions", openapi_extra=described(ChatBody))
    async def chat_completions(request: Request) -> Response:
        check_client(service, request)
        body = await _read(service, request, ChatBody)
        ids = await _lay_out(service, body)
        return await _answer(service, request, body, [ids])

    @app.post("/v1/completions", openapi_extra=described(CompletionBody))
    async def completions(request: Request) -> Response:
        check_client(service, request)
        body = await _read(service, request, CompletionBody)
        check_size(service, max(map(len, body.prompt)), "prompt")
        encode = service.tokenizer.backend_tokenizer.encode
        prompts = [
            (await asyncio.to_thread(encode, prompt, add_special_tokens=False)).ids
            if isinstance(prompt, str)
            else prompt
            for prompt in body.prompt
        ]
        return await _answer(service, request, body, prompts)

    @app.post("/v1/responses", openapi_extra=described(ResponsesBody))
    async def responses(request: Request) -> Response:
        check_client(service, request)
        given = await read_json(service, request)
        _check_count(service, given, "input")
        asked, chat = await _in_thread_if_large(request, read_responses, given)
        _check_named(service, chat, given)
        with in_own_words():
            ids = await _lay_out(service, chat)
            accepted = await _accept(service, request, chat, [ids], kind="resp")
        if asked.stream:
            events = respond_in_events(service, accepted, asked)
            return StreamingResponse(events, media_type="text/event-stream")
        return await respond_whole(service, request, accepted, asked)

    documented(app, [ChatBody, CompletionBody, ResponsesBody])
    if service.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(service.origins),
            allow_methods=_METHODS,
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
        )
    return Tracing(app, service)


def _add_states(app: FastAPI, service: Service) -> None:
    """Add the pages about the server itself."""

    @app.get("/health")
    async def health() -> Response:
        accepting = service.live.accepting
        return JSONResponse({"status": "ok" if accepting else "draining"}, 200 if accepting else 503)

    @app.get("/ready")
    async def ready() -> Response:
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        check_client(service, request)
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        check_client(service, request)
        return JSONResponse({"object": "list", "data": [_model(service)]})

    @app.get("/v1/models/{name:path}")
    async def model(request: Request, name: str) -> Response:
        check_client(service, request)
        check_model(service, name)
        return JSONResponse(_model(service))


def _model(service: Service) -> dict[str, Any]:
    return {
        "id": service.model,
        "object": "model",
        "created": service.started,
        "owned_by": "pipo",
        "max_model_len": service.live.max_length,
    }


def _add_error_handlers(app: FastAPI, service: Service) -> None:
    """Give every error OpenAI's shape, and count it by its status."""

    def answer(status: int, body: dict[str, Any], headers: Any = None) -> Response:
        service.metrics.refuse(status)
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

    @app.exception_handler(ClientDisconnect)
    async def left(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=NO_STATUS)  # before its body had arrived: nobody reads it

    @app.exception_handler(HTTPException)
    async def not_served(_: Request, error: HTTPException) -> Response:
        return answer(error.status_code, error_body(str(error.detail)), error.headers)


# ---------------------------------------------------------------------- an answer


async def _read(service: Service, request: Request, shape: type[BodyT]) -> BodyT:
    """Return the body of a request to this server's model."""
    given = await read_json(service, request)
    _check_count(service, given, "messages")
    body: BodyT = await _in_thread_if_large(request, read_body, shape, given)
    _check_named(service, body, given)
    return body


async def _in_thread_if_large(request: Request, read: Callable[..., T], *arguments: Any) -> T:
    """Return what reading a body returns; a large one would keep everybody else waiting."""
    large = trace_of(request).held > LARGE_BODY
    return await asyncio.to_thread(read, *arguments) if large else read(*arguments)


def _check_count(service: Service, body: Any, field: str) -> None:
    """Raise for more turns than tokens of context, before any is looked at."""
    turns = body.get(field) if isinstance(body, dict) else None
    if isinstance(turns, list) and len(turns) > service.live.max_length:
        message = f"{field}: {len(turns):,} turns are more than {service.live.max_length:,} tokens of context hold"
        raise BodyError(message, param=field, code="context_length_exceeded")


def _check_named(service: Service, body: Body, given: Any) -> None:
    """Raise unless a body is for this server's model; its fields without effect go to the log, each once."""
    check_model(service, body.model)
    for name in service.first_time(idle_fields(given)):
        LOG.info("the field %s is taken and has no effect", name)


async def _lay_out(service: Service, body: ChatBody) -> list[int]:
    """Return the ids of a chat's prompt.

    Raises:
        BodyError: if the model's chat template has no place for something in it.
    """
    offered = [tool.for_template() for tool in body.offered]
    check_size(service, sum(message.size for message in body.messages) + len(str(offered)) * bool(offered), "messages")
    if not takes_tools(service.tokenizer):
        if offered:
            raise BodyError("tools: the model's chat template has no place for tools", param="tools")
        if any(message.about_tools for message in body.messages):
            raise BodyError("messages: the model's chat template has no place for calls of tools", param="messages")
    messages = [message.for_template() for message in body.messages]
    ids = await asyncio.to_thread(encode_prompt, service.tokenizer, messages, thinking=body.thinks, tools=offered)
    if not body.thinks and _opens_thought(service, ids):
        param = "reasoning_effort" if body.reasoning_effort == "none" else "chat_template_kwargs.enable_thinking"
        raise BodyError(f"{param}: the model's chat template always opens a thought", param=param)
    return ids


async def _answer(
    service: Service, request: Request, body: ChatBody | CompletionBody, prompts: Sequence[Sequence[int]]
) -> Response:
    kind = "chatcmpl" if isinstance(body, ChatBody) else "cmpl"
    accepted = await _accept(service, request, body, prompts, kind=kind)
    if body.stream:
        return StreamingResponse(answer_in_events(service, accepted), media_type="text/event-stream")
    return await answer_whole(service, request, accepted)


async def _accept(
    service: Service, request: Request, body: ChatBody | CompletionBody, prompts: Sequence[Sequence[int]], *, kind: str
) -> Accepted:
    """Submit the requests of a body to the engine; ``kind`` is what the answer's id begins with.

    Raises:
        Refused: with status 429, if too many wait.
    """
    live = service.live
    name = f"{kind}-{uuid.uuid4().hex}"
    thinks = isinstance(body, ChatBody) and _opens_thought(service, prompts[0])
    grammar = None
    if isinstance(body, ChatBody) and (body.forced is not None or body.response_format.type != "text"):
        grammar = await compiled(service, lambda: _grammar(service, body, thinks=thinks))
    tau = _tau_by_load(service, body, len(prompts) * body.n)
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
            grammar=grammar,
            default_tau=tau,
        )
    ]
    if len(requests) > service.max_requests:
        message = f"{len(requests)} answers are more than this server takes at once ({service.max_requests})"
        raise BodyError(message, param="n")
    if live.pending + len(requests) > service.max_requests:
        raise Refused(429, "too many requests are waiting; try again later", kind="rate_limit_error")
    separate = thinks and service.reasoning == "separate"
    try:
        streams = await live.submit_async(requests)
    except UsageError as error:  # it begins with the request's id, which is not the client's
        message = error.message.removeprefix(f"request {name}").partition(": ")[2] or error.message
        prompt = "messages" if isinstance(body, ChatBody) else "prompt"
        raise BodyError(message, param="logit_bias" if "logit_bias" in message else prompt) from error
    accepted = Accepted(body, prompts, separate, streams, name, trace_of(request))
    if tau is not None:
        accepted.trace.facts["tau"] = f"{tau:g}"
    accepted.watch(service)
    return accepted


def _tau_by_load(service: Service, body: ChatBody | CompletionBody, new: int) -> float | None:
    """Return the threshold of a body's ``new`` requests where the load decides; None if it does not."""
    if service.gate is None or body.custom_params.tau is not None:
        return None
    beyond = service.gate.first_beyond(service.running_with(new))
    if beyond is not None:
        LOG.warning(beyond)
    return service.default_tau(new)


def _grammar(service: Service, body: ChatBody, *, thinks: bool) -> Grammar:
    """Return the grammar that a chat asks for.

    Raises:
        BodyError: naming the field, if a schema cannot be followed or grammars are not installed.
    """
    try:
        if body.forced is not None:
            tools = [tool.for_template() for tool in body.forced]
            return service.grammars.of_calls(tools, behind_thought=thinks)
        named = body.response_format.json_schema
        return service.grammars.of_schema(None if named is None else named.schema_, behind_thought=thinks)
    except UsageError as error:
        param = "response_format" if body.forced is None else "tool_choice"
        raise BodyError(f"{param}: {error.message}", param=param) from error


def _opens_thought(service: Service, prompt_ids: Sequence[int]) -> bool:
    """Return whether a prompt ends with an opened thought."""
    tail = service.tokenizer.decode(list(prompt_ids[-4:]), skip_special_tokens=False)
    return THOUGHT in tail and END_OF_THOUGHT not in tail
