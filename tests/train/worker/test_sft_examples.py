"""Examples are tokenized once, and read back as they were encoded."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipo_core.data.augment import IGNORED
from pipo_core.errors import UsageError
from pipo_core.files import FolderLock, lock_of
from pipo_core.train.token_cache import count_examples
from pipo_core.train.worker.sft_examples import EncodedExamples, encode_examples
from tests.train.data_rows import GOOD, conversation, encode_characters, encoded, write


def test_examples_are_read_as_they_were_encoded(tmp_path: Path) -> None:
    answers = ["abc", "defgh" * 30, "ij"]
    file = write(tmp_path / "train.jsonl", *(conversation(("user", "?"), ("assistant", text)) for text in answers))
    assert encoded(file, tmp_path / "rows") == [1, 2, 3]
    rows = EncodedExamples(tmp_path / "rows", augmented=True)
    assert (len(rows), rows.dropped) == (2, 1)
    assert rows["lengths"] == [3, 2]
    for row, text in zip((rows[0], rows[1]), ("abc", "ij"), strict=True):
        assert row.ids.tolist() == list(map(ord, text))
        assert row.labels.tolist() == [IGNORED, *map(ord, text[1:])]
        assert row.ids.dtype == np.int64
        assert row.augmented
    counts = count_examples(tmp_path / "rows")
    assert counts is not None
    assert (counts.examples, counts.dropped, counts.tokens) == (2, 1, 5)
    assert counts.bytes == sum(
        file.stat().st_size for file in (tmp_path / "rows").iterdir() if file.name != "rows.json"
    )


@pytest.mark.parametrize("piece", [1 << 24, 3])
def test_labelled_tokens_are_counted_most_frequent_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr("pipo_core.train.worker.sft_examples._COUNTED_TOKENS", piece)
    answers = ["zcab", "zbca", "zaa"]  # the first character has no label
    file = write(tmp_path / "train.jsonl", *(conversation(("user", "?"), ("assistant", text)) for text in answers))
    encoded(file, tmp_path / "rows")
    assert EncodedExamples(tmp_path / "rows", augmented=True).count_labelled_tokens().ids == list(map(ord, "abc"))


def test_encoding_happens_once(tmp_path: Path) -> None:
    file = write(tmp_path / "train.jsonl", GOOD, GOOD)
    assert encoded(file, tmp_path / "rows") == [1, 2]
    assert encoded(file, tmp_path / "rows") == []


@pytest.mark.parametrize("damage", ["ids.bin", "labelled.bin", "ends.npy", "rows.json", "record"])
def test_damaged_examples_are_encoded_again(tmp_path: Path, damage: str) -> None:
    file = write(tmp_path / "train.jsonl", GOOD, GOOD)
    folder = tmp_path / "rows"
    encoded(file, folder)
    whole = {item.name: item.read_bytes() for item in folder.iterdir()}
    if damage == "record":
        (folder / "rows.json").write_text("[]")
    else:
        (folder / damage).write_bytes(whole[damage][:-10])
    assert count_examples(folder) is None
    assert encoded(file, folder) == [1, 2]
    assert {item.name: item.read_bytes() for item in folder.iterdir()} == whole


@pytest.mark.parametrize("name", ["ids.bin", "labelled.bin", "ends.npy"])
def test_a_flipped_bit_of_the_examples_is_found_and_said(tmp_path: Path, name: str) -> None:
    """The size is that of before."""
    file = write(tmp_path / "train.jsonl", GOOD, GOOD)
    folder = tmp_path / "rows"
    encoded(file, folder)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    said: list[str] = []
    encode_examples(
        file,
        folder,
        encode=encode_characters,
        max_length=100,
        limit=None,
        progress=lambda done: None,
        warn=said.append,
    )
    assert said == [f"the tokenized rows in {folder} are damaged and are made again"]
    assert (folder / name).read_bytes() == whole


def test_waiting_for_another_process_is_said_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipo_core.train.worker.sft_examples._PATIENCE_SECONDS", 0.2)
    file = write(tmp_path / "train.jsonl", GOOD)
    folder = tmp_path / "rows"
    said: list[str] = []
    with FolderLock(lock_of(folder)), pytest.raises(UsageError, match="another pipo process works in"):
        encode_examples(
            file,
            folder,
            encode=encode_characters,
            max_length=100,
            limit=None,
            progress=lambda done: None,
            warn=said.append,
        )
    assert said == [f"another process is tokenizing train.jsonl into {folder}: this one waits for it"]


def test_of_two_processes_that_need_the_same_examples_one_encodes_them(tmp_path: Path) -> None:
    file = write(tmp_path / "train.jsonl", *[GOOD] * 50)
    script = (
        "import sys, time; from pathlib import Path; from pipo_core.train.worker.sft_examples import encode_examples\n"
        "def encode(row): time.sleep(0.01); return {'input_ids': [1, 2], 'labels': [-100, 2]}\n"
        "done = []\n"
        "encode_examples(Path(sys.argv[1]), Path(sys.argv[2]), encode=encode, max_length=9, limit=None,"
        " progress=done.append)\n"
        "print(len(done))\n"
    )
    command = [sys.executable, "-c", script, str(file), str(tmp_path / "cache" / "rows")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(int(process.communicate()[0]) for process in both) == [0, 50]
    assert len(EncodedExamples(tmp_path / "cache" / "rows", augmented=True)) == 50


def test_long_files_are_encoded_in_order_on_several_threads(tmp_path: Path) -> None:
    rows = [conversation(("user", "?"), ("assistant", f"{index} " + "x" * 50_000)) for index in range(200)]
    file = write(tmp_path / "train.jsonl", *rows)
    assert file.stat().st_size > 8 << 20
    encode_examples(
        file,
        tmp_path / "rows",
        encode=lambda row: {"input_ids": [int(row["messages"][1]["content"].split()[0])], "labels": [IGNORED]},
        max_length=10,
        limit=None,
        progress=lambda done: None,
    )
    assert [
        int(row.ids[0]) for row in (EncodedExamples(tmp_path / "rows", augmented=True)[i] for i in range(200))
    ] == list(range(200))
