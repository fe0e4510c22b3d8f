"""`run_train` as its users meet it: a process that trains, stops when asked and goes on."""

import json
import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from pipo_core.data.augment import IGNORED
from pipo_core.errors import CheckpointError, Interrupted, MissingInputError, PipoError
from pipo_core.files import read_jsonl
from pipo_core.train.sft import run_train
from pipo_core.train.token_cache import examples_folder
from pipo_core.train.worker.sft_examples import encode_examples
from tests.tiny import recipe, write_rows
from tests.train.trainings import (
    LORA,
    Listener,
    differing,
    press_ctrl_c,
    train_here,
    weights,
)


def test_ctrl_c_saves_and_the_same_call_goes_on(base_model: Path, rows: Path, tmp_path: Path) -> None:
    data = {"train": str(rows), "max_length": 256, "cache": str(tmp_path / "cache")}
    settings = recipe(base_model, rows, data=data, max_steps=60, save={"every_steps": 1000}, log_every_steps=1)
    out = tmp_path / "stage"
    out.mkdir()
    before = signal.getsignal(signal.SIGINT)
    listener = Listener(at=2, act=press_ctrl_c)
    with pytest.raises(Interrupted, match=r"stopped after step \d+, with a checkpoint") as caught:
        run_train(settings, out, reporter=listener, made_by="test")
    assert caught.value.hint == "the same command goes on"
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
    summary = run_train(settings, out, reporter=listener, made_by="test")
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
    assert run_train(settings, out, made_by="test") == summary
    assert (out / "worker.log").stat().st_size == log_size


def test_sigterm_is_a_stop_too(base_model: Path, rows: Path, tmp_path: Path) -> None:
    data = {"train": str(rows), "max_length": 256, "cache": str(tmp_path / "cache")}
    settings = recipe(base_model, rows, data=data, max_steps=60, save={"every_steps": 1000})
    out = tmp_path / "stage"
    out.mkdir()
    before = signal.getsignal(signal.SIGTERM)
    listener = Listener(at=2, act=lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match=r"stopped after step \d+, with a checkpoint"):
        run_train(settings, out, reporter=listener, made_by="test")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_a_save_that_fails_after_ctrl_c_is_an_error_and_not_a_clean_stop(
    base_model: Path, rows: Path, tmp_path: Path
) -> None:
    data = {"train": str(rows), "max_length": 256, "cache": str(tmp_path / "cache")}
    settings = recipe(base_model, rows, data=data, max_steps=60, save={"every_steps": 1000})
    out = tmp_path / "stage"
    out.mkdir()

    def press_when_nothing_can_be_saved() -> None:
        (out / "checkpoints").mkdir(exist_ok=True)
        for step in range(1, 61):
            (out / "checkpoints" / f"checkpoint-{step}").write_text("in the way")
        press_ctrl_c()

    with pytest.raises(PipoError) as caught:
        run_train(settings, out, reporter=Listener(at=2, act=press_when_nothing_can_be_saved), made_by="test")
    assert not isinstance(caught.value, Interrupted)
    assert "checkpoint-" in str(caught.value)


@pytest.mark.parametrize("tuning", [{"method": "full"}, {**LORA, "dropout": 0.0}], ids=["full", "lora"])
def test_processes_train_as_one(base_model: Path, tmp_path: Path, tuning: dict[str, Any]) -> None:
    """Two processes do what one does that accumulates two micro-batches, whatever those hold.

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
    folder = examples_folder(Path(single.data.cache or ""), rows, base_model, max_length=256, limit=None)
    encode_examples(rows, folder, encode=lambda row: next(made), max_length=256, limit=None, progress=lambda done: None)
    logs = [event for event in train_here(single, tmp_path / "single") if event["event"] == "log"]
    out = tmp_path / "double"
    out.mkdir()
    run_train(double, out, made_by="test")
    for one, two in zip(logs, read_jsonl(out / "metrics.jsonl"), strict=True):
        for figure in ("loss", "backbone_loss", "mtp_loss", "confidence_loss"):
            assert two[figure] == pytest.approx(one[figure], rel=1e-5, abs=1e-6)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
    artifact = "model" if tuning["method"] == "full" else "adapter"
    a, b = weights(tmp_path / "single" / artifact), weights(out / artifact)
    assert a.keys() == b.keys()
    assert max((a[name] - b[name]).abs().max().item() for name in a) < 2e-5


def test_bad_input_is_refused_before_a_process_starts(
    base_model: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipo_core.train.supervisor.subprocess.Popen", None)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        run_train(recipe(tmp_path, rows), tmp_path, made_by="test")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"messages": []}\n')
    with pytest.raises(MissingInputError, match=r"bad\.jsonl:1"):
        run_train(recipe(base_model, bad), tmp_path, made_by="test")
    code = tmp_path / "code"
    shutil.copytree(base_model, code)
    config = json.loads((code / "config.json").read_text())
    (code / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoConfig": "evil.Config"}}))
    with pytest.raises(CheckpointError, match="auto_map"):
        run_train(recipe(code, rows), tmp_path, made_by="test")
