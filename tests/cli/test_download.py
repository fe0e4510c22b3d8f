import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipo_core.errors import MissingInputError
from tests.cli.calls import Calls, pipo


def test_download_lists_and_copies(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = Path("bundled").absolute()
    for name in ("tiny-student", "tiny-teacher"):
        (bundled / name).mkdir(parents=True)
        (bundled / name / "config.json").write_text("{}")
    monkeypatch.setattr("pipo_core.hub.download.bundled_model", lambda name: bundled / name)
    assert "qwen3.5-4b" in pipo("download", "--list")[1]
    assert json.loads(pipo("download", "--list", "--json")[1])[0]["from"] == "bundled"
    assert "nothing was downloaded" in pipo("download", "tiny", "--dry-run")[1]
    assert not Path("models").exists()
    assert pipo("download", "tiny")[0] == 0
    assert Path("models/tiny-student/config.json").is_file()
    items = json.loads(pipo("download", "tiny-teacher", "--to", "x", "--json")[1])["items"]
    assert [item["path"] for item in items] == ["x/tiny-teacher"]
    assert pipo("download")[0] == 2
    assert pipo("download", "tyni")[0] == 3


def test_a_download_that_fails_is_exit_code_3(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*args: object, **kwargs: object) -> list[object]:
        raise MissingInputError("the hub cannot be reached", hint="later")

    get: Callable[..., list[object]] = absent
    monkeypatch.setattr("pipo_core.hub.download.download", get)
    code, _, err = pipo("download", "qwen3.5-4b")
    assert (code, err) == (3, "pipo: the hub cannot be reached\n  try: later\n")
