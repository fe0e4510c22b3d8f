"""Distillation: its layout, its loss against a slow loop, and whole trainings of a few steps."""

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from pipo_core.chat import encode_prompt, end_ids
from pipo_core.data.augment import IGNORED
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Request, Slot
from pipo_core.engine.methods import Method, open_method
from pipo_core.engine.torch_engine import TorchEngine
from pipo_core.errors import CheckpointError, MissingInputError, PipoError, UsageError
from pipo_core.files import read_json, read_jsonl
from pipo_core.model import LossWeights, Qwen3_5ForCausalPIPO, Teaching, load_checkpoint, save_checkpoint
from pipo_core.recipes.merge import MergeRecipe
from pipo_core.recipes.opd import DistillRecipe
from pipo_core.train.callbacks import StopRequest
from pipo_core.train.events import EventWriter
from pipo_core.train.launch import command, environment, longest_row, plan
from pipo_core.train.memory import estimate_memory, longest_pass, teacher_bytes
from pipo_core.train.merge import run_merge
from pipo_core.train.opd_rollouts import RolloutMaker
from pipo_core.train.opd_rows import Question, collate_drawn, lay_out, read_questions, without_pads
from pipo_core.train.opd_run import run_distill
from pipo_core.train.opd_teacher import Teacher
from pipo_core.train.worker import Job, train
from tests.tiny import make_model, make_tokenizer, write_rows
from tests.train.test_sft import Listener
from tests.train.test_training import LORA, differing, weights

PAD = 256  # end-of-text of the tests' tokenizer
TOKENIZER = make_tokenizer()


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """A random pair model."""
    return make_model(tmp_path_factory.mktemp("student") / "tiny-student", layout="pipo")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, student):
    """A base model that disagrees with the student: its weights are moved."""
    folder = make_model(tmp_path_factory.mktemp("teacher") / "tiny-teacher")
    model = load_checkpoint(folder)
    torch.manual_seed(7)
    with torch.no_grad():
        model.text_model.embed_tokens.weight.mul_(8).add_(torch.randn_like(model.text_model.embed_tokens.weight) / 8)
    shutil.rmtree(folder)
    return save_checkpoint(model, folder, layout="base", tokenizer_from=folder.parent / "tokenizer")


def distill_recipe(student: Path, teacher: Path, rows: Path, **changes: object) -> DistillRecipe:
    settings = {
        "model": str(student),
        "teacher": str(teacher),
        "seed": 5,
        "data": {"train": str(rows), "max_prompt": 64},
        "rollout": {"slots": 6, "batch": 8, "tau": 0.5},
        "tuning": {"method": "full"},
        "optimizer": {"learning_rate": 1e-3},
        "batch": {"per_device": 2, "accumulation": 2},
        "max_steps": 2,
        "precision": "fp32",
        "save": {"every_steps": 1, "keep": 4},
        "log_every_steps": 1,
        "launch": {"threads": 1},
        **changes,
    }
    return DistillRecipe.model_validate(settings)


def distill_here(settings: DistillRecipe, out: Path) -> list[dict]:
    """Distil in this process and return the events."""
    out.mkdir(parents=True, exist_ok=True)
    heard = io.StringIO()
    stop = StopRequest(out / "stop")
    train(
        Job(settings, out, "test", "tiny-base"), is_first=True, events=EventWriter(heard, on_lost=stop.ask), stop=stop
    )
    return [json.loads(line) for line in heard.getvalue().splitlines()]


# ---------------------------------------------------------------------- layout


def drawn_rows():
    """Rows of different lengths: odd and even prompts, kept, rejected and no drafts, PAD's id as text."""
    return [
        lay_out([1, PAD, 3], [Slot(4, 5, True), Slot(6, 7, False), Slot(8, 9, True), Slot(258, None, False)], PAD),
        lay_out([10, 11], [Slot(12, 13, False), Slot(14, PAD, True)], PAD),
    ]


