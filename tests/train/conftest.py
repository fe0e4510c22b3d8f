"""Models and rows that all tests of training share."""

import shutil
from pathlib import Path

import pytest
import torch

from pipo_core.model import load_checkpoint, save_checkpoint
from tests.tiny import make_model, write_rows


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random base checkpoint."""
    return make_model(tmp_path_factory.mktemp("model") / "tiny-base")


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty rows."""
    return write_rows(tmp_path_factory.mktemp("data") / "train.jsonl", 40)


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random pair model."""
    return make_model(tmp_path_factory.mktemp("student") / "tiny-student", layout="pipo")


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model that disagrees with the student: its weights are moved."""
    folder = make_model(tmp_path_factory.mktemp("teacher") / "tiny-teacher")
    model = load_checkpoint(folder)
    torch.manual_seed(7)
    with torch.no_grad():
        model.text_model.embed_tokens.weight.mul_(8).add_(torch.randn_like(model.text_model.embed_tokens.weight) / 8)
    shutil.rmtree(folder)
    return save_checkpoint(model, folder, layout="base", tokenizer_from=folder.parent / "tokenizer")
