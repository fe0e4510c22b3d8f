"""Shared fixtures: the authors' reference weights and random prompts."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from pipo_core.model import Qwen3_5ForCausalPIPO, load_checkpoint

pytest.register_assert_rewrite("tests.features")
settings.register_profile("pipo", deadline=None)  # a busy machine makes no test wrong
settings.load_profile("pipo")

REFERENCE = Path(__file__).parent / "fixtures" / "reference-a"


@pytest.fixture(scope="session")
def reference_folder() -> Path:
    """A checkpoint written by the authors' code, with its inputs and outputs."""
    return REFERENCE


@pytest.fixture(scope="session")
def reference() -> Qwen3_5ForCausalPIPO:
    """The model of the reference checkpoint, fp32."""
    return load_checkpoint(REFERENCE)


@pytest.fixture
def random_ids() -> Callable[[int, int], list[int]]:
    """Return a maker of prompts: (length, seed) to ids without the PAD and end ids."""

    def make(length: int, seed: int) -> list[int]:
        rng = random.Random(seed)
        return [rng.randrange(2, 384) for _ in range(length)]

    return make
