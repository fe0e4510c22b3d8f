"""Rows are checked before anything starts, and read back as they were encoded."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipo_core.data.augment import IGNORED
from pipo_core.errors import MissingInputError
from pipo_core.train.rows import EncodedRows, cache_folder, check_rows, count_rows, encode_rows, rows_folder

GOOD = {"messages": [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "<think>\n2"}]}


def write(file, *rows):
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return file


def conversation(*messages):
    return {"messages": [{"role": role, "content": content} for role, content in messages]}


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ("{", "not JSON"),
        ([1], "messages"),
        ({"message": []}, "messages"),
        ({"messages": ["hello"]}, "role"),
        (conversation(("robot", "hi")), "role"),
        ({"messages": [{"role": "user", "content": 3}]}, "content"),
        (conversation(("assistant", "2")), "no user turn"),
        (conversation(("user", "1+1")), "last turn"),
        (conversation(("user", "1+1"), ("assistant", "<think>\n ")), "empty"),
        (conversation(("user", "1+1"), ("assistant", "")), "empty"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, bad, complaint):
    file = write(tmp_path / "train.jsonl", GOOD, "", bad if isinstance(bad, str) else json.dumps(bad))
    with pytest.raises(MissingInputError, match=rf"train\.jsonl:3: .*{complaint}"):
        check_rows(file)


def test_rows_are_counted_up_to_the_limit(tmp_path):
    file = write(tmp_path / "train.jsonl", GOOD, "", GOOD, GOOD)
    assert check_rows(file) == 3
    assert check_rows(file, limit=2) == 2
    with pytest.raises(MissingInputError, match="no rows"):
        check_rows(write(tmp_path / "empty.jsonl"))
    with pytest.raises(MissingInputError, match="cannot be read"):
        check_rows(tmp_path / "absent.jsonl")


def encode(row):
    """Tokens are the answer's characters; the first one has no label."""
    ids = [ord(char) for char in row["messages"][1]["content"]]
    return {"input_ids": ids, "labels": [IGNORED, *ids[1:]]}


def encoded(file, folder, *, max_length=100, limit=None):
    calls = []
    encode_rows(file, folder, encode=encode, max_length=max_length, limit=limit, progress=calls.append)
    return calls


def test_rows_come_back_as_they_were_encoded(tmp_path):
    answers = ["abc", "defgh" * 30, "ij"]
    file = write(tmp_path / "train.jsonl", *(conversation(("user", "?"), ("assistant", text)) for text in answers))
    assert encoded(file, tmp_path / "rows") == [1, 2, 3]
    rows = EncodedRows(tmp_path / "rows", learn=True)
    assert (len(rows), rows.dropped) == (2, 1)
    assert rows["lengths"] == [3, 2]
    for row, text in zip((rows[0], rows[1]), ("abc", "ij"), strict=True):
        assert row.ids.tolist() == list(map(ord, text))
        assert row.labels.tolist() == [IGNORED, *map(ord, text[1:])]
        assert row.ids.dtype == np.int64
        assert row.learn
    counts = count_rows(tmp_path / "rows")
    assert (counts.rows, counts.dropped, counts.tokens) == (2, 1, 5)
    assert counts.bytes == sum(
        file.stat().st_size for file in (tmp_path / "rows").iterdir() if file.name != "rows.json"
    )


@pytest.mark.parametrize("piece", [1 << 24, 3])
def test_learned_ids_are_counted_most_frequent_first(tmp_path, monkeypatch, piece):
    monkeypatch.setattr("pipo_core.train.rows._COUNTED", piece)
    answers = ["zcab", "zbca", "zaa"]  # the first character has no label
    file = write(tmp_path / "train.jsonl", *(conversation(("user", "?"), ("assistant", text)) for text in answers))
    encoded(file, tmp_path / "rows")
    assert EncodedRows(tmp_path / "rows", learn=True).learned().ids == list(map(ord, "abc"))


