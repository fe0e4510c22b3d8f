from pathlib import Path

import pytest

from pipo_core.errors import MissingInputError
from pipo_core.files import read_json, write_json


def test_json_round_trip_and_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": [1, None, "ü"], "a": 0.5})
    assert read_json(path) == {"b": [1, None, "ü"], "a": 0.5}
    assert path.read_text(encoding="utf-8").index('"b"') < path.read_text(encoding="utf-8").index('"a"')
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, float("nan"))
    with pytest.raises(MissingInputError, match="no such file"):
        read_json(tmp_path / "absent.json")
    with pytest.raises(MissingInputError, match="cannot be read"):
        read_json(tmp_path)
    for broken in (b'{"a": ', b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(broken)
        with pytest.raises(MissingInputError, match="not readable as JSON"):
            read_json(path)
