"""Rows are checked before anything starts."""

import json
from pathlib import Path

import pytest

from pipo_core.errors import MissingInputError
from pipo_core.train.rows import check_rows
from tests.train.data_rows import GOOD, conversation, write


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
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, bad: object, complaint: str) -> None:
    file = write(tmp_path / "train.jsonl", GOOD, "", bad if isinstance(bad, str) else json.dumps(bad))
    with pytest.raises(MissingInputError, match=rf"train\.jsonl:3: .*{complaint}"):
        check_rows(file)


def test_rows_are_counted_up_to_the_limit(tmp_path: Path) -> None:
    file = write(tmp_path / "train.jsonl", GOOD, "", GOOD, GOOD)
    assert check_rows(file) == 3
    assert check_rows(file, limit=2) == 2
    with pytest.raises(MissingInputError, match="no rows"):
        check_rows(write(tmp_path / "empty.jsonl"))
    with pytest.raises(MissingInputError, match="cannot be read"):
        check_rows(tmp_path / "absent.jsonl")
