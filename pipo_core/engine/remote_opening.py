"""Opens engines that ask servers: ones that run already, or one of SGLang's that is started for the purpose."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx

from pipo_core.chat import end_ids, load_tokenizer
from pipo_core.engine.dialects import Dialect, OpenAIDialect, SGLangDialect
from pipo_core.engine.remote import RemoteEngine, uses_proxy
from pipo_core.engine.sglang_server import SGLangServer, missing_sglang, serve_command
from pipo_core.errors import MachineError, UsageError
from pipo_core.files import read_object
from pipo_core.recipes.common import RemoteSettings, SGLangSettings
from pipo_core.recipes.methods import Decoding
from pipo_core.text import one_line

_LOG = logging.getLogger(__name__)
_SECONDS = 10
"""How long a server may take to say what it is."""


class SGLangOpener:
    """Starts a server for each engine."""

    def open(self, source: Path | str, decoding: Decoding, settings: SGLangSettings) -> RemoteEngine:
        """Return an engine on a server of its own; closing the engine ends the server.

        Raises:
            MachineError: if SGLang is not installed, or its server does not start.
            UsageError: if SGLang does not have the method.
            CheckpointError: if the checkpoint's tokenizer cannot be read.
        """
        ckpt = _folder(source)
        tokenizer = load_tokenizer(ckpt)
        ends = end_ids(tokenizer, ckpt)
        server = SGLangServer(ckpt, decoding, flags=settings.flags)
        server.wait(seconds=60 * settings.start_minutes)
        return RemoteEngine(
            SGLangDialect(tokenizer, decoding, ends),
            [server.url],
            tokenizer=tokenizer,
            end_ids=ends,
            max_length=_max_length(ckpt),
            concurrency=settings.concurrency,
            on_close=server.stop,
            failure=server.failure,
        )

    def check(self, settings: SGLangSettings) -> None:
        """Check that SGLang can be started.

        Raises:
            MachineError: if it is not installed in the tested version.
            UsageError: if a flag is one of pipo's own.
        """
        serve_command(Path(), host="", port=0, flags=settings.flags)
        lack = missing_sglang()
        if lack is not None:
            raise lack


class RemoteOpener:
    """Asks running servers what they are."""

    def open(self, source: Path | str, decoding: Decoding, settings: RemoteSettings) -> RemoteEngine:
        """Return an engine on servers that run already.

        Args:
            source: the checkpoint that they serve; its tokenizer lays out prompts for SGLang's.
            decoding: how they decode; a pair model's threshold is sent with each request.
            settings: where they are.

        Raises:
            MachineError: if a server cannot be reached.
            UsageError: if the key's variable is not set, or the servers are of different kinds or models.
            CheckpointError: if the checkpoint's tokenizer cannot be read.
        """
        ckpt, key, found = _folder(source), _api_key(settings), served_models(settings)
        tokenizer = load_tokenizer(ckpt)
        ends = end_ids(tokenizer, ckpt)
        urls = list(found)
        served = found[urls[0]]
        dialect: Dialect = OpenAIDialect(served.model, decoding.tau)
        if served.is_sglang:
            dialect = SGLangDialect(tokenizer, decoding, ends)
        return RemoteEngine(
            dialect,
            urls,
            tokenizer=tokenizer,
            end_ids=ends,
            max_length=_max_length(ckpt),
            concurrency=settings.concurrency,
            api_key=key,
            timeout_s=settings.timeout_s,
            patience_s=settings.patience_s,
        )

    def check(self, settings: RemoteSettings) -> None:
        """Check that the servers answer, take the key and serve one model.

        Raises:
            MachineError: if a server cannot be reached.
            UsageError: if the key's variable is not set, or the servers are of different kinds or models.
        """
        served_models(settings)


class Served(NamedTuple):
    """What a server serves.

    Attributes:
        model: the model's name there; of SGLang's servers the path that it was loaded from.
        is_sglang: whether it also has SGLang's own interface.
    """

    model: str
    is_sglang: bool = False


def served_models(settings: RemoteSettings) -> dict[str, Served]:
    """Return what each server that answers serves, by its address; see `RemoteOpener.open`."""
    key = _api_key(settings)
    urls = [url.rstrip("/").removesuffix("/v1") for url in settings.urls]
    found: dict[str, Served] = {}
    lost: dict[str, MachineError] = {}
    for url in urls:
        try:
            found[url] = _served_by(url, key, settings.served)
        except MachineError as error:
            lost[url] = error
    if not found:
        raise next(iter(lost.values()))
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{url} {one.model}" for url, one in found.items())
        raise UsageError(f"the servers do not serve the same: {listed}", hint="engine.served names the model")
    for away in lost.values():
        _LOG.warning("%s; the other servers are asked", away.message)
    return found


def _folder(source: Path | str) -> Path:
    if not isinstance(source, Path):
        raise UsageError(f"{source} has random weights, which only the torch engine makes")
    return source


def _max_length(ckpt: Path) -> int:
    """Return the number of positions that the model was made for."""
    config = read_object(ckpt / "config.json")
    text: Mapping[str, Any] = config.get("text_config") or config
    return int(text.get("max_position_embeddings", 32768))


def _api_key(settings: RemoteSettings) -> str | None:
    if settings.api_key_env is None:
        return None
    key = os.environ.get(settings.api_key_env, "").strip()
    if not key or not key.isascii():
        raise UsageError(f"the environment variable {settings.api_key_env} holds no API key")
    return key


def _served_by(url: str, key: str | None, served: str | None) -> Served:
    """Return what a server serves.

    Raises:
        MachineError: if the server cannot be reached, or is none of a language model.
        UsageError: if it wants another key, or serves several models and none is chosen.
    """
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    host = urlsplit(url).netloc
    try:
        with httpx.Client(headers=headers, timeout=_SECONDS, trust_env=uses_proxy([url])) as client:
            path = _field(client.get(f"{url}/model_info"), "model_path")
            if isinstance(path, str):
                return Served(path, is_sglang=True)
            response = client.get(f"{url}/v1/models")
    except httpx.HTTPError as error:
        raise MachineError(f"{host} cannot be reached: {one_line(error)}", hint="check engine.urls") from error
    if response.status_code in (401, 403):
        raise UsageError(f"{host} refuses the API key", hint="engine.api_key_env names the variable that holds it")
    entries = _field(response, "data")
    if not isinstance(entries, list) or not all(isinstance(one, dict) and "id" in one for one in entries):
        raise MachineError(f"{host} does not answer like a server of a language model")
    names = [str(one["id"]) for one in entries]
    if served is None and len(names) == 1:
        return Served(names[0])
    if served not in names:
        raise UsageError(f"{host} serves {', '.join(names) or 'nothing'}", hint="engine.served names the model")
    return Served(served)


def _field(response: httpx.Response, name: str) -> Any:
    """Return a field of the object that a response holds; None if it holds none."""
    try:
        content = response.json() if response.is_success else None
    except ValueError:
        return None
    return content.get(name) if isinstance(content, dict) else None
