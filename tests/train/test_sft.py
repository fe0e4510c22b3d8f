"""`run_train` as its users meet it: a process that trains, stops when asked, goes on, and explains its failures."""

import io
import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import pytest

from pipo_core.data.augment import IGNORED
from pipo_core.errors import CheckpointError, Interrupted, MachineError, MissingInputError, PipoError
from pipo_core.files import read_jsonl
from pipo_core.reporting import Progress, SilentReporter
from pipo_core.train import parent, sft
from pipo_core.train.events import EventWriter, as_error, parse_event
from pipo_core.train.rows import encode_rows, rows_folder
from pipo_core.train.sft import run_train
from pipo_core.train.worker import _explained
from tests.tiny import recipe, write_rows
from tests.train.test_training import LORA, differing, train_here, weights


class Listener(SilentReporter):
    """Keeps what it hears and, once a step of the training is reached, does something."""

    def __init__(self, at=None, act=None):
        self.said, self.steps, self.figures, self.reached = [], [], {}, {}
        self._at, self._act = at, act

    def info(self, msg):
        self.said.append(msg)

    def warn(self, msg):
        self.said.append(msg)

    def progress(self, title, total, unit="item"):
        listener = self

        class Bar(Progress):
            def update(self, done, **figures):
                listener.reached[title] = done
                if title != "train":
                    return
                listener.steps.append(done)
                listener.figures.update(figures)
                if listener._at is not None and done >= listener._at:
                    listener._at = None
                    listener._act()

        return Bar(title, total, unit)


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_saves_and_the_same_call_goes_on(base_model, rows, tmp_path):
    data = {"train": str(rows), "max_length": 256, "cache": str(tmp_path / "cache")}
    settings = recipe(base_model, rows, data=data, max_steps=60, save={"every_steps": 1000}, log_every_steps=1)
    out = tmp_path / "stage"
    out.mkdir()
    before = signal.getsignal(signal.SIGINT)
    listener = Listener(at=2, act=press_ctrl_c)
    with pytest.raises(Interrupted, match=r"stopped after step \d+, with a checkpoint") as caught:
        run_train(settings, out, reporter=listener)
    assert "again" in caught.value.hint
    assert listener.reached["tokenize train"] == len(rows.read_text().splitlines())
    assert signal.getsignal(signal.SIGINT) is before
    stopped_at = int(str(caught.value).split("step ")[1].split(",")[0])
    assert 2 <= stopped_at < 60
    assert not (out / "model").exists()
    assert not (out / "stop").exists()
    assert (out / "checkpoints" / f"checkpoint-{stopped_at}" / "complete.json").is_file()
    # A killed run leaves rows behind its last checkpoint; they must not appear twice.
    with (out / "metrics.jsonl").open("a") as metrics:
        metrics.write(json.dumps({"step": stopped_at + 1, "loss": 1.0}) + "\n" + '{"step": 9')

    listener = Listener()
    summary = run_train(settings, out, reporter=listener)
    assert summary["resumed_from_step"] == stopped_at
    assert summary["steps"] == 60
    assert summary["artifact"] == "model"
    assert listener.steps[0] == stopped_at
    assert listener.steps[-1] == 60
    assert listener.figures["tokens_per_second"] > 0
    assert any("goes on" in line for line in listener.said)
    assert [row["step"] for row in read_jsonl(out / "metrics.jsonl")] == list(range(1, 61))

    train_here(settings, tmp_path / "whole")
    assert differing(weights(out / "model"), weights(tmp_path / "whole" / "model")) == []
    # Done is done: the third call starts nothing.
    log_size = (out / "worker.log").stat().st_size
    assert run_train(settings, out) == summary
    assert (out / "worker.log").stat().st_size == log_size


