"""What the tests of the sandbox share: the ways to isolate on this machine, and what a hostile program is told."""

import json
import os
import signal
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipo_core.sandbox.isolation import Isolation, ways
from tests.isolation import lacks_isolation

LACKS = lacks_isolation()
WAYS = [] if LACKS else list(ways())


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "anywhere: needs no sandbox")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a sandbox where there can be none; refusing is tested everywhere."""
    for item in items:
        if LACKS and item.path.parent == Path(__file__).parent and item.get_closest_marker("anywhere") is None:
            item.add_marker(pytest.mark.skip(reason=LACKS))


@pytest.fixture(params=WAYS, ids=lambda way: "in-user-namespace" if way.user_namespace else "as-other-user")
def isolation(request: pytest.FixtureRequest) -> Isolation:
    """Each way to isolate that this machine's user may try."""
    way: Isolation = request.param
    return way


def processes_in(namespace: str) -> set[int]:
    """Return the living processes of a process namespace, which is named as `/proc/…/ns/pid` names it."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX" and str((entry / "ns" / "pid").readlink()) == namespace:
                    found.add(int(entry.name))
            except OSError:
                continue
    return found


@dataclass(frozen=True, slots=True)
class Outside:
    """What lies around a sandbox, and what must not happen to it."""

    server: socket.socket
    files: dict[str, str]
    secret: str
    mark: str
    signals: list[int]

    def told(self) -> str:
        """Return the line that a hostile program reads."""
        facts = {"port": self.server.getsockname()[1], "files": list(self.files), "pid": os.getpid()}
        return json.dumps({**facts, "secret": self.secret, "mark": self.mark[::-1]}) + "\n"

    def check(self) -> None:
        """Assert that nothing outside has been touched."""
        assert {name: Path(name).read_text() for name in self.files} == self.files
        assert self.signals == []
        with pytest.raises(BlockingIOError):
            self.server.accept()


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outside]:
    """Files, an open port, a secret in the environment, and ears for signals."""
    secret = f"secret-{uuid.uuid4().hex}"
    monkeypatch.setenv("PIPO_TEST_SECRET", secret)
    files = {str(tmp_path / name): f"{name} of {secret}" for name in ("secret.txt", "answers.jsonl")}
    for name, text in files.items():
        Path(name).write_text(text)
    heard: list[int] = []
    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGXCPU)
    before = {number: signal.signal(number, lambda got, _: heard.append(got)) for number in watched}
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            yield Outside(server, files, secret, f"mark-{uuid.uuid4().hex[:8]}", heard)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
