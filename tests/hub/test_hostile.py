"""A hub that means harm, or is broken: nothing lies outside the cache, the token stays, and everything ends."""

import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipo_core.errors import MissingInputError
from pipo_core.hub import listing, replies, transfer
from pipo_core.hub.download import download
from tests.hub import local_hub
from tests.hub.local_hub import LocalHub

NAME = "someone/model"
MODEL = {"config.json": b'{"model_type": "qwen3_5"}', "model.safetensors": bytes(range(256)) * 2000, "LICENSE": b"x"}
Route = Callable[[Any, str], None]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, hub: LocalHub) -> Callable[[str, Route], None]:
    """Have requests whose path begins with a prefix answered by a function instead."""
    hub.add(NAME, MODEL)
    plain = local_hub._Handler._route

    def install(prefix: str, route: Route) -> None:
        def routed(self: Any, path: str) -> None:
            (route if path.startswith(prefix) else plain)(self, path)

        monkeypatch.setattr(local_hub._Handler, "_route", routed)

    return install


def refused(words: str) -> str:
    with pytest.raises(MissingInputError, match=words) as caught:
        download([NAME])
    assert caught.value.message.isprintable()
    return caught.value.message


def body(content: bytes, **headers: str) -> Route:
    return lambda handler, _: handler._send(
        200, content, {key.replace("_", "-"): text for key, text in headers.items()}
    )


