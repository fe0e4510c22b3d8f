"""docs/training-hooks.md tells the truth: the hooks exist with the signatures that we rely on, and in that order."""

import functools
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from swift.metrics.utils import Metric
from swift.model import ModelLoader
from swift.pipelines.train.sft import SwiftSft
from swift.template import Template
from swift.trainers.mixin import SwiftMixin
from swift.trainers.seq2seq_trainer import Seq2SeqTrainer
from transformers import PreTrainedModel, Trainer, TrainerCallback

from pipo_core.model import Qwen3_5ForCausalPIPO
from pipo_core.recipes.opd import AnyTraining
from pipo_core.train.worker.callbacks import TrainingEvents
from pipo_core.train.worker.metrics import TimeShare, TokenRate
from pipo_core.train.worker.nan_guard import NanGuard
from pipo_core.train.worker.opd_session import OpdSession
from pipo_core.train.worker.opd_template import OpdTemplate
from pipo_core.train.worker.session import PairSession
from pipo_core.train.worker.sft_session import SftSession
from pipo_core.train.worker.sft_template import SftTemplate
from pipo_core.train.worker.swift_plugin import PairLoader
from pipo_core.train.worker.template import PairTemplate
from tests.tiny import recipe
from tests.train.trainings import distill_recipe, train_here

PAGE = Path(__file__).parents[3] / "docs" / "training-hooks.md"
OURS = {
    kind.__name__: kind
    for kind in (
        *(PairSession, SftSession, OpdSession, PairTemplate, SftTemplate, OpdTemplate, PairLoader),
        *(TrainingEvents, NanGuard, TokenRate, Qwen3_5ForCausalPIPO),
    )
}

# What we override, and the parameters with which the libraries declare it.
OVERRIDDEN: list[tuple[type, type, str, str]] = [
    (SftSession, SwiftSft, "_prepare_model_tokenizer", "self, kwargs"),
    (SftSession, SwiftSft, "_prepare_template", "self"),
    (OpdSession, SwiftSft, "_prepare_template", "self"),
    (SftSession, SwiftSft, "_prepare_dataset", "self"),
    (OpdSession, SwiftSft, "_prepare_dataset", "self"),
    (PairSession, SwiftSft, "prepare_model", "args, model, template, train_dataset, task_type"),
    (PairSession, SwiftSft, "train", "self, trainer"),
    (PairLoader, ModelLoader, "get_config", "self, model_dir"),
    (PairLoader, ModelLoader, "get_model", "self, model_dir, config, processor, model_kwargs"),
    (PairTemplate, Template, "encode", "self, inputs, return_template_inputs, return_length"),
    (SftTemplate, Template, "_data_collator", "self, batch, padding_to"),
    (OpdTemplate, Template, "_data_collator", "self, batch, padding_to"),
    (SftTemplate, Template, "compute_sft_loss", "self, model, inputs, num_items_in_batch, trainer"),
    (OpdTemplate, Template, "compute_sft_loss", "self, model, inputs, num_items_in_batch, trainer"),
    (TrainingEvents, TrainerCallback, "on_train_begin", "self, args, state, control, kwargs"),
    (TrainingEvents, TrainerCallback, "on_step_end", "self, args, state, control, kwargs"),
    (TrainingEvents, TrainerCallback, "on_log", "self, args, state, control, kwargs"),
    (TrainingEvents, TrainerCallback, "on_save", "self, args, state, control, kwargs"),
    (NanGuard, TrainerCallback, "on_step_begin", "self, args, state, control, kwargs"),
    (NanGuard, TrainerCallback, "on_pre_optimizer_step", "self, args, state, control, kwargs"),
    *(
        (metric, Metric, name, parameters)
        for metric in (TokenRate, TimeShare)
        for name, parameters in (("reset", "self"), ("update", "self, args, kwargs"), ("compute", "self"))
    ),
]

# What we call, replace or rely on without overriding it.
RELIED_ON: list[tuple[type, str, str]] = [
    (Trainer, "get_batch_samples", "self, epoch_iterator, num_batches, device"),
    (Trainer, "floating_point_ops", "self, inputs"),
    (Trainer, "_load_from_checkpoint", "self, resume_from_checkpoint, model"),
    (Trainer, "add_callback", "self, callback"),
    (SwiftMixin, "compute_custom_metrics", "metrics, key_prefix"),
    (Seq2SeqTrainer, "compute_loss", "self, model, inputs, return_outputs, num_items_in_batch"),
    (PreTrainedModel, "gradient_checkpointing_enable", "self, gradient_checkpointing_kwargs"),
]


def parameters_of(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(("ours", "library", "name", "expected"), OVERRIDDEN)
def test_what_we_override_is_there_as_we_rely_on_it(ours: type, library: type, name: str, expected: str) -> None:
    assert name in vars(ours)
    declared = parameters_of(getattr(library, name))
    assert declared == expected.split(", ")
    own = inspect.signature(getattr(ours, name)).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in own.values())
    positional = [other for other in own.values() if other.kind is other.POSITIONAL_OR_KEYWORD]
    assert takes_any or len(own) >= len(declared) or library is Metric
    assert len(positional) <= len(declared) or ours is TrainingEvents  # `logs` of on_log comes by its name


@pytest.mark.parametrize(("library", "name", "expected"), RELIED_ON)
def test_what_we_rely_on_is_there(library: type, name: str, expected: str) -> None:
    assert parameters_of(getattr(library, name))[: expected.count(",") + 1] == expected.split(", ")


def in_order(column: int) -> list[str]:
    """Return our functions in a column of the page's tables: 2 is fine-tuning, 3 distillation."""
    cells = [line.strip("| ").split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    names = [re.fullmatch(r"`(\w+\.\w+)`", row[column]) for row in cells]
    return [name[1] for name in names if name is not None]


def watch(monkeypatch: pytest.MonkeyPatch, called: list[str], name: str) -> None:
    """Note each call of a function of ours, named ``Class.function``."""
    owner, _, attribute = name.partition(".")
    kind = OURS[owner]
    raw = inspect.getattr_static(kind, attribute)
    function = raw.__func__ if isinstance(raw, classmethod | staticmethod) else raw

    @functools.wraps(function)
    def noted(*args: Any, **kwargs: Any) -> Any:
        called.append(name)
        return function(*args, **kwargs)

    wrapped = type(raw)(noted) if isinstance(raw, classmethod | staticmethod) else noted
    monkeypatch.setattr(kind, attribute, wrapped)


@pytest.mark.parametrize("kind", ["fine-tuning", "distillation"])
def test_hooks_are_called_in_the_order_of_the_page(
    kind: str,
    base_model: Path,
    student: Path,
    teacher: Path,
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings: AnyTraining
    if kind == "fine-tuning":
        data = {"train": str(rows), "max_length": 256, "cache": str(tmp_path / "cache")}
        settings = recipe(base_model, rows, data=data, max_steps=1, batch={"accumulation": 2}, log_every_steps=1)
    else:
        settings = distill_recipe(student, teacher, rows, max_steps=1)
    expected = in_order(2 if kind == "fine-tuning" else 3)
    assert len(expected) >= 20
    called: list[str] = []
    for name in expected:
        watch(monkeypatch, called, name)
    train_here(settings, tmp_path / "out")
    assert list(dict.fromkeys(called)) == expected
