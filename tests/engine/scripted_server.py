"""A server whose every answer is scripted by a test."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any] | None
"""Status and content; a list is a stream of events. None closes the connection without an answer."""


@dataclass
class ScriptedServer:
    """Answers by ``post`` and ``get``, and remembers what it was asked."""

    url: str = ""
    post: Callable[[str, Mapping[str, Any]], Answer] = lambda _, __: (404, {})
    get: Mapping[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    running: int = 0
    most: int = 0


@contextmanager
def scripted(server: ScriptedServer) -> Iterator[ScriptedServer]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.keys.add(self.headers.get("Authorization"))
            self._send(server.get.get(self.path, (404, {})))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.keys.add(self.headers.get("Authorization"))
            with lock:
                server.asked.append((self.path, body))
                server.running += 1
                server.most = max(server.most, server.running)
            try:
                answer = server.post(self.path, body)
            finally:
                with lock:  # before the client has its answer, for it may then ask the next thing
                    server.running -= 1
            self._send(answer)

        def _send(self, answer: Answer) -> None:
            if answer is None:
                self.close_connection = True
                return
            status, content = answer
            events = isinstance(content, list)
            text = content if isinstance(content, str) else json.dumps(content)
            if events:
                text = "".join(f"data: {one if isinstance(one, str) else json.dumps(one)}\n\n" for one in content)
            self.send_response(status)
            self.send_header("Content-Type", "text/event-stream" if events else "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            with suppress(OSError):  # the client may have left
                self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        server.url = f"http://127.0.0.1:{running.server_address[1]}"
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        running.shutdown()
