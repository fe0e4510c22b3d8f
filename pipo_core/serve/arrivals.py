"""What is checked before a request is answered: who asks, by which name, from which page, and what the body is."""

import asyncio
import hmac
import json
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request

from pipo_core.serve.schemas import BodyError
from pipo_core.serve.service import Refused, Service
from pipo_core.serve.tracing import trace_of

_BODY_SECONDS = 30.0
"""How long a client may take to send a body."""
LARGE_BODY = 64 << 10
"""Larger bodies are parsed in a thread, for parsing them would keep everybody else waiting."""


def check_client(service: Service, request: Request) -> None:
    """Raise unless the client knows the key, and calls the server by one of its names.

    A web page can make a browser send requests to a server of the same machine. It can choose neither the ``Host``
    header, which then has the page's own name, nor ``Origin``.

    Raises:
        Refused: with status 401 or 403.
    """
    if service.hosts is not None:
        if _host_name(request.headers.get("host", "")) not in service.hosts:
            raise Refused(403, "the Host header is not a name of this server", kind="permission_error")
        origin = request.headers.get("origin")
        if origin is not None and origin not in service.origins and _origin_name(origin) not in service.hosts:
            message = "pages of this Origin may not use this server; --allow-origin names those that may"
            raise Refused(403, message, kind="permission_error")
    if service.api_key is not None:
        _check_key(service.api_key, request.headers.get("authorization", ""))


def check_model(service: Service, name: str) -> None:
    """Raise unless the server has this model.

    Raises:
        Refused: with status 404.
    """
    if name != service.model:
        message = f"there is no model {name!r}; this server has {service.model!r}"
        raise Refused(404, message, param="model", code="model_not_found")


def check_size(service: Service, characters: int, param: str) -> None:
    """Raise for a text that cannot fit the context, before it is tokenized.

    Raises:
        BodyError: for such a text.
    """
    if characters > service.max_prompt_bytes:
        message = f"{param}: {characters:,} characters are more than {service.live.max_length:,} tokens of context hold"
        raise BodyError(message, param=param, code="context_length_exceeded")


async def read_json(service: Service, request: Request) -> Any:
    """Return the parsed JSON body of a request.

    Raises:
        Refused: if it is not declared as JSON, too large or too slow, or if all bodies that are held are; the rest of
            it is then not read.
        BodyError: if it is not valid JSON.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "the Content-Type must be application/json")
    raw = bytearray()
    trace = trace_of(request)
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for piece in request.stream():
                raw += piece
                trace.held += len(piece)
                service.held_bytes += len(piece)
                if len(raw) > service.max_body_bytes:
                    raise Refused(413, f"the body is larger than {service.max_body_bytes:,} bytes")
                if service.held_bytes > service.max_held_bytes:
                    raise Refused(429, "too much is waiting; try again later", kind="rate_limit_error")
    except TimeoutError:
        raise Refused(408, f"the body did not arrive within {_BODY_SECONDS:.0f} seconds") from None
    try:
        return json.loads(raw) if len(raw) < LARGE_BODY else await asyncio.to_thread(json.loads, raw)
    except (ValueError, RecursionError):
        raise BodyError("the body is not valid JSON") from None


def _check_key(key: str, authorization: str) -> None:
    scheme, _, given = authorization.partition(" ")
    given = given.strip() if scheme.lower() == "bearer" else ""
    # Compared in constant time, so that response times do not reveal how much of a guess was right.
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), key.encode()):
        raise Refused(401, "the API key is wrong or missing", kind="authentication_error", code="invalid_api_key")


def _host_name(host: str) -> str:
    """Return the name in a ``Host`` header, in lower case: without port, and an IPv6 address without brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _origin_name(origin: str) -> str | None:
    """Return the name of the machine that a page is of, in lower case; None for a page that is of none."""
    try:
        return urlsplit(origin).hostname
    except ValueError:
        return None