def test_a_rollout_is_laid_out_in_slots_with_its_rejected_drafts_as_labels():
    odd, even = drawn_rows()
    assert odd.input_ids == [1, PAD, 3, PAD, 4, 5, 6, PAD, 8, 9, 258, PAD]
    assert odd.labels == [IGNORED] * 4 + [4, 5, 6, 7, 8, 9, 258, IGNORED]
    assert [place for place, pad in enumerate(odd.pads) if pad] == [3, 7, 11]
    assert even.input_ids == [10, 11, 12, PAD, 14, PAD]
    assert even.pads == [False, False, False, True, False, False], "a drawn end-of-text is no PAD"


def test_the_teachers_places_are_those_of_a_plain_loop():
    batch = collate_drawn(drawn_rows(), PAD)
    text, places = without_pads(batch.input_ids, batch.pads)
    for row in range(2):
        read: list[int] = []
        for place, (token, pad) in enumerate(zip(batch.input_ids[row].tolist(), batch.pads[row].tolist(), strict=True)):
            if not pad:
                read.append(token)
            assert places[row, place] == len(read) - 1
        assert text[row, : len(read)].tolist() == read


def test_the_teacher_reads_each_places_own_text(teacher):
    batch = collate_drawn(drawn_rows(), PAD)
    reader = Teacher(
        teacher, dtype=torch.float32, student_device=torch.device("cpu"), device=torch.device("cpu"), offload=False
    )
    hidden = reader.read(batch.input_ids, batch.pads)
    assert not hidden.is_inference() and not hidden.requires_grad
    model = load_checkpoint(teacher)
    with torch.no_grad():
        for row in range(2):
            for place in range(batch.input_ids.shape[1]):
                upto = ~batch.pads[row, : place + 1]
                text = batch.input_ids[row, : place + 1][upto][None]
                logits = model.forward_regular(text)[0, -1]
                assert (hidden[row, place] @ reader.head.T - logits).abs().max() < 1e-4


@pytest.mark.parametrize("question", ["1+2", "12+2", "é"], ids=["odd", "even", "bytes"])
def test_training_reads_what_the_rollout_read(student, tmp_path, question):
    """Prompt, ``<think>`` line and parity PAD, token for token: both passes see the same slots."""
    messages = [{"role": "user", "content": question}]
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps({"messages": [*messages, {"role": "assistant", "content": "old"}]}) + "\n")
    (read,) = read_questions(file, TOKENIZER, max_prompt=99, limit=None, progress=lambda number: None)
    assert list(read.prompt_ids) == encode_prompt(TOKENIZER, messages)
    assert TOKENIZER.decode(read.prompt_ids).endswith("<think>\n")

    model = load_checkpoint(student)
    method = open_method("pipo", model, 0.5, draw_all=True)
    engine = TorchEngine(method, TOKENIZER, batch=1)
    request = Request("a", read.prompt_ids, SamplingParams(temperature=0), max_slots=5, record=True)
    (answer,) = engine.generate([request])
    row = lay_out(read.prompt_ids, answer.record, PAD)
    ids = torch.tensor([row.input_ids])
    output = model.forward_pairs(ids)
    begin = len(row.input_ids) // 2 - len(answer.record)
    for number, slot in enumerate(answer.record):
        read_until = begin + number - 1
        assert slot.first == output.backbone_logits[0, read_until].argmax()
        assert slot.draft == output.mtp_logits[0, read_until].argmax(), "rejected or kept"
        assert slot.kept == (output.confidence[0, read_until] >= 0.5)


