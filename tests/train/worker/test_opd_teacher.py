"""The teacher reads the text without PADs."""

from pathlib import Path

import torch

from pipo_core.model import load_checkpoint
from pipo_core.train.worker.opd_examples import collate_rollouts
from pipo_core.train.worker.opd_teacher import Teacher
from tests.train.trainings import (
    PAD,
    some_rollouts,
)


def test_the_teacher_reads_the_text_up_to_each_position(teacher: Path) -> None:
    batch = collate_rollouts(some_rollouts(), PAD)
    reader = Teacher(
        teacher, dtype=torch.float32, student_device=torch.device("cpu"), device=torch.device("cpu"), offload=False
    )
    hidden = reader.read(batch.input_ids, batch.pads)
    assert not hidden.is_inference()
    assert not hidden.requires_grad
    model = load_checkpoint(teacher)
    with torch.no_grad():
        for row in range(2):
            for place in range(batch.input_ids.shape[1]):
                upto = ~batch.pads[row, : place + 1]
                text = batch.input_ids[row, : place + 1][upto][None]
                logits = model.forward_regular(text)[0, -1]
                assert (hidden[row, place] @ reader.head.T - logits).abs().max() < 1e-4
