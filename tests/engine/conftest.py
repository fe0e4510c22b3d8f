"""A small engine: the reference weights cannot read the tiny tokenizer, so a random model of its size can."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from pipo_core.data.tiny.tokenizer import train_tokenizer
from pipo_core.decode.registry import open_method
from pipo_core.engine.torch_engine import TorchEngine
from pipo_core.model import Qwen3_5ForCausalPIPO
from pipo_core.recipes.methods import METHODS, MethodName

OpenEngine = Callable[..., TorchEngine]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer()


@pytest.fixture(scope="session")
def random_model(reference: Qwen3_5ForCausalPIPO, tokenizer: PreTrainedTokenizerFast) -> Qwen3_5ForCausalPIPO:
    """A random model with the tiny vocabulary, lively enough that greedy texts differ."""
    torch.manual_seed(0)
    config = type(reference.config)(**{**reference.config.to_dict(), "vocab_size": len(tokenizer)})
    model: Qwen3_5ForCausalPIPO = Qwen3_5ForCausalPIPO(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture
def engine(random_model: Qwen3_5ForCausalPIPO, tokenizer: PreTrainedTokenizerFast) -> OpenEngine:
    def make(method: MethodName = "pipo", tau: float | None = 0.5, batch: int = 4, **options: Any) -> TorchEngine:
        threshold = tau if "tau" in METHODS[method].options else None
        opened = open_method(method, random_model, int(tokenizer.pad_token_id), tau=threshold)
        return TorchEngine(opened, tokenizer, batch=batch, **options)

    return make
