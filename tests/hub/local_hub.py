"""A Hugging Face hub on this machine, as far as downloads need one: listings, files, ranges, and chosen faults.

Large files are kept as the real one keeps them: listed with their SHA-256, and fetched by way of another host.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".jsonl", ".bin", "tokenizer.json")
STEP = 1 << 16


@dataclass(frozen=True)
class Request:
    """What was asked and how many bytes of content went back."""

    method: str
    path: str
    range: str | None
    token: str | None
    sent: int


@dataclass
class Repo:
    """A repository's files at one commit, its branches and tags, and its faults."""

    files: dict[str, bytes]
    commit: str
    refs: set[str] = field(default_factory=lambda: {"main"})
    gated: bool = False
    digests: dict[str, str] = field(default_factory=dict)
    """Checksums to list instead of the true ones."""

    def rows(self) -> list[dict[str, Any]]:
        """Return the listing."""
        return [self._row(path, content) for path, content in self.files.items()]

    def _row(self, path: str, content: bytes) -> dict[str, Any]:
        made: dict[str, Any] = {"type": "file", "path": path, "size": len(content)}
        if path.endswith(LARGE):
            oid = self.digests.get(path, hashlib.sha256(content).hexdigest())
            # With the name that another protocol (Xet) knows it by; ours must not be led there.
            lfs = {"oid": oid, "size": len(content), "pointerSize": 134}
            return {**made, "oid": "1" * 40, "xetHash": "2" * 64, "lfs": lfs}
        return {**made, "oid": self.digests.get(path, git_digest(content))}


class LocalHub:
    """The server's repositories (by `models/owner/name`), what it was asked, and what goes wrong with a file.

    `break_after`: bytes of a file's content that each connection brings before it is lost.
    `damaged`: files that arrive with one byte changed. `stalled`: files of which half comes, then nothing more.
    `ranges`: whether a part of a file may be asked for. `status`: what every request is answered with.
    """

    def __init__(self) -> None:
        self.repos: dict[str, list[Repo]] = {}
        self.requests: list[Request] = []
        self.break_after: dict[str, int] = {}
        self.damaged: set[str] = set()
        self.stalled: set[str] = set()
        self.status: int | None = None
        self.ranges = True
        self.closing = threading.Event()
        self.endpoint = self.elsewhere = ""

    def add(self, name: str, files: Mapping[str, bytes], kind: str = "models", **more: Any) -> Repo:
        """Add a commit of a repository; `refs` are what names it beside its digits (`commit`)."""
        made = Repo(dict(files), **{"commit": git_digest(repr((name, sorted(files.items()))).encode()), **more})
        self.repos.setdefault(f"{kind}/{name}", []).append(made)
        return made

    def contents(self) -> list[Request]:
        """Return the requests that brought bytes of files."""
        return [request for request in self.requests if request.sent]

    def find(self, name: str, revision: str) -> Repo | None:
        """Return the commit that a revision means."""
        return next((repo for repo in self.repos[name] if revision in {repo.commit, *repo.refs}), None)


def git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@contextmanager
def serving() -> Iterator[LocalHub]:
    """Yield a hub that runs in a thread."""
    made = LocalHub()

    class Bound(_Handler):
        hub = made

    server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
    server.daemon_threads = True
    port = server.server_address[1]
    # Two names of one machine, so that the client sees two hosts.
    made.endpoint, made.elsewhere = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[LocalHub]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, *args: object) -> None:
        """Keep quiet."""

    def _answer(self) -> None:
        self.sent = 0
        self.wfile.flush()
        path = urlsplit(self.path).path.lstrip("/")
        try:
            self._route(path)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            token = self.headers.get("Authorization")
            self.hub.requests.append(Request(self.command, unquote(path), self.headers.get("Range"), token, self.sent))

    def _route(self, path: str) -> None:
        if self.hub.status is not None:
            self._send(self.hub.status, b"", {})
            return
        if path.startswith("cdn/"):
            _, digest, name = unquote(path).split("/", 2)
            for offered in (each for repos in self.hub.repos.values() for each in repos):
                for content in offered.files.values():
                    if hashlib.sha256(content).hexdigest() == digest:
                        self._content(name, content, {})
                        return
            self._send(404, b"", {})
            return
        api = path.startswith("api/")
        parts = [unquote(part) for part in path.removeprefix("api/").split("/")]
        kind = parts.pop(0) if parts[0] in ("models", "datasets") else "models"
        name, rest = f"{kind}/{'/'.join(parts[:2])}", parts[2:]
        if name not in self.hub.repos:
            self._send(401, b'{"error": "Invalid username or password."}', {})
            return
        repo = self.hub.find(name, rest[1] if len(rest) > 1 else "main")
        if repo is None:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif api and rest[:1] in ([], ["revision"]):
            self._json({"id": name.partition("/")[2], "sha": repo.commit, "siblings": []})
        elif api and rest[0] == "tree":
            self._json([{"type": "directory", "oid": "0" * 40, "path": "x"}, *repo.rows()])
        else:
            self._resolve(repo, "/".join(rest[2:]))

    def _resolve(self, repo: Repo, path: str) -> None:
        if repo.gated:
            self._send(403, b"", {"X-Error-Code": "GatedRepo"})
            return
        if path not in repo.files:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repo.commit})
            return
        content = repo.files[path]
        headers = {"X-Repo-Commit": repo.commit}
        if not path.endswith(LARGE):
            self._content(path, content, {**headers, "ETag": f'"{git_digest(content)}"'})
            return
        digest = hashlib.sha256(content).hexdigest()
        linked = {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{digest}"'}
        self._send(302, b"", {**headers, **linked, "Location": f"{self.hub.elsewhere}/cdn/{digest}/{path}"})

    def _content(self, path: str, content: bytes, headers: dict[str, str]) -> None:
        """Send a file or its end, with whatever goes wrong."""
        if path in self.hub.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        start, size = 0, len(content)
        asked = self.headers.get("Range") if self.hub.ranges else None
        if asked:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            headers = {**headers, "Content-Range": f"bytes {start}-{size - 1}/{size}"}
        self.send_response(206 if asked else 200)
        for key, value in {**headers, "Content-Length": str(size - start)}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        end = min(size, start + self.hub.break_after.get(path, size))
        if path in self.hub.stalled:
            end = min(end, size // 2)
        for place in range(start, end, STEP):
            step = content[place : min(place + STEP, end)]
            self.wfile.write(step)
            self.sent += len(step)
        self.wfile.flush()
        if path in self.hub.stalled:
            self.hub.closing.wait(60)
        self.close_connection = self.close_connection or end < size

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
