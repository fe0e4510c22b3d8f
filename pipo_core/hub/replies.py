"""Replies of the hub, none of which may go on for ever: each has a limit in bytes, seconds and attempts.

The access token goes to the hub's own host alone: httpx drops it at redirects to other hosts, and the next page of a
listing is asked from the hub, whatever its link says.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which another attempt may succeed."""

_MOST_BYTES = 64 << 20
"""Of one reply; a page of a listing has about 300 KB."""
_MOST_BYTES_OF_AN_ERROR = 1 << 16
_MOST_SECONDS = 60.0
"""For one reply."""
_TRIES = 4
_LONGEST_WAIT_SECONDS = 8.0
_ENCODINGS = ("identity", "gzip", "deflate")


class StrangeReplyError(ValueError):
    """A reply that no hub gives; the message says what is strange about it."""


def get_json(address: str) -> tuple[Any, str | None]:
    """Return the JSON content of a reply, and the address of the next page, if there is one.

    Raises:
        StrangeReplyError: if the reply is endless, not JSON, or goes on at another host.
        httpx.HTTPError: if the hub cannot be reached, or answers with an error, to 429 only after several tries.
    """
    from huggingface_hub.errors import HfHubHTTPError

    for tried in range(1, _TRIES):
        try:
            return _get_once(address)
        except HfHubHTTPError as error:
            if error.response.status_code != 429:
                raise
            asked = error.response.headers.get("Retry-After", "")
            time.sleep(min(float(asked) if asked.isdecimal() else 2.0**tried, _LONGEST_WAIT_SECONDS))
    return _get_once(address)


@contextmanager
def opened(address: str, headers: Mapping[str, str] | None = None) -> "Iterator[httpx.Response]":
    """Yield the reply to a request, of which the content has not been read yet.

    Raises:
        HfHubHTTPError: if the hub answers with an error.
        httpx.TransportError: if it cannot be reached.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session

    # In a compressed reply, the bytes of a range would not be the file's.
    given = {**build_hf_headers(), "Accept-Encoding": "identity", **(headers or {})}
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", address, headers=given, timeout=timeout) as response:
        _raise_for_status(response)
        yield response


def _get_once(address: str) -> tuple[Any, str | None]:
    with opened(address) as response:
        if response.headers.get("Content-Encoding", "identity").lower() not in _ENCODINGS:
            raise StrangeReplyError("it compresses its replies in a way that was not asked for")
        content = _bounded(response, _MOST_BYTES)
        if content is None:
            raise StrangeReplyError(f"a reply is longer than {_MOST_BYTES >> 20} MiB, or takes more than a minute")
        following = _next_page(response)
    try:
        return json.loads(content), following
    except (ValueError, RecursionError) as error:
        raise StrangeReplyError("a reply is not JSON") from error


def _bounded(response: "httpx.Response", most: int) -> bytes | None:
    """Return the content of a reply; None if it is too long, or takes too long."""
    deadline = time.monotonic() + _MOST_SECONDS
    content = bytearray()
    for step in response.iter_bytes():
        content += step
        if len(content) > most or time.monotonic() > deadline:
            return None
    return bytes(content)


def _raise_for_status(response: "httpx.Response") -> None:
    """Raise huggingface_hub's error for a status; it would read a reply of any length to explain it."""
    import httpx
    from huggingface_hub.utils import hf_raise_for_status

    if response.is_success:
        return
    # The body may be of any length and encoding; what matters is said by the status and the headers.
    kept = {name: value for name, value in response.headers.items() if name.lower().startswith(("x-", "retry-after"))}
    body = b"" if "Content-Encoding" in response.headers else _bounded(response, _MOST_BYTES_OF_AN_ERROR) or b""
    read = httpx.Response(response.status_code, headers=kept, content=body, request=response.request)
    if response.is_redirect:
        raise StrangeReplyError("it redirects without end, or to nowhere")
    hf_raise_for_status(read)


def _next_page(response: "httpx.Response") -> str | None:
    """Return the address of the next page, on the hub's own host.

    Raises:
        StrangeReplyError: if the link leads to another host.
    """
    import httpx
    from huggingface_hub import constants

    hub = httpx.URL(constants.ENDPOINT)
    try:
        link = response.links.get("next", {}).get("url")
        if link is None:
            return None
        following = response.url.join(link)
    except (httpx.InvalidURL, ValueError) as error:
        raise StrangeReplyError("the link to the next page of its listing is no address") from error
    if _origin(following) == _origin(hub):
        return str(following)
    # A mirror that redirects to another host gives links to that host; the hub redirects them, too.
    if _origin(following) == _origin(response.url):
        return str(hub.copy_with(raw_path=following.raw_path))
    raise StrangeReplyError("its listing goes on at another host")


def _origin(address: "httpx.URL") -> tuple[str, str, int | None]:
    return address.scheme, address.host, address.port
