import hashlib
import threading
from pathlib import Path

import pytest

from pipo_core.errors import MissingInputError
from pipo_core.hub import transfer
from pipo_core.hub.download import download
from tests.hub.local_hub import LocalHub
from tests.hub.samples import RecordingReporter, sharded_model

SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between attempts."""
    wait = threading.Event.wait
    monkeypatch.setattr(threading.Event, "wait", lambda event, timeout=None: wait(event, 0.01 if timeout else None))


def partial(tmp_path: Path, content: bytes) -> Path:
    """Where the beginning of a large file is kept."""
    return tmp_path / "hub" / "models--a--b" / "blobs" / f"{hashlib.sha256(content).hexdigest()}.incomplete"


def asked_for(hub: LocalHub, name: str) -> list[tuple[str | None, int]]:
    return [(request.range, request.sent) for request in hub.contents() if request.path.endswith(name)]


@pytest.mark.usefixtures("impatient")
def test_a_lost_connection_is_taken_up_where_it_broke(hub: LocalHub) -> None:
    files = sharded_model()
    hub.add("a/b", files)
    hub.break_after = {SHARD: 400_000}
    [item] = download(["a/b"])
    assert (item.path / SHARD).read_bytes() == files[SHARD]
    assert asked_for(hub, SHARD) == [(None, 400_000), ("bytes=400000-", 400_000), ("bytes=800000-", 100_000)]


@pytest.mark.usefixtures("impatient")
def test_the_next_call_goes_on_from_the_bytes_that_came(
    hub: LocalHub, recording: RecordingReporter, tmp_path: Path
) -> None:
    files = sharded_model()
    hub.add("a/b", files)
    hub.break_after = {SHARD: 0}
    with pytest.raises(MissingInputError, match="cannot be reached"):
        download(["a/b"])
    assert len([request for request in hub.requests if request.path.endswith(SHARD)]) >= transfer.TRIES
    assert partial(tmp_path, files[SHARD]).stat().st_size == 0
    partial(tmp_path, files[SHARD]).write_bytes(files[SHARD][:123_456])
    hub.break_after = {}
    hub.requests.clear()
    [planned] = download(["a/b"], dry_run=True)
    assert {file.name: file.missing for file in planned.files}[SHARD] == len(files[SHARD]) - 123_456
    [item] = download(["a/b"], reporter=recording)
    assert (item.path / SHARD).read_bytes() == files[SHARD]
    assert asked_for(hub, SHARD) == [("bytes=123456-", len(files[SHARD]) - 123_456)]
    assert item.missing == sum(request.sent for request in hub.contents())
    # What was there before does not count as this call's pace.
    assert recording.bars[-1].stood[0] == 123_456
    assert recording.bars[-1].stood[-1] == recording.bars[-1].total


def test_a_server_without_ranges_sends_the_whole_file_again(
    hub: LocalHub, recording: RecordingReporter, tmp_path: Path
) -> None:
    files = sharded_model()
    hub.add("a/b", files)
    hub.ranges = False
    [planned] = download(["a/b"], dry_run=True)
    place = partial(tmp_path, files[SHARD])
    place.parent.mkdir(parents=True)
    place.write_bytes(b"x" * 1000)
    [item] = download(["a/b"], reporter=recording)
    assert (item.path / SHARD).read_bytes() == files[SHARD]
    assert (recording.bars[-1].stood[0], recording.bars[-1].stood[-1]) == (1000, planned.bytes)


@pytest.mark.parametrize("left", [b"x" * 500, b"x" * 900_001])
def test_a_beginning_that_is_not_the_files_does_no_harm(hub: LocalHub, tmp_path: Path, left: bytes) -> None:
    files = sharded_model()
    hub.add("a/b", files)
    place = partial(tmp_path, files[SHARD])
    place.parent.mkdir(parents=True)
    place.write_bytes(left)
    if len(left) < len(files[SHARD]):
        with pytest.raises(MissingInputError, match="arrived damaged"):
            download(["a/b"])
    assert (download(["a/b"])[0].path / SHARD).read_bytes() == files[SHARD]


def test_two_calls_at_once_transfer_each_file_once(hub: LocalHub) -> None:
    files = sharded_model()
    hub.add("a/b", files)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(download(["a/b"])[0].path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 3
    assert (found[0] / SHARD).read_bytes() == files[SHARD]
    assert len(asked_for(hub, SHARD)) == 1
