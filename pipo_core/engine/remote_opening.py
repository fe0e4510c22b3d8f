"""Opens engines that ask servers: ones that run already, or one of SGLang's that is started for the purpose."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx

from pipo_core.chat import end_ids, load_tokenizer
from pipo_core.engine.dialects import Dialect, OpenAIDialect, SGLangDialect
from pipo_core.engine.remote import RemoteEngine, uses_proxy
from pipo_core.engine.sglang_server import SGLangServer, check_method, missing_sglang, serve_command
from pipo_core.errors import MachineError, UsageError
from pipo_core.files import read_object
from pipo_core.recipes.common import RemoteSettings, SGLangSettings
from pipo_core.recipes.methods import Decoding
from pipo_core.text import one_line

_LOG = logging.getLogger(__name__)
_SECONDS = 10
"""How long a server may take to say what it is."""
_UNKNOWN_LENGTH = 1 << 30
"""Tokens of context of a server that does not say; it ends an answer itself."""
_WRONG_URL = "is the server running there? engine.urls or --url names it"
_WRONG_KEY = "engine.api_key_env or --api-key-env names the variable that holds it"
_WRONG_NAME = "engine.served or --served names the model"


@dataclass
class _Running:
    """A server that was started, and how many engines ask it."""

    server: SGLangServer
    engines: int = 0


class SGLangOpener:
    """Starts a server for each checkpoint; engines that differ in the threshold share it, for requests name theirs."""

    def __init__(self) -> None:
        self._running: dict[tuple[Path, str, tuple[str, ...]], _Running] = {}

    def open(self, source: Path | str | None, decoding: Decoding, settings: SGLangSettings) -> RemoteEngine:
        """Return an engine on a server that was started for it; closing the last of a server's engines ends it.

        Raises:
            MachineError: if SGLang is not installed, or its server does not start.
            UsageError: if SGLang does not have the method.
            CheckpointError: if the checkpoint's tokenizer cannot be read.
        """
        ckpt = _folder(source)
        tokenizer = load_tokenizer(ckpt)
        ends = end_ids(tokenizer, ckpt)
        key = (ckpt, decoding.method, tuple(settings.flags))
        if key in self._running:
            check_method(ckpt, decoding)
        else:
            server = SGLangServer(ckpt, decoding, flags=settings.flags)
            server.wait(seconds=60 * settings.start_minutes)
            self._running[key] = _Running(server)
        running = self._running[key]
        running.engines += 1
        return RemoteEngine(
            SGLangDialect(tokenizer, decoding, ends),
            [running.server.url],
            tokenizer=tokenizer,
            end_ids=ends,
            max_length=_max_length(ckpt),
            concurrency=settings.concurrency,
            on_close=partial(self._leave, key),
            failure=running.server.failure,
        )

    def _leave(self, key: tuple[Path, str, tuple[str, ...]]) -> None:
        """Note that an engine is closed; end its server if no other asks it."""
        running = self._running[key]
        running.engines -= 1
        if not running.engines:
            del self._running[key]
            running.server.stop()

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

    def open(self, source: Path | str | None, decoding: Decoding, settings: RemoteSettings) -> RemoteEngine:
        """Return an engine on servers that run already.

        Args:
            source: the checkpoint that they serve; its tokenizer lays out prompts for SGLang's. None for a model of
                which nothing is here: chats are asked as text.
            decoding: how they decode; a pair model's threshold is sent with each request.
            settings: where they are.

        Raises:
            MachineError: if a server cannot be reached.
            UsageError: if the key's variable is not set, or the servers are of different kinds or models.
            CheckpointError: if the checkpoint's tokenizer cannot be read.
        """
        if source is None:
            return open_chat(settings)
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


def open_chat(settings: RemoteSettings, tau: float | None = None) -> RemoteEngine:
    """Return an engine that takes chats only: running servers lay them out, so nothing of their model is needed here.

    Args:
        settings: where the servers are.
        tau: confidence threshold to send with each request; None for the server's.

    Raises:
        MachineError: if a server cannot be reached, or is none of a language model.
        UsageError: if the key's variable is not set, the key is wrong, or the servers do not have the same model.
    """
    key = _api_key(settings)
    models: dict[str, dict[str, Any]] = {}
    for url in map(_address, settings.urls):
        with _client(url, key) as client:
            models[url] = _listed(client, url, settings.served)
    if len({str(model["id"]) for model in models.values()}) > 1:
        raise _different({url: str(model["id"]) for url, model in models.items()})
    said = [model.get("max_model_len") for model in models.values()]
    lengths = [length for length in said if isinstance(length, int) and length > 1]
    max_length = min(lengths) if len(lengths) == len(said) else _UNKNOWN_LENGTH
    return RemoteEngine(
        OpenAIDialect(str(next(iter(models.values()))["id"]), tau, max_length),
        list(models),
        tokenizer=None,
        max_length=max_length,
        concurrency=settings.concurrency,
        api_key=key,
        timeout_s=settings.timeout_s,
        patience_s=settings.patience_s,
    )


def _different(models: Mapping[str, str]) -> UsageError:
    listed = ", ".join(f"{url} {model}" for url, model in models.items())
    return UsageError(f"the servers do not serve the same: {listed}", hint=_WRONG_NAME)


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
    urls = [_address(url) for url in settings.urls]
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
        raise _different({url: one.model for url, one in found.items()})
    for away in lost.values():
        _LOG.warning("%s; the other servers are asked", away.message)
    return found


def _address(url: str) -> str:
    """Return a server's address without the path that clients of OpenAI's interface write behind it."""
    return url.rstrip("/").removesuffix("/v1")


def _folder(source: Path | str | None) -> Path:
    if source is None:
        raise UsageError("an engine that reads or starts a model needs a checkpoint")
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
    with _client(url, key) as client:
        path = _field(client.get(f"{url}/model_info"), "model_path")
        if isinstance(path, str):
            return Served(path, is_sglang=True)
        return Served(str(_listed(client, url, served)["id"]))


@contextmanager
def _client(url: str, key: str | None) -> Iterator[httpx.Client]:
    """Talk to a server in the block.

    Raises:
        MachineError: if it cannot be reached.
    """
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        with httpx.Client(headers=headers, timeout=_SECONDS, trust_env=uses_proxy([url])) as client:
            yield client
    except httpx.HTTPError as error:
        raise MachineError(f"{urlsplit(url).netloc} cannot be reached: {one_line(error)}", hint=_WRONG_URL) from error


def _listed(client: httpx.Client, url: str, served: str | None) -> dict[str, Any]:
    """Return what a server of OpenAI's interface lists of the model that is asked for, or of its only one.

    Raises:
        MachineError: if it is none of a language model.
        UsageError: if it wants another key, or serves several models and none is chosen.
    """
    host = urlsplit(url).netloc
    response = client.get(f"{url}/v1/models")
    if response.status_code in (401, 403):
        raise UsageError(f"{host} refuses the API key", hint=_WRONG_KEY)
    entries = _field(response, "data")
    if not isinstance(entries, list) or not all(isinstance(one, dict) and "id" in one for one in entries):
        raise MachineError(f"{host} does not answer like a server of a language model")
    chosen = [one for one in entries if served in (None, str(one["id"]))]
    if len(chosen) != 1:
        names = ", ".join(str(one["id"]) for one in entries)
        raise UsageError(f"{host} serves {names or 'nothing'}", hint=_WRONG_NAME)
    return dict(chosen[0])


def _field(response: httpx.Response, name: str) -> Any:
    """Return a field of the object that a response holds; None if it holds none."""
    try:
        content = response.json() if response.is_success else None
    except ValueError:
        return None
    return content.get(name) if isinstance(content, dict) else None