def test_a_folder_of_rows_is_named_after_all_that_tokens_depend_on(tmp_path):
    """The same content elsewhere is the same folder; any other content, tokenizer or limit is another one."""
    model = tmp_path / "model"
    model.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"):
        (model / name).write_text("{}")
    file = write(tmp_path / "train.jsonl", GOOD)

    def name(rows=file, folder=model, max_length=9, limit=None):
        return rows_folder(tmp_path, rows, folder, max_length=max_length, limit=limit).name

    first = name()
    moved = shutil.copytree(model, tmp_path / "moved")
    assert name(write(tmp_path / "copy.jsonl", GOOD), moved) == first
    (moved / "config.json").write_text('{"hidden_size": 9}')
    assert name(folder=moved) == first, "a model of another size with the same tokenizer"
    others = [name(max_length=8), name(limit=1), name(write(tmp_path / "two.jsonl", GOOD, GOOD))]
    for changed in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (moved / changed).write_text("[]")
        others.append(name(folder=moved))
    assert len({first, *others}) == 7


def test_encoding_happens_once(tmp_path):
    file = write(tmp_path / "train.jsonl", GOOD, GOOD)
    assert encoded(file, tmp_path / "rows") == [1, 2]
    assert encoded(file, tmp_path / "rows") == []


@pytest.mark.parametrize("damage", ["ids.bin", "labelled.bin", "ends.npy", "rows.json", "record"])
def test_damaged_rows_are_encoded_again(tmp_path, damage):
    file = write(tmp_path / "train.jsonl", GOOD, GOOD)
    folder = tmp_path / "rows"
    encoded(file, folder)
    whole = {item.name: item.read_bytes() for item in folder.iterdir()}
    if damage == "record":
        (folder / "rows.json").write_text("[]")
    else:
        (folder / damage).write_bytes(whole[damage][:-10])
    assert count_rows(folder) is None
    assert encoded(file, folder) == [1, 2]
    assert {item.name: item.read_bytes() for item in folder.iterdir()} == whole


def test_of_two_that_need_the_same_rows_one_encodes_them(tmp_path):
    file = write(tmp_path / "train.jsonl", *[GOOD] * 50)
    script = (
        "import sys, time; from pathlib import Path; from pipo_core.train.rows import encode_rows\n"
        "def encode(row): time.sleep(0.01); return {'input_ids': [1, 2], 'labels': [-100, 2]}\n"
        "done = []\n"
        "encode_rows(Path(sys.argv[1]), Path(sys.argv[2]), encode=encode, max_length=9, limit=None,"
        " progress=done.append)\n"
        "print(len(done))\n"
    )
    command = [sys.executable, "-c", script, str(file), str(tmp_path / "cache" / "rows")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(int(process.communicate()[0]) for process in both) == [0, 50]
    assert len(EncodedRows(tmp_path / "cache" / "rows", learn=True)) == 50


def test_rows_lie_beside_the_runs_or_where_the_recipe_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cache_folder(None, Path("outputs/run/train")) == tmp_path / "outputs" / ".cache" / "rows"
    assert cache_folder("mine", Path("outputs/run/train")) == tmp_path / "mine"


def test_long_files_are_encoded_in_order_on_several_threads(tmp_path):
    rows = [conversation(("user", "?"), ("assistant", f"{index} " + "x" * 50_000)) for index in range(200)]
    file = write(tmp_path / "train.jsonl", *rows)
    assert file.stat().st_size > 8 << 20
    encode_rows(
        file,
        tmp_path / "rows",
        encode=lambda row: {"input_ids": [int(row["messages"][1]["content"].split()[0])], "labels": [IGNORED]},
        max_length=10,
        limit=None,
        progress=lambda done: None,
    )
    assert [int(row.ids[0]) for row in (EncodedRows(tmp_path / "rows", learn=True)[i] for i in range(200))] == list(
        range(200)
    )
