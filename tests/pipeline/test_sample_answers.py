"""Two answers in the report, with their slots."""

from pathlib import Path
from typing import Any

import pytest

from pipo_core.chat import load_tokenizer
from pipo_core.data.answers import AnswerLog, Key
from pipo_core.evaluate.runner import answers_path
from pipo_core.pipeline.sample_answers import sample_answers, slots_of
from pipo_core.recipes.locate import bundled_model

ARM = {"label": "pipo@0.5", "ckpt": "tiny-student", "tau": 0.5}
TEXT = "First take 5.\nAdd 5 to get 10.\n</think>\n\n\\boxed{10}"


def row(sample: int, counts: list[int] | None, text: str = TEXT) -> dict[str, Any]:
    known = {"problem": "p", "sample": sample, "question": "What is 5+5?", "answer": "10", "finish_reason": "stop"}
    return {**known, "text": text, "tokens": 9, "written": 10, "slot_token_counts": counts}


@pytest.fixture
def log(tmp_path: Path) -> AnswerLog:
    (tmp_path / "answers").mkdir()
    return AnswerLog(answers_path(tmp_path, "tiny", "pipo@0.5"))


def test_a_right_and_a_wrong_answer_are_shown_slot_by_slot(tmp_path: Path, log: AnswerLog) -> None:
    tokenizer = load_tokenizer(bundled_model("tiny-student"))
    count = len(tokenizer(TEXT, add_special_tokens=False).input_ids) + 1
    pairs = [2] * (count // 2) + [1] * (count % 2)
    with log:
        log.add_answer(row(0, [1] * (count + 1)))  # as if another text had been sampled
        log.add_answer(row(1, pairs))
        log.add_answer(row(2, [1] * count))
        for sample, correct in ((0, True), (1, True), (2, False)):
            log.add_verdict(Key("p", sample), correct=correct)
    text = sample_answers(tmp_path, "tiny", ARM)
    assert "What is 5+5? (right)" in text
    assert "What is 5+5? (wrong: it is 10)" in text
    right, wrong = text.split("```")[1::2]
    for block, within in ((right, True), (wrong, False)):
        assert ("·" in block) is within
        assert block.replace("│", "").replace("·", "").replace("↵", "\n").strip() == TEXT
    assert wrong.count("│") == count - 2
    assert right.count("│") == (count - 1 + 1) // 2 - 1


def test_without_slots_or_checkpoint_nothing_is_shown(tmp_path: Path, log: AnswerLog) -> None:
    with log:
        log.add_answer(row(0, None))
        log.add_verdict(Key("p", 0), correct=True)
    assert sample_answers(tmp_path, "tiny", ARM) == ""
    assert sample_answers(tmp_path, "tiny", {**ARM, "ckpt": str(tmp_path / "gone")}) == ""


def test_the_end_token_has_no_place() -> None:
    assert slots_of(["a", "b", "c"], [2, 2]) == [["a", "b"], ["c"]]
    assert slots_of(["a", "b"], [2, 1]) == [["a", "b"]]