def test_sigterm_is_a_stop_too(base_model, rows, tmp_path):
    data = {"train": str(rows), "max_length": 256, "cache": str(tmp_path / "cache")}
    settings = recipe(base_model, rows, data=data, max_steps=60, save={"every_steps": 1000})
    out = tmp_path / "stage"
    out.mkdir()
    before = signal.getsignal(signal.SIGTERM)
    listener = Listener(at=2, act=lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match=r"stopped after step \d+, with a checkpoint"):
        run_train(settings, out, reporter=listener)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_a_save_that_fails_after_ctrl_c_is_an_error_and_no_clean_stop(base_model, rows, tmp_path):
    data = {"train": str(rows), "max_length": 256, "cache": str(tmp_path / "cache")}
    settings = recipe(base_model, rows, data=data, max_steps=60, save={"every_steps": 1000})
    out = tmp_path / "stage"
    out.mkdir()

    def press_when_nothing_can_be_saved():
        (out / "checkpoints").mkdir(exist_ok=True)
        for step in range(1, 61):
            (out / "checkpoints" / f"checkpoint-{step}").write_text("in the way")
        press_ctrl_c()

    with pytest.raises(PipoError) as caught:
        run_train(settings, out, reporter=Listener(at=2, act=press_when_nothing_can_be_saved))
    assert not isinstance(caught.value, Interrupted)
    assert "checkpoint-" in str(caught.value)


def test_a_damaged_model_is_named(base_model, rows, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(base_model, broken)
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(CheckpointError, match="damaged or incomplete"):
        train_here(recipe(broken, rows), tmp_path / "out")
    assert not (tmp_path / "out" / "model").exists()


@pytest.mark.parametrize("tuning", [{"method": "full"}, {**LORA, "dropout": 0.0}], ids=["full", "lora"])
def test_processes_train_as_one(base_model, tmp_path, tuning):
    """Two processes do what one does that accumulates two passes, whatever the passes hold.

    Rows differ in length, so the ranks' means are over different numbers of positions; half of them have no labelled
    draft (every slot holds a PAD), and one has no label at all.
    """
    rows = write_rows(tmp_path / "train.jsonl", 6)
    rng = random.Random(0)
    lengths = [30, 17, 24, 41, 20, 33]
    made = iter(
        {"input_ids": ids, "labels": [IGNORED] * len(ids) if index == 3 else [IGNORED] * 7 + ids[7:]}
        for index, ids in enumerate([rng.randrange(256) for _ in range(length)] for length in lengths)
    )
    changes = {
        "tuning": tuning,
        "pad_augmentation": [{"kind": "segment", "rho_max": 0.5, "all_pads": 0.5, "until": 1.0}],
        "gradient_checkpointing": tuning["method"] == "lora",
        "max_steps": 3,  # one epoch
        "log_every_steps": 1,
    }
    single = recipe(base_model, rows, batch={"per_device": 1, "accumulation": 2}, **changes)
    double = recipe(base_model, rows, batch={"per_device": 1}, launch={"processes": 2, "threads": 1}, **changes)
    folder = rows_folder(Path(single.data.cache), rows, base_model, max_length=256, limit=None)
    encode_rows(rows, folder, encode=lambda row: next(made), max_length=256, limit=None, progress=lambda done: None)
    logs = [event for event in train_here(single, tmp_path / "single") if event["event"] == "log"]
    out = tmp_path / "double"
    out.mkdir()
    run_train(double, out)
    for one, two in zip(logs, read_jsonl(out / "metrics.jsonl"), strict=True):
        for figure in ("loss", "backbone_loss", "mtp_loss", "confidence_loss"):
            assert two[figure] == pytest.approx(one[figure], rel=1e-5, abs=1e-6)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
    artifact = "model" if tuning["method"] == "full" else "adapter"
    a, b = weights(tmp_path / "single" / artifact), weights(out / artifact)
    assert a.keys() == b.keys()
    assert max((a[name] - b[name]).abs().max().item() for name in a) < 2e-5


def test_where_tokens_lie_makes_no_other_training(base_model, rows):
    one, two = (
        recipe(base_model, rows, data={"train": str(rows), "max_length": 256, "cache": cache}) for cache in "ab"
    )
    assert sft._made_by(one) == sft._made_by(two)
    other = recipe(base_model, rows, data={"train": str(rows), "max_length": 255, "cache": "a"})
    assert sft._made_by(one) != sft._made_by(other)


def test_bad_input_is_refused_before_a_process_starts(base_model, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(parent.subprocess, "Popen", None)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        run_train(recipe(tmp_path, rows), tmp_path)
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"messages": []}\n')
    with pytest.raises(MissingInputError, match=r"bad\.jsonl:1"):
        run_train(recipe(base_model, bad), tmp_path)
    code = tmp_path / "code"
    shutil.copytree(base_model, code)
    config = json.loads((code / "config.json").read_text())
    (code / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoConfig": "evil.Config"}}))
    with pytest.raises(CheckpointError, match="auto_map"):
        run_train(recipe(code, rows), tmp_path)


def run_script(monkeypatch, base_model, rows, out: Path, script: str, reporter=None):
    """Let a short script stand for the worker: what it writes and how it ends is all the parent sees."""
    monkeypatch.setattr(parent, "command", lambda recipe, job: [sys.executable, "-c", script])
    return run_train(recipe(base_model, rows), out, reporter=reporter)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp:127] can't allocate memory")]
)
def test_too_little_memory_without_a_gpu_is_explained(error):
    found = _explained(error)
    assert isinstance(found, MachineError)
    assert "batch.per_device" in found.hint