def test_drawing_rejected_drafts_changes_no_text(student):
    model = load_checkpoint(student)
    made = []
    for draw_all in (False, True):
        engine = TorchEngine(open_method("pipo", model, 0.5005, draw_all=draw_all), TOKENIZER, batch=4)
        sampling = [SamplingParams(seed=seed, presence_penalty=1.5) for seed in range(6)]
        requests = [
            Request(str(i), (1, 2, 3 + i), params, max_slots=9, stop_ids=end_ids(TOKENIZER), record=True)
            for i, params in enumerate(sampling)
        ]
        made.append({c.id: c for c in engine.generate(requests)})
    for name, plain in made[0].items():
        other = made[1][name]
        assert (plain.token_ids, plain.kept, plain.drafts) == (other.token_ids, other.kept, other.drafts)
        assert [slot.kept for slot in plain.record] == [slot.kept for slot in other.record]
    slots = [slot for answer in made[1].values() for slot in answer.record if slot.draft is not None]
    assert 0 < sum(slot.kept for slot in slots) < len(slots)
    assert any(slot.draft != PAD for slot in slots if not slot.kept)


@pytest.mark.parametrize("kept_in_fp32", ["", "compressor"], ids=["all", "new parts"])
def test_weights_that_a_trainer_keeps_in_fp32_answer_in_its_precision(student, teacher, rows, kept_in_fp32):
    """On a GPU training is bf16 arithmetic on fp32 weights: all of them, or those beside frozen bf16 ones."""
    model = load_checkpoint(student, dtype=torch.bfloat16).train()
    for name, weight in model.named_parameters():
        if kept_in_fp32 in name:
            weight.data = weight.data.float()
    maker = RolloutMaker(
        model,
        model,
        TOKENIZER,
        distill_recipe(student, teacher, rows),
        lambda: torch.autocast("cpu", torch.bfloat16),
    )
    questions = [Question(line, (1, 2, line)) for line in (1, 2, 3)]
    answers, figures = maker.answer(questions, 0)
    assert [len(row.input_ids) for row in answers] == [4 + 2 * 6] * 3 and figures.rollouts_finished == 0
    assert model.training
    again = [maker.answer([question], 0)[0][0] for question in questions]
    assert again == answers, "keyed by the question, not by who else is there"
    assert maker.answer(questions, 1)[0] != answers


# ---------------------------------------------------------------------- loss


def test_the_loss_and_its_gradient_are_those_of_a_slow_loop(student, teacher):
    model, other = load_checkpoint(student).double(), load_checkpoint(teacher).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
    rows = drawn_rows()
    batch = collate_drawn(rows, PAD)
    text, places = without_pads(batch.input_ids, batch.pads)
    hidden = other.run_backbone(other.embed(text)).detach()
    hidden = hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[-1]))
    weights = LossWeights(mtp=0.7, confidence=0.3, chunk=2)
    teaching = Teaching(hidden, other.lm_head.weight, "full", 1.5)
    output = model(
        input_ids=batch.input_ids, labels=batch.labels, objective="distill", loss_weights=weights, teaching=teaching
    )
    output.loss.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()

    first, draft, gate = [], [], []
    for row in rows:
        ids = torch.tensor([row.input_ids])
        made = model.forward_pairs(ids)
        for place, label in enumerate(row.labels):
            if label == IGNORED:
                continue
            slot = place // 2 - 1
            before = [t for t, pad in zip(row.input_ids[:place], row.pads[:place], strict=True) if not pad]
            with torch.no_grad():
                t = (other.forward_regular(torch.tensor([before]))[0, -1] / 1.5).log_softmax(-1)
            scores = made.mtp_logits[0, slot] if place % 2 else made.backbone_logits[0, slot]
            s = (scores / 1.5).log_softmax(-1)
            (draft if place % 2 else first).append((s.exp() * (s - t)).sum())
            if place % 2:
                h, m = made.backbone_hidden[0, slot].detach(), made.mtp_hidden[0, slot].detach()
                accepted = torch.minimum(s, t).exp().sum().detach()
                logit = model.confidence_head(h, m)
                gate.append(F.binary_cross_entropy_with_logits(logit, accepted.to(logit.dtype)))
    assert (len(first), len(draft)) == (6, 5)
    parts = [torch.stack(part).mean() for part in (first, draft, gate)]
    expected = parts[0] + 0.7 * parts[1] + 0.3 * parts[2]
    expected.backward()
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert output.backbone_loss.item() == pytest.approx(parts[0].item(), rel=1e-8)
    assert output.mtp_loss.item() == pytest.approx(parts[1].item(), rel=1e-8)
    for name, weight in model.named_parameters():
        assert (gradients[name] - weight.grad).abs().max() < 1e-5 * max(1.0, weight.grad.abs().max()), name


