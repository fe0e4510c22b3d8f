"""Rows are checked before anything starts, and read back as they were encoded."""

import json

import numpy as np
import pytest

from pipo_core.data.augment import IGNORED
from pipo_core.errors import MissingInputError
from pipo_core.train.rows import EncodedRows, check_rows, encode_rows

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


def encoded(file, folder, *, max_length=100, limit=None, made_from="a"):
    calls = []
    encode_rows(
        file,
        folder,
        encode=encode,
        max_length=max_length,
        limit=limit,
        made_from=made_from,
        progress=calls.append,
    )
    return calls


def test_rows_come_back_as_they_were_encoded(tmp_path):
    answers = ["abc", "defgh" * 30, "ij"]
    file = write(tmp_path / "train.jsonl", *(conversation(("user", "?"), ("assistant", text)) for text in answers))
    assert encoded(file, tmp_path / "rows") == [1, 2, 3]
    rows = EncodedRows(tmp_path / "rows", learn=True)
    assert (len(rows), rows.dropped) == (2, 1)
    for row, text in zip((rows[0], rows[1]), ("abc", "ij"), strict=True):
        assert row.ids.tolist() == list(map(ord, text))
        assert row.labels.tolist() == [IGNORED, *map(ord, text[1:])]
        assert row.ids.dtype == np.int64
        assert row.learn


def test_encoding_happens_once_for_the_same_source(tmp_path):
    file = write(tmp_path / "train.jsonl", GOOD, GOOD)
    assert encoded(file, tmp_path / "rows") == [1, 2]
    assert encoded(file, tmp_path / "rows") == []
    assert encoded(file, tmp_path / "rows", made_from="b", limit=1) == [1]
    assert len(EncodedRows(tmp_path / "rows", learn=False)) == 1


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
        made_from="",
        progress=lambda done: None,
    )
    assert [int(row.ids[0]) for row in (EncodedRows(tmp_path / "rows", learn=True)[i] for i in range(200))] == list(
        range(200)
    )
