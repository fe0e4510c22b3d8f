"""A model and rows that all tests of training share."""

from pathlib import Path

import pytest

from tests.tiny import make_model, write_rows


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random base checkpoint."""
    return make_model(tmp_path_factory.mktemp("model") / "tiny-base")


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty rows."""
    return write_rows(tmp_path_factory.mktemp("data") / "train.jsonl", 40)