@pytest.mark.parametrize("places", [(), (4,)], ids=["no label", "no draft"])
def test_a_batch_without_labels_gives_zero_gradients_to_everything(student, teacher, places):
    model = load_checkpoint(student)
    ids = torch.randint(0, 256, (2, 10), generator=torch.Generator().manual_seed(0))
    labels = torch.full_like(ids, IGNORED)
    labels[:, list(places)] = ids[:, list(places)]
    teaching = Teaching(torch.randn(2, 10, 32), load_checkpoint(teacher).lm_head.weight.detach())
    output = model(input_ids=ids, labels=labels, objective="distill", teaching=teaching)
    output.loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    still = {name.partition(".")[0] for name, gradient in gradients.items() if not gradient.any()}
    assert {"mtp", "confidence_head"} <= still
    if not places:
        assert output.loss == 0 and not any(gradient.any() for gradient in gradients.values())
    with pytest.raises(ValueError, match="teacher"):
        model(input_ids=ids, labels=labels, objective="distill")


# ---------------------------------------------------------------------- whole trainings


@pytest.mark.parametrize("tuning", [{"method": "full"}, LORA], ids=["full", "lora"])
def test_resuming_equals_never_stopping_and_merges(student, teacher, rows, tmp_path, tuning):
    settings = distill_recipe(student, teacher, rows, tuning=tuning, gradient_checkpointing=True, max_steps=3)
    events = distill_here(settings, tmp_path / "whole")
    logs = [event for event in events if event["event"] == "log"]
    assert [event["step"] for event in logs] == [1, 2, 3]
    assert logs[0]["loss"] == pytest.approx(
        logs[0]["backbone_loss"] + logs[0]["mtp_loss"] + logs[0]["confidence_loss"], rel=1e-4
    )
    for log in logs:
        assert log["backbone_loss"] > 0.01 and log["mtp_loss"] > 0.01
        assert 0 < log["confidence_target_mean"] < 1
        assert 1 <= log["tokens_per_slot"] <= 2 and log["rollout_tokens"] <= 12
        assert log["rollout_share"] + log["teacher_share"] + log["student_share"] == pytest.approx(1, abs=1e-3)

    artifact = "model" if tuning["method"] == "full" else "adapter"
    cut = tmp_path / "cut"
    distill_here(settings, cut)
    shutil.rmtree(cut / artifact)
    shutil.rmtree(cut / "checkpoints" / "checkpoint-3")
    (cut / "checkpoints" / "checkpoint-2" / "complete.json").unlink()
    # Other rows at once, and nothing else of the run, may change.
    again = distill_here(settings.model_copy(update={"rollout": settings.rollout.model_copy(update={"batch": 3})}), cut)
    assert next(event for event in again if event["event"] == "begin")["step"] == 1
    assert differing(weights(tmp_path / "whole" / artifact), weights(cut / artifact)) == []

    merged = tmp_path / "merged"
    merged.mkdir()
    run_merge(MergeRecipe(source=str(tmp_path / "whole")), merged)
    assert read_json(merged / "model" / "config.json")["architectures"] == ["Qwen3_5ForCausalPIPO"]
    assert differing(weights(merged / "model"), weights(student)), "it learned"