def test_headers_of_a_reply_name_no_file(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub names contents after the ETag of a HEAD request, whatever it says."""
    hub.add(NAME, MODEL)
    send = local_hub._Handler._content

    def content(self: Any, path: str, body: bytes, headers: dict[str, str]) -> None:
        send(self, path, body, {**headers, "ETag": '"../../../../outside"', "X-Linked-ETag": '"../../outside"'})

    monkeypatch.setattr(local_hub._Handler, "_content", content)
    (item,) = download([NAME])
    assert item.checked
    assert {request.method for request in hub.requests} == {"GET"}
    assert {path.name for path in tmp_path.iterdir()} == {"hub"}
    cache = tmp_path / "hub"
    for name, expected in MODEL.items():
        assert (item.path / name).read_bytes() == expected
        assert (item.path / name).resolve().is_relative_to(cache)


def test_a_folder_of_the_snapshot_that_leads_out_of_it_is_not_followed(hub: LocalHub, tmp_path: Path) -> None:
    made = hub.add(NAME, {**MODEL, "sub/notes.txt": b"x"})
    outside = tmp_path / "outside"
    outside.mkdir()
    snapshot = tmp_path / "hub" / "models--someone--model" / "snapshots" / made.commit
    snapshot.mkdir(parents=True)
    (snapshot / "sub").symlink_to(outside)
    with pytest.raises(Exception, match="leads out of it"):
        download([NAME])
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_mirror_that_redirects_everything_serves_and_gets_no_token(
    answer: Callable[[str, Route], None], hub: LocalHub, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    plain = local_hub._Handler._route

    def route(handler: Any, path: str) -> None:
        if path.startswith("cdn/") or not handler.headers.get("Host", "").startswith("127.0.0.1"):
            plain(handler, path)
        else:
            handler._send(status, b"", {"Location": f"{hub.elsewhere}/{path}"})

    answer("", route)
    (item,) = download([NAME])
    assert item.checked
    assert (item.path / "config.json").read_bytes() == MODEL["config.json"]


def test_the_next_page_is_asked_of_the_hub_alone(
    answer: Callable[[str, Route], None], hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    link = f'<{hub.elsewhere}/api/models/{NAME}/tree/x?cursor=1>; rel="next"'
    answer(f"api/models/{NAME}/tree", body(b"[]", Link=link))
    refused("does not answer like a hub: its listing goes on at another host")
    assert len(hub.requests) == 2


@pytest.mark.parametrize("link", ["<http://[::1>", "<http://a:b/>", "<\\>", "<http://\x7f/>"])
def test_a_link_that_is_no_address_is_said_in_a_line(answer: Callable[[str, Route], None], link: str) -> None:
    answer(f"api/models/{NAME}/tree", body(b"[]", Link=f'{link}; rel="next"'))
    refused("does not answer like a hub|has no weights|is empty")


def test_a_listing_of_several_pages_is_read_whole(answer: Callable[[str, Route], None], hub: LocalHub) -> None:
    rows = hub.repos[f"models/{NAME}"][0].rows()
    link = f'<{hub.endpoint}/api/models/{NAME}/tree/next>; rel="next"'

    def route(handler: Any, path: str) -> None:
        last = path.endswith("/next")
        handler._send(200, json.dumps(rows[1:] if last else rows[:1]).encode(), {} if last else {"Link": link})

    answer(f"api/models/{NAME}/tree", route)
    assert {file.name for file in download([NAME])[0].files} == {*MODEL}


def test_pages_without_end_end(
    answer: Callable[[str, Route], None], hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_MOST_PAGES", 5)
    link = f'<{hub.endpoint}/api/models/{NAME}/tree/again>; rel="next"'
    answer(f"api/models/{NAME}/tree", body(b"[]", Link=link))
    refused("its listing has more than 5 pages")
    assert len(hub.requests) == 6


def sending(step: bytes, pause: float = 0.0, status: int = 200) -> Route:
    """Answer with `step` again and again, until the hub closes."""

    def route(handler: Any, _: str) -> None:
        handler.send_response(status)
        handler.end_headers()
        handler.close_connection = True
        while not handler.hub.closing.is_set():
            handler.wfile.write(step)
            time.sleep(pause)

    return route


@pytest.mark.parametrize("reply", ["endless", "a bomb", "dripping", "an endless error"])
def test_replies_without_end_end(
    answer: Callable[[str, Route], None], monkeypatch: pytest.MonkeyPatch, reply: str
) -> None:
    monkeypatch.setattr(replies, "_MOST_BYTES", 1 << 20)
    monkeypatch.setattr(replies, "_MOST_SECONDS", 0.5)
    bomb = gzip.compress(b" " * (50 << 20))

    route = {
        "endless": sending(b" " * 65536),
        "a bomb": body(bomb, Content_Encoding="gzip"),
        "dripping": sending(b"[", pause=0.05),
        "an endless error": sending(b"x" * 65536, status=500),
    }[reply]
    answer(f"api/models/{NAME}", route)
    began = time.monotonic()
    refused("status 500" if "error" in reply else "does not answer like a hub: a reply is longer")
    assert time.monotonic() - began < 20


def test_a_retry_after_of_hours_is_not_waited_for(
    answer: Callable[[str, Route], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("pipo_core.hub.replies.time.sleep", waited.append)
    answer(f"api/models/{NAME}", lambda handler, _: handler._send(429, b"", {"Retry-After": "86400"}))
    refused("the hub answers with status 429")
    assert waited == [8.0] * 3


def test_a_file_that_comes_too_slowly_is_given_up(
    answer: Callable[[str, Route], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_SLOW_SECONDS", 0.2)
    monkeypatch.setattr("pipo_core.hub.transfer.threading.Event.wait", lambda self, timeout=None: self.is_set())
    monkeypatch.setattr(transfer, "TRIES", 2)
    answer("cdn/", sending(b"[", pause=0.05))
    refused("the hub sends .* too slowly")


@pytest.mark.parametrize(
    "reply",
    [b"[]", b'{"sha": 3}', b'{"sha": "main"}', b'{"sha": null}', b"<html>", b"", b"[" * 100_000, b"\xff", b'"x"'],
)
def test_what_is_no_repository_is_said_in_a_line(answer: Callable[[str, Route], None], reply: bytes) -> None:
    answer(f"api/models/{NAME}", body(reply))
    refused("names no commit|does not answer like a hub")


@pytest.mark.parametrize(
    "row",
    [
        *(3, None, [], {}, {"type": "file"}, {"type": 3, "path": "a"}),
        {"type": "file", "path": 3, "size": 1, "oid": "0" * 40},
        {"type": "file", "path": "a.json", "size": "1", "oid": "0" * 40},
        {"type": "file", "path": "a.json", "size": True, "oid": "0" * 40},
        {"type": "file", "path": "a.json", "size": 1, "oid": None},
        {"type": "file", "path": "a.json", "size": 1, "oid": "0" * 40, "lfs": []},
        {"type": "file", "path": "a.json", "size": 1, "oid": "0" * 40, "lfs": {"oid": 7}},
        {"type": "file", "path": "a\x1b[31m.json", "size": 1, "oid": "0" * 40},
        {"type": "file", "path": "a\n.json", "size": 1, "oid": "0" * 40},
        {"type": "file", "path": "./a.json", "size": 1, "oid": "0" * 40},
        {"type": "file", "path": "a.json", "size": 1, "oid": "../../etc"},
        {"type": "file", "path": "a.json", "size": -1, "oid": "0" * 40},
        {"type": "file", "path": "a" * 300 + ".json", "size": 1, "oid": "0" * 40},
        {"type": "file", "path": "config.json", "size": 1, "oid": "0" * 40},
    ],
)
def test_an_entry_that_is_no_file_is_said_in_a_line(
    answer: Callable[[str, Route], None], hub: LocalHub, tmp_path: Path, row: Any
) -> None:
    rows = [*hub.repos[f"models/{NAME}"][0].rows(), row]
    answer(f"api/models/{NAME}/tree", body(json.dumps(rows).encode()))
    refused("does not answer like a hub|cannot be stored safely")
    assert not (tmp_path / "hub").exists()
