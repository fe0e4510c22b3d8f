from pathlib import Path

import pytest

from pipo_core.errors import MissingInputError
from pipo_core.files import file_fingerprint, fingerprint


def test_fingerprint_ignores_the_order_of_keys_only() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": [1, 2]}) != fingerprint({"a": [2, 1]})
    assert len(fingerprint(None)) == 16


def test_file_fingerprint_sees_names_and_contents_but_not_locks(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_text("1")
    (folder / "sub" / "b").write_text("2")
    first = file_fingerprint(folder)
    (folder / ".lock").write_text("")
    assert file_fingerprint(folder) == first
    (folder / "a").rename(folder / "c")
    renamed = file_fingerprint(folder)
    (folder / "c").write_text("3")
    assert len({first, renamed, file_fingerprint(folder)}) == 3
    assert file_fingerprint(folder / "c") != file_fingerprint(folder / "sub" / "b")
    with pytest.raises(MissingInputError):
        file_fingerprint(tmp_path / "absent")