def test_a_loss_that_is_no_number_stops_it_and_keeps_the_last_checkpoint(student, teacher, rows, tmp_path, monkeypatch):
    read = Teacher.read
    calls = []

    def failing(self, input_ids, pads):
        calls.append(1)
        hidden = read(self, input_ids, pads)
        return hidden * float("nan") if len(calls) > 2 else hidden

    monkeypatch.setattr(Teacher, "read", failing)
    with pytest.raises(PipoError, match=r"loss is nan at step 2, on lines \d+, \d+ of .*train.jsonl"):
        distill_here(distill_recipe(student, teacher, rows), tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*/complete.json")] == ["complete.json"]
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "checkpoints" / "checkpoint-1").values())


def test_a_gradient_that_is_no_number_never_reaches_the_weights(student, teacher, rows, tmp_path, monkeypatch):
    forward = Qwen3_5ForCausalPIPO.forward

    def poisoned(self, *args, **kwargs):
        output = forward(self, *args, **kwargs)
        output.loss.register_hook(lambda gradient: gradient * float("nan"))
        return output

    monkeypatch.setattr(Qwen3_5ForCausalPIPO, "forward", poisoned)
    with pytest.raises(PipoError, match="gradient is no number at step 1"):
        distill_here(distill_recipe(student, teacher, rows), tmp_path)
    assert not list((tmp_path / "checkpoints").glob("checkpoint-*"))


def test_processes_can_be_traded_for_accumulation(student, teacher, rows, tmp_path):
    """What two processes learn together is what one learns in two passes: the rollouts, and the mean gradient."""
    made = []
    for name, batch, processes in (("deep", {"accumulation": 2}, 1), ("wide", {}, 2)):
        launch = {"threads": 1, "processes": processes}
        settings = distill_recipe(
            student, teacher, rows, batch=batch, launch=launch, max_steps=2, save={"every_steps": 2}
        )
        (tmp_path / name).mkdir()
        run_distill(settings, tmp_path / name)
        made.append(weights(tmp_path / name / "model"))
    before = weights(student)
    for name, one in made[0].items():
        assert (one - made[1][name]).abs().max() < 2e-6, name
    assert max((made[0][name] - before[name]).abs().max().item() for name in before) > 1e-4


def test_an_answer_that_fails_is_told_by_its_line(student, teacher, rows, tmp_path, monkeypatch):
    def broken(self, *args, **kwargs):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(Method, "prefill", broken)
    with pytest.raises(PipoError, match=r"question of line \d+: .*no such kernel"):
        distill_here(distill_recipe(student, teacher, rows), tmp_path)


def test_a_process_distils_and_a_second_call_has_nothing_to_do(student, teacher, rows, tmp_path):
    settings = distill_recipe(student, teacher, rows, max_steps=1, offload=True)
    listener = Listener()
    summary = run_distill(settings, tmp_path, reporter=listener)
    assert (summary["steps"], summary["artifact"], summary["rows"]) == (1, "model", 40)
    assert summary["tokens_per_slot"] >= 1
    assert summary["calibration"]["drafts"] > 0
    assert summary["rollouts_finished"] < 0.9, "a random student seldom ends"
    assert any("answers ended within rollout.slots=6" in line for line in listener.said)
    assert [row["step"] for row in read_jsonl(tmp_path / "metrics.jsonl")] == [1]
    assert run_distill(settings, tmp_path) == summary


# ---------------------------------------------------------------------- what is refused


def test_questions_that_are_too_long_are_told_by_the_key_that_there_is(student, teacher, tmp_path):
    file = tmp_path / "train.jsonl"
    asked = [[{"role": "user", "content": text}] for text in ("1+2", "3+4", "1" * 80)]
    file.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in asked))
    listener = Listener()
    settings = distill_recipe(student, teacher, file, max_steps=1, batch={"per_device": 2})
    assert run_distill(settings, tmp_path / "out", reporter=listener)["dropped_rows"] == 1
    assert any("1 rows are longer than data.max_prompt" in line for line in listener.said)


