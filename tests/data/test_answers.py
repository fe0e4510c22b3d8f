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


@pytest.mark.parametrize("change", ["a digit", "the text", "the check", "the newline", "the verdict"])
def test_a_damaged_line_costs_what_it_held_and_no_more(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a.jsonl"
    with AnswerLog(path) as log:
        for sample in range(3):
            log.add_answer({**ROW, "sample": sample})
        log.add_verdict(Key("p", 1), correct=True)
        log.add_verdict(Key("p", 2), correct=True)
    lines = path.read_bytes().splitlines(keepends=True)
    number = 3 if change == "the verdict" else 1
    before, after = {
        "a digit": (b'"written": 4', b'"written": 5'),
        "the text": (b'"text": "4"', b'"text": "7"'),
        "the check": (b'"crc": "', b'"crc": "0'),
        "the newline": (b"}\n", b"}~"),
        "the verdict": (b'"correct": true', b'"correct": false'),
    }[change]
    assert before in lines[number]
    lines[number] = lines[number].replace(before, after)
    damaged = b"".join(lines)
    path.write_bytes(damaged)
    with AnswerLog(path) as log:
        assert log.damaged == [number + 1]
        lost = {"the newline": {1, 2}, "the verdict": set()}.get(change, {1})
        assert {key.sample for key in log.answers} == {0, 1, 2} - lost
        assert [answer.correct for answer in log.answers.values()].count(True) == (1 if lost != {1, 2} else 0)
        log.add_answer({**ROW, "sample": 1})
    assert path.with_name("a.jsonl.damaged").read_bytes() == damaged
    with AnswerLog(path) as log:
        assert (log.damaged, Key("p", 1) in log.answers) == ([], True)


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
    monkeypatch.setattr(answers, "_scan", lambda _: answers._Scan({}, {}, []))
    with pytest.raises(MachineError, match=r"a\.jsonl"), AnswerLog(tmp_path / "a.jsonl") as log:
        log.add_answer(ROW)
