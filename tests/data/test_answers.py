"""The answer log: what is damaged is said with its line, whatever the damage."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipo_core.data import answers
from pipo_core.data.answers import AnswerLog, Key, read_index
from pipo_core.errors import MachineError, MissingInputError

ROW: dict[str, Any] = {
    **{"problem": "p", "sample": 0, "text": "4", "finish_reason": "stop", "tokens": 3, "written": 4},
    **{"slots": 3, "drafts": 3, "kept": 1, "slot_token_counts": [1, 2, 1], "prompt_tokens": 7},
}
VERDICT = {"problem": "p", "sample": 0, "correct": True, "undecided": False}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    "broken",
    [
        "{",
        "[]",
        "7",
        "null",
        {},
        {**ROW, "tokens": "3"},
        {**ROW, "tokens": -1},
        {**ROW, "written": None, "tokens": True},
        {**ROW, "slot_token_counts": [1, "2"]},
        {**ROW, "slot_token_counts": 5},
        {**ROW, "drafts": "many"},
        {**ROW, "text": 4},
        {**ROW, "correct": "false"},
        {**VERDICT, "correct": "false"},
        {**VERDICT, "correct": 1},
        {**VERDICT, "undecided": "no"},
        {"problem": "p", "correct": True},
        "[" * 100_000,
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, broken: object) -> None:
    path = write(tmp_path / "a.jsonl", ROW, broken, {**ROW, "sample": 1})
    with pytest.raises(MissingInputError, match=r"a\.jsonl:2: neither an answer nor a verdict") as caught:
        read_index(path)
    assert caught.value.hint is not None
    with pytest.raises(MissingInputError), AnswerLog(path):
        pytest.fail("a broken log was opened")


def test_what_an_engine_does_not_report_is_no_damage(tmp_path: Path) -> None:
    unknown = dict.fromkeys(("slots", "drafts", "kept", "slot_token_counts", "prompt_tokens"))
    found = read_index(write(tmp_path / "a.jsonl", {**ROW, **unknown, "correct": None}, VERDICT))
    assert found[Key("p", 0)].solved


def test_a_full_disk_is_told_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        """A file on a full disk: what is buffered cannot be written, at a close neither."""

        def tell(self) -> int:
            return 0

        def write(self, _: bytes) -> int:
            return 0

        def flush(self) -> None:
            raise OSError(28, "No space left on device")

        close = flush

    monkeypatch.setattr(Path, "open", lambda *_: Full())
    monkeypatch.setattr(answers, "append_jsonl", lambda *_: None)
    monkeypatch.setattr(answers, "read_index", lambda _: {})
    with pytest.raises(MachineError, match=r"a\.jsonl"), AnswerLog(tmp_path / "a.jsonl") as log:
        log.add_answer(ROW)
