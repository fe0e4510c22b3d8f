from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from huggingface_hub import errors

from pipo_core.errors import MissingInputError, UsageError
from pipo_core.hub.download import download


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Stands in for the hub: keeps what was asked and answers with a folder."""
    calls: list[dict[str, Any]] = []
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sft_all.jsonl").write_text("{}\n")

    def snapshot_download(repo: str, **options: Any) -> Any:
        calls.append({"repo": repo, **options})
        if options["dry_run"]:
            return [
                SimpleNamespace(file_size=5, will_download=True),
                SimpleNamespace(file_size=7, will_download=False),
                SimpleNamespace(file_size=None, will_download=True),
            ]
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return calls


def test_models_come_without_pickles(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    item = download("qwen3.5-4b", revision="main")[0]
    assert item.path == tmp_path
    assert item.source == "https://huggingface.co/Qwen/Qwen3.5-4B"
    call = asked[0]
    assert (call["repo"], call["repo_type"], call["revision"]) == ("Qwen/Qwen3.5-4B", "model", "main")
    assert "*.safetensors" in call["allow_patterns"]
    assert not any(pattern.endswith((".bin", ".pt", "/*")) or pattern == "*" for pattern in call["allow_patterns"])


def test_data_files_are_found_in_their_repository(asked: list[dict[str, Any]], tmp_path: Path) -> None:
    item = download("pipo-sft-data", to=tmp_path / "here")[0]
    assert item.path == tmp_path / "data" / "sft_all.jsonl"
    assert asked[0]["repo_type"] == "dataset"
    assert asked[0]["local_dir"] == tmp_path / "here"
    with pytest.raises(MissingInputError, match="no longer has"):
        download("pipo-opd-data")


def test_hub_ids_and_dry_run(asked: list[dict[str, Any]]) -> None:
    item = download("some/thing", kind="data", dry_run=True)[0]
    assert (item.bytes, item.path) == (5, None)
    assert (asked[0]["repo_type"], asked[0]["allow_patterns"]) == ("dataset", None)
    for name in ("nothing", "a/b/c", "a/", ""):
        with pytest.raises(MissingInputError, match="neither a catalog name nor a hub id"):
            download(name)


def _response(status: int) -> httpx.Response:
    return httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/api/models/a/b"))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.GatedRepoError("no", response=_response(403)), "is gated"),
        (errors.RepositoryNotFoundError("no", response=_response(404)), "no repository"),
        (errors.RevisionNotFoundError("no", response=_response(404)), "no such revision"),
        (errors.HfHubHTTPError("no", response=_response(500)), "cannot be reached"),
        (errors.LocalEntryNotFoundError("no"), "cannot be reached"),
        (errors.OfflineModeIsEnabled("no"), "cannot be reached"),
        (errors.DryRunError("no"), "cannot be reached"),
        (errors.HFValidationError("no"), "not a hub id"),
        (httpx.ConnectError("no"), "broke off"),
        (TimeoutError("no"), "broke off"),
    ],
)
def test_what_goes_wrong_is_a_missing_input(monkeypatch: pytest.MonkeyPatch, error: Exception, text: str) -> None:
    def fails(*args: object, **options: object) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fails)
    with pytest.raises(MissingInputError, match=text):
        download("qwen3.5-4b")


def test_bundled_models_are_copied_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("tiny-student", "tiny-teacher"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"1234")
    monkeypatch.setattr("pipo_core.hub.download.bundled_model", lambda name: tmp_path / name)
    items = download("tiny", to=tmp_path / "to", dry_run=True)
    assert [item.bytes for item in items] == [4, 4]
    assert not (tmp_path / "to").exists()
    download("tiny", to=tmp_path / "to")
    assert (tmp_path / "to" / "tiny-teacher" / "model.safetensors").read_bytes() == b"1234"
    with pytest.raises(UsageError, match="no revisions"):
        download("tiny-student", revision="x")
