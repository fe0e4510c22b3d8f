"""State of one call of `pipo`: its common options, and the functions that write results."""

import json
import sys
from dataclasses import dataclass
from typing import Any

import typer


@dataclass
class Session:
    """Options that every command has; kept in the root context."""

    json: bool = False
    debug: bool = False


def session(ctx: typer.Context) -> Session:
    """Return the session of this call."""
    root = ctx.find_root()
    if not isinstance(root.obj, Session):
        root.obj = Session()
    return root.obj


def emit_json(value: Any) -> None:
    """Write one JSON document to standard output; NaN and infinities, which JSON lacks, become null."""
    json.dump(_plain(value), sys.stdout, indent=2, ensure_ascii=False, default=str)
    sys.stdout.write("\n")


def say(line: str = "") -> None:
    """Write one line of a result to standard output."""
    typer.echo(line)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