def test_models_that_do_not_fit_are_refused_before_anything_runs(student, teacher, rows, tmp_path):
    other = shutil.copytree(teacher, tmp_path / "other")
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"!":0', '"☃":0').replace('"!": 0', '"☃": 0'))
    assert (other / "tokenizer.json").read_text() != text
    with pytest.raises(CheckpointError, match="token 0, '!', is absent there"):
        run_distill(distill_recipe(student, other, rows), tmp_path)
    with pytest.raises(CheckpointError, match="no pair model"):
        run_distill(distill_recipe(teacher, teacher, rows), tmp_path)
    with pytest.raises(CheckpointError, match="is a pair model"):
        run_distill(distill_recipe(student, student, rows), tmp_path)
    with pytest.raises(UsageError, match=r"reads up to 512 tokens, and .* makes 664"):
        run_distill(distill_recipe(student, teacher, rows, rollout={"slots": 300}), tmp_path)
    assert not (tmp_path / "job.json").exists()


def test_rows_without_a_question_are_refused_by_their_line(student, teacher, tmp_path):
    rows = write_rows(tmp_path / "train.jsonl", 2)
    rows.write_text(rows.read_text() + '{"messages": [{"role": "assistant", "content": "4"}]}\n')
    with pytest.raises(MissingInputError, match=r"train.jsonl:3: no user turn"):
        run_distill(distill_recipe(student, teacher, rows), tmp_path)
    question = {"role": "user", "content": "1+1"}
    rows.write_text(json.dumps({"messages": [question]}) + "\n")  # an answer is not needed
    found = plan(distill_recipe(student, teacher, rows), tmp_path)
    assert (found["rows"], found["longest_row"]) == (1, 76)


def test_long_questions_are_left_out_and_counted(tmp_path):
    rows = write_rows(tmp_path / "train.jsonl", 3)
    long = {"messages": [{"role": "user", "content": "1" * 80}]}
    rows.write_text(json.dumps(long) + "\n" + rows.read_text())
    found = read_questions(rows, TOKENIZER, max_prompt=64, limit=None, progress=lambda number: None)
    assert (len(found), found.dropped, found[0].line) == (3, 1, 2)
    with pytest.raises(MissingInputError, match=r"longer than data\.max_prompt"):
        read_questions(rows, TOKENIZER, max_prompt=4, limit=None, progress=lambda number: None)


def test_a_teacher_on_a_gpu_of_its_own_starts_under_torchrun_and_is_seen(student, teacher, rows, tmp_path):
    near = distill_recipe(student, teacher, rows)
    far = distill_recipe(student, teacher, rows, teacher_device="cuda:1")
    assert environment(near, {"CUDA_VISIBLE_DEVICES": "2,3"})["CUDA_VISIBLE_DEVICES"] == "2"
    assert "CUDA_VISIBLE_DEVICES" not in environment(far, {"CUDA_VISIBLE_DEVICES": "2,3"})
    assert "torch.distributed.run" not in command(near, tmp_path)
    assert "torch.distributed.run" in command(far, tmp_path)


def test_the_plan_knows_the_longest_row_and_the_teachers_weights(student, teacher, rows):
    settings = distill_recipe(student, teacher, rows)
    assert (longest_row(settings), longest_pass(settings)) == (76, 38)
    model = load_checkpoint(teacher)
    everything = 4 * sum(weight.numel() for weight in model.text_model.parameters())
    lm_head = 4 * model.lm_head.weight.numel()
    assert teacher_bytes(settings, model.config) == (everything, 0), "its LM head is its embedding"
    offloaded = distill_recipe(student, teacher, rows, offload=True)
    assert teacher_bytes(offloaded, model.config) == (everything, lm_head)
    away = distill_recipe(student, teacher, rows, teacher_device="cpu")
    assert teacher_bytes(away, model.config) == (0, lm_head)
    totals = [
        estimate_memory(one, model.config, fast_kernels=False, teacher=model.config).total
        for one in (settings, offloaded, away)
    ]
    assert totals[0] > totals[1] == totals[2]
