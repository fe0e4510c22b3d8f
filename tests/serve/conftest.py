"""A server on this machine, and the official client."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from pipo_core.engine.live import LiveEngine
from pipo_core.engine.torch_opening import TorchOpener
from pipo_core.recipes.common import TorchSettings
from pipo_core.recipes.methods import Decoding
from pipo_core.serve.connections import BoundedServer
from pipo_core.serve.openai_api import create_app
from pipo_core.serve.run import listen, url
from pipo_core.serve.service import Service
from tests.tiny import make_model

MODEL = "tiny"
Start = Callable[..., tuple[Service, str]]


@pytest.fixture(scope="session")
def pair_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small pair model; what it says means nothing."""
    return make_model(tmp_path_factory.mktemp("served") / "pair", layout="pipo")


@pytest.fixture(scope="module")
def start(pair_model: Path) -> Iterator[Start]:
    """Return what starts a server: its service and its address."""
    running: list[tuple[BoundedServer, threading.Thread, Service]] = []

    def begin(**options: Any) -> tuple[Service, str]:
        settings = TorchSettings(batch=8, device="cpu", precision="fp32", threads=1, max_length=512)
        engine = TorchOpener().open(pair_model, Decoding("pipo", tau=0.5), settings)
        service = Service(LiveEngine(engine), engine.tokenizer, MODEL, **options)
        listening = listen("127.0.0.1", 0, has_key=False)
        address = url(listening)
        server = BoundedServer(create_app(service), service.live, listening, drain_seconds=5)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        running.append((server, thread, service))
        return service, address

    yield begin
    for server, thread, service in running:
        server.should_exit = True
        thread.join(timeout=20)
        service.live.close()


@pytest.fixture(scope="module")
def served(start: Start) -> tuple[Service, str]:
    """One server for many tests."""
    return start()


@pytest.fixture(scope="module")
def client(served: tuple[Service, str]) -> OpenAI:
    """The official client, speaking to it."""
    return OpenAI(base_url=served[1], api_key="unused", max_retries=0)
