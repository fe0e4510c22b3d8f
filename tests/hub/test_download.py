import errno
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, constants

from pipo_core.errors import MachineError, MissingInputError, UsageError
from pipo_core.hub.cache import find_cached
from pipo_core.hub.download import download
from pipo_core.recipes.catalog import find_name
from tests.hub.local_hub import LocalHub
from tests.hub.samples import WANTED, RecordingReporter, sharded_model

QWEN = "Qwen/Qwen3.5-4B"
DATA = {"data/sft_all.jsonl": b'{"messages": []}\n' * 9000, "data/rl_0.5.jsonl": b"{}\n", "README.md": b"data\n"}


def blobs(tmp_path: Path) -> list[str]:
    return sorted(file.name for file in tmp_path.glob("hub/*/blobs/*"))


def test_a_sharded_model_comes_whole_under_its_short_name(hub: LocalHub, recording: RecordingReporter) -> None:
    files = sharded_model()
    repo = hub.add(QWEN, files)
    [item] = download(["qwen3.5-4b"], reporter=recording)
    assert {path.name: path.read_bytes() for path in item.path.iterdir()} == {name: files[name] for name in WANTED}
    assert (item.name, item.source) == ("qwen3.5-4b", f"{hub.endpoint}/{QWEN}")
    assert (item.commit, item.checked) == (repo.commit, True)
    total = sum(len(files[name]) for name in WANTED)
    assert item.bytes == item.missing == total == sum(request.sent for request in hub.contents())
    assert [(bar.total, bar.unit, bar.stood[-1]) for bar in recording.bars] == [(total, "byte", total)]
    # The cache is huggingface_hub's own in every respect: it finds all files and all checksums.
    named = find_name(QWEN, "model")
    assert named is not None
    assert find_cached(named) == item.path
    verdict = HfApi().verify_repo_checksums(QWEN)
    assert (verdict.checked_count, verdict.mismatches, verdict.extra_paths) == (len(WANTED), [], [])
    assert set(verdict.missing_paths) == files.keys() - WANTED


def test_what_is_there_is_checked_and_not_fetched_again(hub: LocalHub, recording: RecordingReporter) -> None:
    hub.add(QWEN, sharded_model())
    download(["qwen3.5-4b"])
    hub.requests.clear()
    [item] = download([QWEN], reporter=recording)
    assert hub.contents() == []
    assert (item.missing, item.checked, recording.said) == (0, True, [])
    assert [(bar.title, bar.stood[-1]) for bar in recording.bars] == [(f"{QWEN}: checking", item.bytes)]


def test_data_is_one_file_of_its_repository(hub: LocalHub) -> None:
    hub.add("AlbertTan/PIPO", DATA, "datasets")
    items = download(["pipo-sft-data", "pipo-opd-data"])
    assert [item.path.read_bytes() for item in items] == [DATA["data/sft_all.jsonl"], DATA["data/rl_0.5.jsonl"]]
    assert not (items[0].path.parent.parent / "README.md").exists()
    [whole] = download(["AlbertTan/PIPO"], kind="data")
    assert {path.relative_to(whole.path).as_posix() for path in whole.path.rglob("*") if path.is_file()} == DATA.keys()
    assert whole.missing == len(DATA["README.md"])


def test_data_may_be_the_numbered_files_of_a_split(hub: LocalHub) -> None:
    parts = {f"verifiable-prompts/train-0000{number}-of-00003.parquet": bytes([number]) * 9 for number in range(3)}
    others = {"verifiable-prompts/test-00000-of-00001.parquet": b"t", "data/train-00000-of-00001.parquet": b"d"}
    hub.add("open-r1/codeforces", {**parts, **others, "README.md": b"r"}, "datasets")
    [item] = download(["codeforces"])
    assert item.path.name == "verifiable-prompts"
    assert {f"verifiable-prompts/{path.name}": path.read_bytes() for path in item.path.iterdir()} == parts
    named = find_name("codeforces", "data")
    assert named is not None
    assert find_cached(named) == item.path
    (item.path / "train-00001-of-00003.parquet").unlink()
    assert find_cached(named) is None
    [again] = download(["codeforces"])
    assert find_cached(named) == again.path


def test_revisions_are_branches_tags_and_commits(hub: LocalHub) -> None:
    old = hub.add("a/b", {"config.json": b"old", "x.safetensors": b"1"}, refs={"v1", "refs/pr/2"})
    new = hub.add("a/b", {"config.json": b"new", "x.safetensors": b"1"})
    items = download(["a/b", "a/b@v1", "a/b@refs/pr/2", f"a/b@{old.commit}"])
    assert [item.commit for item in items] == [new.commit, *[old.commit] * 3]
    assert [(item.path / "config.json").read_text() for item in items] == ["new", "old", "old", "old"]
    for item in items:
        named = find_name(item.name, "model")
        assert named is not None
        assert find_cached(named) == item.path
    half = find_name("a/b@refs", "model")
    assert half is not None
    assert find_cached(half) is None
    with pytest.raises(MissingInputError, match=r"a/b has no revision abc123") as caught:
        download(["a/b@abc123"])
    assert "40 digits" in (caught.value.hint or "")


