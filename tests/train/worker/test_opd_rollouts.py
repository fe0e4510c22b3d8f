"""Rollouts: what is trained is what was read, and what was sampled."""

import contextlib
import json
from pathlib import Path

import pytest
import torch

from pipo_core.chat import encode_prompt, end_ids
from pipo_core.data.augment import IGNORED
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Request
from pipo_core.engine.torch_opening import student_engine
from pipo_core.model import load_checkpoint
from pipo_core.train.worker.opd_examples import Question, lay_out_rollout, read_questions
from pipo_core.train.worker.opd_rollouts import RolloutMaker
from pipo_core.train.worker.opd_students import TrainingStudent
from tests.train.trainings import (
    PAD,
    TOKENIZER,
    distill_recipe,
)


@pytest.mark.parametrize("question", ["1+2", "12+2", "é"], ids=["odd", "even", "bytes"])
def test_training_reads_what_the_rollout_read(student: Path, tmp_path: Path, question: str) -> None:
    """Prompt, ``<think>`` line and parity PAD, token for token: rollout and training see the same slots."""
    messages = [{"role": "user", "content": question}]
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps({"messages": [*messages, {"role": "assistant", "content": "old"}]}) + "\n")
    questions = read_questions(file, TOKENIZER, max_prompt=99, limit=None, progress=lambda number: None)
    assert len(questions) == 1
    read = questions[0]
    assert list(read.prompt_ids) == encode_prompt(TOKENIZER, messages)
    assert TOKENIZER.decode(read.prompt_ids).endswith("<think>\n")

    model = load_checkpoint(student)
    engine = student_engine(model, TOKENIZER, tau=0.5, batch=1, max_length=200)
    request = Request("a", read.prompt_ids, SamplingParams(temperature=0), max_slots=5, record=True)
    (answer,) = engine.generate([request])
    assert answer.record is not None
    row = lay_out_rollout(read.prompt_ids, answer.record, PAD)
    ids = torch.tensor([row.input_ids])
    output = model.forward_pairs(ids)
    begin = len(row.input_ids) // 2 - len(answer.record)
    for number, slot in enumerate(answer.record):
        read_until = begin + number - 1
        assert slot.first == output.backbone_logits[0, read_until].argmax()
        assert slot.draft == output.mtp_logits[0, read_until].argmax(), "rejected or kept"
        assert slot.kept == (output.confidence[0, read_until] >= 0.5)


def test_sampling_rejected_drafts_changes_no_text(student: Path) -> None:
    model = load_checkpoint(student)
    made = []
    for sample_rejected in (False, True):
        engine = student_engine(model, TOKENIZER, tau=0.5005, batch=4, max_length=200, sample_rejected=sample_rejected)
        sampling = [SamplingParams(seed=seed, presence_penalty=1.5) for seed in range(6)]
        requests = [
            Request(str(i), (1, 2, 3 + i), params, max_slots=9, stop_ids=end_ids(TOKENIZER), record=True)
            for i, params in enumerate(sampling)
        ]
        made.append({c.id: c for c in engine.generate(requests)})
    for name, plain in made[0].items():
        other = made[1][name]
        assert (plain.token_ids, plain.kept, plain.drafts) == (other.token_ids, other.kept, other.drafts)
        assert [slot.kept for slot in plain.record or ()] == [slot.kept for slot in other.record or ()]
    slots = [slot for answer in made[1].values() for slot in answer.record or () if slot.draft is not None]
    assert 0 < sum(slot.kept for slot in slots) < len(slots)
    assert any(slot.draft != PAD for slot in slots if not slot.kept)


@pytest.mark.parametrize("kept_in_fp32", ["", "compressor"], ids=["all", "new parts"])
def test_weights_that_a_trainer_keeps_in_fp32_answer_in_its_precision(
    student: Path, teacher: Path, rows: Path, kept_in_fp32: str
) -> None:
    """On a GPU training is bf16 arithmetic on fp32 weights: all of them, or those beside frozen bf16 ones."""
    model = load_checkpoint(student, dtype=torch.bfloat16).train()
    for name, weight in model.named_parameters():
        if kept_in_fp32 in name:
            weight.data = weight.data.float()
    settings = distill_recipe(student, teacher, rows)
    answering = TrainingStudent(model, model, TOKENIZER, settings, lambda: torch.autocast("cpu", torch.bfloat16))
    maker = RolloutMaker(answering, TOKENIZER, settings)
    questions = [Question(line, (1, 2, line)) for line in (1, 2, 3)]
    answers, figures = maker.answer(questions, 0)
    assert [len(row.input_ids) for row in answers] == [4 + 2 * 6] * 3
    assert figures.rollouts_finished == 0
    assert model.training
    again = [maker.answer([question], 0)[0][0] for question in questions]
    assert again == answers, "keyed by the question, not by who else is there"
    assert maker.answer(questions, 1)[0] != answers


def test_questions_take_the_thresholds_in_turn(student: Path, teacher: Path, rows: Path) -> None:
    """A question's threshold follows from its line and the step: no other question and no batch changes it."""
    taus = [0.0, 0.5, 1.0]
    settings = distill_recipe(student, teacher, rows, rollout={"slots": 6, "batch": 2, "tau": taus})
    model = load_checkpoint(student)
    answering = TrainingStudent(model, model, TOKENIZER, settings, contextlib.nullcontext)
    maker = RolloutMaker(answering, TOKENIZER, settings)
    questions = [Question(line, (1, 2, line)) for line in range(1, 8)]
    for step in (0, 1):
        answers, _ = maker.answer(questions, step)
        for question, answer in zip(questions, answers, strict=True):
            tau = taus[(step + question.line) % 3]
            alone = settings.model_copy(update={"rollout": settings.rollout.model_copy(update={"tau": tau})})
            if tau < 1:
                single = RolloutMaker(
                    TrainingStudent(model, model, TOKENIZER, alone, contextlib.nullcontext), TOKENIZER, alone
                )
                assert single.answer([question], step)[0] == [answer]
            else:
                assert all(answer.pads[5::2]), "at 1 no draft is kept"
                assert all(label != IGNORED for label in answer.labels[5::2]), "and each is learned from"