def test_a_killed_worker_is_explained(monkeypatch, base_model, rows, tmp_path):
    with pytest.raises(MachineError, match="killed, most likely for lack of memory"):
        run_script(monkeypatch, base_model, rows, tmp_path, "import os; os.kill(os.getpid(), 9)")


def test_a_crash_shows_its_reason_and_the_end_of_the_log(monkeypatch, base_model, rows, tmp_path):
    script = "import sys; print('{broken'); print('chatter', file=sys.stderr); sys.exit(3)"
    listener = Listener()
    with pytest.raises(PipoError, match="training failed: exit code 3") as caught:
        run_script(monkeypatch, base_model, rows, tmp_path, script, listener)
    assert "worker.log" in caught.value.hint
    assert "{broken" in listener.said[-1]
    assert "chatter" in listener.said[-1]


def test_an_error_of_the_worker_is_raised_here(monkeypatch, base_model, rows, tmp_path):
    event = json.dumps({"event": "error", "kind": "CheckpointError", "message": "damaged", "hint": "copy it again"})
    with pytest.raises(CheckpointError, match="damaged") as caught:
        run_script(monkeypatch, base_model, rows, tmp_path, f"import sys; print('{event}'); sys.exit(1)")
    assert caught.value.hint == "copy it again"


def test_rows_that_are_too_long_are_told(monkeypatch, base_model, rows, tmp_path):
    script = (
        "import json\n"
        "print(json.dumps({'event': 'begin', 'step': 0, 'steps': 6, 'rows': 40, 'dropped': 3}))\n"
        "print(json.dumps({'event': 'done', 'step': 6, 'rows': 40, 'dropped': 3}))\n"
    )
    listener = Listener()
    summary = run_script(monkeypatch, base_model, rows, tmp_path, script, listener)
    assert summary["dropped_rows"] == 3
    assert any("3 rows are longer than data.max_length" in line for line in listener.said)


def test_ctrl_c_before_training_began_stops_at_once(monkeypatch, base_model, rows, tmp_path):
    script = "import signal, time, os; os.kill(os.getppid(), signal.SIGINT); time.sleep(60)"
    with pytest.raises(Interrupted, match="before the next checkpoint"):
        run_script(monkeypatch, base_model, rows, tmp_path, script)


def test_errors_cross_the_process_border_with_kind_and_hint(tmp_path):
    file = tmp_path / "events"
    with file.open("w") as stream:
        events = EventWriter(stream, on_lost=lambda: None)
        events.error(CheckpointError("no weights", hint="pipo download"))
        events.error(ValueError("first\nsecond"))
        events.write("log", loss=float("nan"))
    mine, other, log = (parse_event(line) for line in file.read_text().splitlines())
    error = as_error(mine)
    assert isinstance(error, CheckpointError)
    assert (error.message, error.hint) == ("no weights", "pipo download")
    assert type(as_error(other)) is PipoError
    assert as_error(other).message == "ValueError: first"
    assert log["loss"] == "nan"
    assert parse_event("{not an event}") is None
    assert parse_event("[1]") is None


def test_a_reader_that_went_away_asks_for_a_stop():
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    lost = []
    events = EventWriter(Closed(), on_lost=lambda: lost.append(True))
    events.write("step", step=1)
    events.write("step", step=2)
    assert lost == [True]
