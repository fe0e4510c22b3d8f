import pytest
from transformers import PreTrainedTokenizerFast

from pipo_core.data.tiny.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer()
