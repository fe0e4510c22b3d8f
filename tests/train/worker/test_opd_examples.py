"""Distillation's layout: questions, and rollouts in slots."""

import json
from pathlib import Path

import pytest

from pipo_core.data.augment import IGNORED
from pipo_core.errors import MissingInputError
from pipo_core.train.worker.opd_examples import (
    collate_rollouts,
    read_questions,
    without_pads,
)
from tests.tiny import write_rows
from tests.train.trainings import (
    PAD,
    TOKENIZER,
    some_rollouts,
)


def test_a_rollout_is_laid_out_in_slots_with_its_rejected_drafts_as_labels() -> None:
    odd, even = some_rollouts()
    assert odd.input_ids == [1, PAD, 3, PAD, 4, 5, 6, PAD, 8, 9, 258, PAD]
    assert odd.labels == [IGNORED] * 4 + [4, 5, 6, 7, 8, 9, 258, IGNORED]
    assert [place for place, pad in enumerate(odd.pads) if pad] == [3, 7, 11]
    assert even.input_ids == [10, 11, 12, PAD, 14, PAD]
    assert even.pads == [False, False, False, True, False, False], "a sampled end-of-text is not a PAD"


def test_positions_without_pads_are_those_of_a_plain_loop() -> None:
    batch = collate_rollouts(some_rollouts(), PAD)
    text, positions = without_pads(batch.input_ids, batch.pads)
    for row in range(2):
        read: list[int] = []
        for place, (token, pad) in enumerate(zip(batch.input_ids[row].tolist(), batch.pads[row].tolist(), strict=True)):
            if not pad:
                read.append(token)
            assert positions[row, place] == len(read) - 1
        assert text[row, : len(read)].tolist() == read


def test_long_questions_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "train.jsonl", 3)
    long = {"messages": [{"role": "user", "content": "1" * 80}]}
    rows.write_text(json.dumps(long) + "\n" + rows.read_text())
    found = read_questions(rows, TOKENIZER, max_prompt=64, limit=None, progress=lambda number: None)
    assert (len(found), found.dropped, found[0].line) == (3, 1, 2)
    with pytest.raises(MissingInputError, match=r"longer than data\.max_prompt"):
        read_questions(rows, TOKENIZER, max_prompt=4, limit=None, progress=lambda number: None)