def test_the_adapters_say_how_to_merge_them(hub: LocalHub) -> None:
    """A distillation's adapter stands on a merged SFT model, which is not there yet: the SFT adapter comes first."""
    folders = {"outputs/Qwen3.5-4B/opd/checkpoint-9": "outputs/Qwen3.5-4B/sft-merged"}
    folders["outputs/Qwen3.5-4B/sft/checkpoint-9"] = "Qwen/Qwen3.5-4B"
    files = {"other.json": b"{}"}
    for folder, base in folders.items():
        files[f"{folder}/adapter_config.json"] = json.dumps({"base_model_name_or_path": base}).encode()
        files[f"{folder}/adapter_model.safetensors"] = b"1"
    hub.add("AlbertTan/PIPO", {**files, f"{folder}/optimizer.pt": b"a pickle"})
    [item] = download(["pipo-adapters"])
    assert item.then == f"pipo merge {item.path}/Qwen3.5-4B/sft/checkpoint-9 --base qwen3.5-4b"
    assert {file.name for file in item.files} == files.keys() - {"other.json"}


def test_a_dry_run_transfers_and_writes_nothing(hub: LocalHub, tmp_path: Path) -> None:
    files = sharded_model()
    hub.add(QWEN, files)
    [item] = download(["qwen3.5-4b"], dry_run=True)
    assert {file.name: file.bytes for file in item.files} == {name: len(files[name]) for name in WANTED}
    assert (item.missing, item.bytes, item.checked) == (item.bytes, sum(len(files[name]) for name in WANTED), False)
    assert hub.contents() == []
    assert not (tmp_path / "hub").exists()


def test_the_same_content_is_transferred_once(hub: LocalHub) -> None:
    hub.add("a/b", {"x.safetensors": b"12345", "y/x.safetensors": b"12345"})
    [item] = download(["a/b"])
    assert item.missing == 5
    assert [path.read_bytes() for path in sorted(item.path.rglob("*.safetensors"))] == [b"12345"] * 2


