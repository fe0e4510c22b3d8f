import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipo_core.errors import MissingInputError
from pipo_core.files import append_jsonl, read_jsonl, read_log


def test_jsonl_appends_and_skips_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, [{"a": 1}, {"b": "line\nbreak\u2028"}])
    append_jsonl(path, [])
    append_jsonl(path, [{"c": None}])
    assert read_jsonl(path) == [{"a": 1}, {"b": "line\nbreak\u2028"}, {"c": None}]
    path.write_bytes(b'\n{"a": 1}\r\n\n{"b": 2}')
    assert read_jsonl(path) == [{"a": 1}, {"b": 2}], "a hand-written file may end without a newline"


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text()), min_size=1), st.data())
def test_jsonl_survives_a_kill_at_any_byte(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, int | str]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "rows.jsonl"
    append_jsonl(path, rows)
    raw = path.read_bytes()
    cut = data.draw(st.integers(0, len(raw)))
    path.write_bytes(raw[:cut])
    kept = read_jsonl(path)
    assert kept == rows[: len(kept)]
    assert len(kept) >= raw[:cut].count(b"\n")
    append_jsonl(path, rows[len(kept) :])
    assert read_jsonl(path) == rows


def test_jsonl_cuts_off_a_long_half_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"b": "' + "x" * 200_000)
    append_jsonl(path, [{"c": 3}])
    assert read_jsonl(path) == [{"a": 1}, {"c": 3}]


@pytest.mark.parametrize("line", [b"{broken", b"[1]", b"\xff"])
def test_jsonl_names_the_broken_line(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"b": 2}\n')
    with pytest.raises(MissingInputError, match=r"rows\.jsonl:2: not a JSON object"):
        read_jsonl(path)


def test_json_lines_are_utf8_json(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, [{"text": "×→"}])
    assert "×→" in path.read_text(encoding="utf-8")
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found == {"text": "×→", "crc": found["crc"]}
    assert read_jsonl(path) == [{"text": "×→"}]


ROWS: list[dict[str, Any]] = [
    {"step": 3, "loss": 0.25},
    {},
    {"text": "×\ud800 } \n", "deep": [{"crc": "x"}]},
    {"step": 4},
]


def test_any_flipped_bit_of_a_line_is_found(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, ROWS)
    assert read_log(path) == (ROWS, [])
    whole = path.read_bytes()
    first = whole.index(b"\n")
    for place in range(first):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :])
            rows, damaged = read_log(path)
            if rows[: len(ROWS)] != ROWS:  # white space at the end of a line means nothing
                assert damaged[0] == 1
                assert rows[-3:] == ROWS[1:]
