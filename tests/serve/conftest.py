"""A server on this machine, and the official client."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from pipo_core.engine.torch_opening import TorchOpener
from pipo_core.recipes.common import TorchSettings
from pipo_core.recipes.methods import Decoding
from pipo_core.serve.service import Service
from tests.serve.running import running
from tests.tiny import make_model

Start = Callable[..., tuple[Service, str]]


@pytest.fixture(scope="session")
def pair_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small pair model; what it says means nothing."""
    return make_model(tmp_path_factory.mktemp("served") / "pair", layout="pipo")


@pytest.fixture(scope="module")
def start(pair_model: Path) -> Iterator[Start]:
    """Return what starts a server: its service and its address."""
    with ExitStack() as servers:

        def begin(**options: Any) -> tuple[Service, str]:
            settings = TorchSettings(batch=8, device="cpu", precision="fp32", threads=1, max_length=512)
            engine = TorchOpener().open(pair_model, Decoding("pipo", tau=0.5), settings)
            return servers.enter_context(running(engine, **options))

        yield begin


@pytest.fixture(scope="module")
def served(start: Start) -> tuple[Service, str]:
    """One server for many tests."""
    return start()


@pytest.fixture(scope="module")
def client(served: tuple[Service, str]) -> OpenAI:
    """The official client, speaking to it."""
    return OpenAI(base_url=served[1], api_key="unused", max_retries=0)