def test_the_token_goes_to_the_hub_and_no_further(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    hub.add(QWEN, sharded_model())
    download([QWEN])
    tokens = {request.path.startswith("cdn/"): request.token for request in hub.requests}
    assert tokens == {False: "Bearer secret", True: None}


@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors", "config.json"])
def test_a_file_damaged_on_the_way_gets_no_name(hub: LocalHub, tmp_path: Path, name: str) -> None:
    files = sharded_model()
    hub.add(QWEN, files)
    hub.damaged = {name}
    with pytest.raises(MissingInputError, match=f"{name} arrived damaged.*checksum") as caught:
        download(["qwen3.5-4b"])
    assert caught.value.hint == "pipo download qwen3.5-4b"
    assert not list(tmp_path.glob("hub/*/snapshots/*/*"))
    hub.damaged = set()
    [item] = download(["qwen3.5-4b"])
    assert all((item.path / wanted).read_bytes() == files[wanted] for wanted in WANTED)


@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors", "config.json"])
def test_a_file_damaged_on_the_disk_is_named_and_fetched_anew(
    hub: LocalHub, recording: RecordingReporter, name: str
) -> None:
    files = sharded_model()
    hub.add(QWEN, files)
    [item] = download([QWEN])
    place = (item.path / name).resolve()
    place.write_bytes(bytes(len(files[name])))
    hub.requests.clear()
    [mended] = download([QWEN], reporter=recording)
    assert recording.said == [f"{QWEN}: {name} in the cache is damaged and is fetched again"]
    assert (mended.path / name).read_bytes() == files[name]
    assert sum(request.sent for request in hub.contents()) == mended.missing == len(files[name])


@pytest.mark.parametrize(
    "name", ["../evil.json", "x/../../evil.json", "/tmp/evil.json", "x\\..\\evil.json", "C:/evil.json"]
)
def test_a_file_name_that_leaves_its_folder_is_refused(hub: LocalHub, tmp_path: Path, name: str) -> None:
    hub.add("a/b", {"x.safetensors": b"1", name: b"{}"})
    with pytest.raises(MissingInputError, match="cannot be stored safely"):
        download(["a/b"])
    assert hub.contents() == []
    assert not list(tmp_path.rglob("evil.json"))


def test_a_checksum_that_is_a_path_is_refused(hub: LocalHub, tmp_path: Path) -> None:
    hub.add("a/b", {"x.safetensors": b"1"}, digests={"x.safetensors": "../../../evil"})
    with pytest.raises(MissingInputError, match="cannot be stored safely"):
        download(["a/b"])
    assert not list(tmp_path.rglob("evil*"))


def test_pickled_weights_alone_are_no_model(hub: LocalHub) -> None:
    hub.add("a/b", {"config.json": b"{}", "pytorch_model.bin": b"a pickle"})
    with pytest.raises(MissingInputError, match="no weights in safetensors"):
        download(["a/b"])
    hub.add("AlbertTan/PIPO", {"README.md": b""}, "datasets")
    with pytest.raises(MissingInputError, match=r"AlbertTan/PIPO has no data/sft_all\.jsonl"):
        download(["pipo-sft-data"])


def test_what_the_hub_refuses_is_said(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("a/gated", {"x.safetensors": b"1"}, gated=True)
    hub.add("a/b", {"x.safetensors": b"1"})
    hub.add("a/data", {"x.jsonl": b"1"}, "datasets")

    def refusal(name: str) -> tuple[str, str]:
        with pytest.raises(MissingInputError) as caught:
            download([name])
        return caught.value.message, caught.value.hint or ""

    assert refusal("a/gated") == (
        "a/gated: a/gated is gated",
        f"ask for access on {hub.endpoint}/a/gated, then: hf auth login",
    )
    message, hint = refusal("a/data")
    assert message == f"a/data: {hub.endpoint} has no model a/data, or you may not see it"
    assert "pipo download a/data --kind data" in hint
    with monkeypatch.context() as signed_in:
        signed_in.setenv("HF_TOKEN", "expired")
        assert refusal("a/data")[0] == "a/data: the hub rejects the access token"
    # One name that is not there, and nothing is transferred of the others.
    with pytest.raises(MissingInputError, match="no model x/y"):
        download(["a/b", "x/y"])
    assert hub.contents() == []
    for status, advice in ((429, "try again later"), (502, "try again later"), (400, "check the name, HF_ENDPOINT")):
        hub.status = status
        message, hint = refusal("a/b")
        assert message == f"a/b: the hub answers with status {status}"
        assert hint.startswith(advice)
    hub.status = 200  # an empty page: some proxy's
    assert "does not answer like a hub" in refusal("a/b")[0]


def test_without_a_way_to_the_hub_the_cache_must_do(
    hub: LocalHub, recording: RecordingReporter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.add(QWEN, sharded_model())
    [item] = download(["qwen3.5-4b"])
    hub.requests.clear()
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        for dry_run in (False, True):
            [held] = download(["qwen3.5-4b"], reporter=recording, dry_run=dry_run)
            assert (held.path, held.commit, held.bytes) == (item.path, item.commit, item.bytes)
            assert (held.checked, held.missing, held.then) == (False, 0, item.then)
        assert "cannot be reached" in recording.said[0]
        with pytest.raises(MissingInputError, match="HF_HUB_OFFLINE forbids") as caught:
            download(["qwen3.5-9b"])
        assert caught.value.hint == "HF_HUB_OFFLINE=0 pipo download qwen3.5-9b"
        assert hub.requests == []
    hub.status = 503
    assert download(["qwen3.5-4b"])[0].path == item.path
    hub.status = None
    # Half a snapshot is none.
    (item.path / "model-00002-of-00002.safetensors").unlink()
    with monkeypatch.context() as nobody:
        nobody.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(MissingInputError, match=r"127\.0\.0\.1:9 cannot be reached.*refused"):
            download(["qwen3.5-4b"])


def test_what_does_not_fit_is_refused_with_the_figures(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.add(QWEN, sharded_model())
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1_000_000))
    with pytest.raises(MachineError, match=r"the download needs 1\.47 MB and .* has 1\.00 MB free") as caught:
        download([QWEN])
    assert "HF_HOME" in (caught.value.hint or "")
    assert hub.contents() == []
    assert blobs(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "no space is left"), (errno.EROFS, "cannot be written: Read-only file system")]
)
def test_a_disk_that_takes_nothing_is_an_error_of_the_machine(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    hub.add(QWEN, sharded_model())

    def refuse(*args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync" if number == errno.ENOSPC else "pathlib.Path.mkdir", refuse)
    with pytest.raises(MachineError, match=words):
        download([QWEN])


@pytest.mark.parametrize(
    "name",
    ["nothing", "a/b/c", "a/", "/a/b", "", "../x", "a/..", "~/x", "a b/c", "@main", "a/b\n", "a--b/c", "a/b.git"],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(MissingInputError, match="neither a catalog name nor a hub id"):
        download([name])


@pytest.mark.parametrize("name", ["a/b@", "a/b@../x", "qwen3.5-4b@/x", "a/b@x/../y", "a/b@x@y", "a/b@-x", "tiny@x"])
def test_what_is_no_revision_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"(no|not a) revision"):
        download([name])


def test_the_nearest_name_is_offered() -> None:
    with pytest.raises(MissingInputError, match=r"did you mean 'qwen3\.5-4b'"):
        download(["qwen35-4b@main"])
    with pytest.raises(UsageError, match="--to is for the bundled models"):
        download(["qwen3.5-4b"], to=Path("x"))


def test_bundled_models_are_copied_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("tiny-student", "tiny-teacher"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"1234")
    monkeypatch.setattr("pipo_core.hub.download.bundled_model", lambda name: tmp_path / name)
    items = download(["tiny", "tiny-student"], to=tmp_path / "to", dry_run=True)
    assert [(item.bytes, item.missing) for item in items] == [(4, 0), (4, 0)]
    assert not (tmp_path / "to").exists()
    download(["tiny"], to=tmp_path / "to")
    assert (tmp_path / "to" / "tiny-teacher" / "model.safetensors").read_bytes() == b"1234"
