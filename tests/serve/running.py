"""A server of our own in a thread of the test's process."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipo_core.engine.live import LiveEngine
from pipo_core.engine.torch_engine import TorchEngine
from pipo_core.serve.connections import BoundedServer
from pipo_core.serve.openai_api import create_app
from pipo_core.serve.run import listen, url
from pipo_core.serve.service import Service

MODEL = "tiny"


@contextmanager
def running(engine: TorchEngine, **options: Any) -> Iterator[tuple[Service, str]]:
    """Serve an engine's model; yield the service and its address."""
    service = Service(LiveEngine(engine), engine.tokenizer, MODEL, **options)
    listening = listen("127.0.0.1", 0, has_key=False)
    address = url(listening)
    server = BoundedServer(create_app(service), service.live, listening, drain_seconds=5)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield service, address
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        service.live.close()
