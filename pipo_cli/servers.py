"""Options that name running servers, and the settings that they make."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from pipo_core.errors import UsageError

if TYPE_CHECKING:
    from pydantic import ValidationError

    from pipo_core.recipes.common import RemoteSettings

ApiKeyEnv = Annotated[
    str | None,
    typer.Option(
        "--api-key-env", metavar="NAME", help="Environment variable that holds the API key of the server at --url."
    ),
]
Served = Annotated[
    str | None,
    typer.Option("--served", metavar="NAME", help="The model at --url, where the server has several."),
]


def address_name(url: str) -> str:
    """Return the name of an arm that asks a server: its host and port, in characters that a file may have."""
    return re.sub(r"[^A-Za-z0-9]+", "-", url.partition("://")[2] or url).strip("-").removesuffix("-v1")


def remote_settings(url: str, api_key_env: str | None, served: str | None) -> "RemoteSettings":
    """Return the settings of an engine that asks one running server.

    Raises:
        UsageError: for what is no address, or no name of a variable.
    """
    from pydantic import ValidationError

    from pipo_core.recipes.common import RemoteSettings

    try:
        return RemoteSettings(kind="remote", urls=[url], api_key_env=api_key_env, served=served)
    except ValidationError as error:
        raise UsageError("; ".join(_problems(error))) from error


def _problems(error: "ValidationError") -> Iterator[str]:
    """Yield what is wrong in terms of the options."""
    from pipo_core.recipes.base import CrossFieldError

    for found in error.errors():
        broken = found.get("ctx", {}).get("error")
        if isinstance(broken, CrossFieldError):
            yield from (f"--url: {finding.message}" for finding in broken.findings)
        else:
            yield f"--{str(found['loc'][0]).replace('_', '-')}: {found['input']!r} is not the name of a variable"
