"""Questions of suites: from the hub, and from a file of the web that its checksum tells."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipo_core.errors import MissingInputError
from pipo_core.hub.questions import download_suites, find_questions
from pipo_core.recipes.suites import NamedSuite, find_suites
from tests.hub.local_hub import LocalHub
from tests.hub.test_process import start

CONTENT = b"Record ID,Question\nr0,What?\n"
SUITE = """\
kind: suite
title: Mine
source: {source}
columns: {{question: q, answer: a}}
profiles:
  own: {{prompt: "{{{{ question }}}}", grader: {{kind: boxed}}}}
budget: {{tokens: 16}}
"""


def suite(folder: Path, source: dict[str, Any]) -> NamedSuite:
    path = folder / "own.yaml"
    path.write_text(SUITE.format(source=json.dumps(source)))
    (named,) = find_suites(str(path))
    return named


def of_the_web(folder: Path) -> NamedSuite:
    digest = hashlib.sha256(CONTENT).hexdigest()
    return suite(folder, {"kind": "web", "url": "https://example.org/q/own.csv", "sha256": digest})


def answering(monkeypatch: pytest.MonkeyPatch, content: bytes, status: int = 200) -> None:
    @contextmanager
    def stream(method: str, url: str, **_: Any) -> Iterator[httpx.Response]:
        yield httpx.Response(status, content=content, request=httpx.Request(method, url))

    monkeypatch.setattr("httpx.stream", stream)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path / "cache"


def test_a_file_of_the_web_is_kept_if_its_checksum_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = of_the_web(tmp_path)
    assert find_questions(named) is None
    answering(monkeypatch, CONTENT)
    (planned,) = download_suites([named], dry_run=True)
    assert not planned.path.exists()
    (item,) = download_suites([named])
    assert item.path.read_bytes() == CONTENT
    assert (item.missing, item.checked) == (len(CONTENT), True)
    assert find_questions(named) == item.path
    answering(monkeypatch, b"", 500)
    (again,) = download_suites([named])  # nothing is fetched
    assert again.missing == 0
    item.path.write_bytes(CONTENT + b"r1,Another?\n")  # a damaged file is not taken
    assert find_questions(named) is None


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (CONTENT + b"!", 200, "arrived damaged or was changed"),
        (b"", 404, r"own\.csv cannot be reached"),
        (b"x" * (1 << 20), 200, "is longer than 0 MiB"),
    ],
)
def test_another_file_is_not_kept(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, status: int, words: str
) -> None:
    monkeypatch.setattr("pipo_core.hub.questions._MOST_BYTES", 1000)
    answering(monkeypatch, content, status)
    with pytest.raises(MissingInputError, match=words):
        download_suites([of_the_web(tmp_path)])
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_offline_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingInputError, match="HF_HUB_OFFLINE forbids fetching it") as caught:
        download_suites([of_the_web(tmp_path)])
    assert caught.value.hint == f"HF_HUB_OFFLINE=0 pipo download --suite {tmp_path / 'own.yaml'}"


def test_a_suite_comes_from_the_hub_by_command(hub: LocalHub, tmp_path: Path) -> None:
    hub.add("x/y", {"test.jsonl": b'{"q": "1?", "a": "1"}\n'}, "datasets")
    suite(tmp_path, {"kind": "hub", "repo": "x/y", "revision": "main", "path": "test.jsonl"})
    out, err = (process := start(hub, tmp_path, "--suite", "own.yaml", "--suite", "tiny", "--json")).communicate(
        timeout=60
    )
    assert process.returncode == 0, err
    (item,) = json.loads(out)["items"]
    assert Path(item["path"]).read_bytes() == b'{"q": "1?", "a": "1"}\n'
    assert item["next"] == "pipo eval --suite own.yaml --dry-run"
    assert "tiny: its questions need no download" in err
    out, err = (process := start(hub, tmp_path, "--suite", "onw.yaml")).communicate(timeout=60)
    assert (process.returncode, err.splitlines()[0]) == (3, "pipo: onw.yaml: no such file, and no shipped suite")
