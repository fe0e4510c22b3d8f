"""The interface's own description, at ``/openapi.json`` and as a page at ``/docs``.

Bodies are read by hand, for OpenAI's error shapes, so FastAPI does not know them; here their schemas are added.
"""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

_PLACE = "#/components/schemas/{model}"


def described(body: type[BaseModel]) -> dict[str, Any]:
    """Return what a route's description says of its body."""
    schema = {"$ref": _PLACE.format(model=body.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def documented(app: FastAPI, bodies: Sequence[type[BaseModel]]) -> None:
    """Let an application's description have the schemas of some bodies."""

    def description() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
            _, schemas = models_json_schema([(body, "validation") for body in bodies], ref_template=_PLACE)
            found.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = description  # type: ignore[method-assign] # FastAPI's documented way to extend it
