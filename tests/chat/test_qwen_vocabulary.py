"""Qwen3.5's own vocabulary is read as it is, by every way in: letters stay with their combining marks."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pipo_core.chat import Detokenizer, encode_answered, encode_prompt, load_tokenizer
from pipo_core.files import read_object, write_json
from pipo_core.model.writing import copy_tokenizer
from tests.qwen_vocabulary import reference, write_tokenizer

THAI = "สวัสดีครับ ผมชื่อสมชาย"
TEXTS = [
    THAI,
    "cafe\u0301 nai\u0308ve",
    "हिन्दी में लिखो",
    "עִבְרִית",
    "السَّلَامُ عَلَيْكُم",
    "1+2=3, so \\boxed{3}\n\n",
    "中文 한국어",
]
MARKS = st.text(st.characters(categories=("L", "M", "N", "P", "Z", "S"), max_codepoint=0x1F9FF), max_size=40)


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer as the hub has it: its configuration names `Qwen2Tokenizer`."""
    return write_tokenizer(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def tokenizer(hub_folder: Path) -> Any:
    return load_tokenizer(hub_folder)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_another_implementation(tokenizer: Any, text: str) -> None:
    assert ids_of(tokenizer, text) == reference().encode(text)


@settings(max_examples=300)
@given(MARKS)
def test_ids_of_any_text_are_those_of_another_implementation(tokenizer: Any, text: str) -> None:
    assert ids_of(tokenizer, text) == reference().encode(text)


def test_a_stock_loader_reads_the_hubs_files_otherwise_and_ours_as_they_are(hub_folder: Path, tmp_path: Path) -> None:
    """The reason for all this: under the hub's class the pattern is Qwen2's."""
    hub_folder.joinpath("config.json").unlink(missing_ok=True)
    stock = AutoTokenizer.from_pretrained(hub_folder)
    assert ids_of(stock, THAI) != reference().encode(THAI)
    copy_tokenizer(hub_folder, tmp_path)
    write_json(tmp_path / "config.json", {"model_type": "qwen3_5_text"})
    copied = AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        assert ids_of(copied, text) == reference().encode(text)
    assert read_object(tmp_path / "tokenizer_config.json")["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert copied.chat_template == load_tokenizer(hub_folder).chat_template


@pytest.mark.parametrize("text", TEXTS)
def test_training_and_decoding_lay_such_texts_out_alike(tokenizer: Any, text: str) -> None:
    asked = [{"role": "user", "content": text}]
    answered = [*asked, {"role": "assistant", "content": f"<think>\n{text}\n</think>\n\n{text}"}]
    prompt, answer = encode_answered(tokenizer, answered)
    assert prompt == encode_prompt(tokenizer, asked)
    stripped = text.strip()
    spelt = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert prompt == reference().encode(spelt)
    assert answer == reference().encode(f"{stripped}\n</think>\n\n{stripped}<|im_end|>")


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_streams_whole_token_by_token(tokenizer: Any, text: str) -> None:
    detokenizer = Detokenizer(tokenizer)
    pieces = [detokenizer.add(token) for token in ids_of(tokenizer, text)]
    assert "".join([*pieces, detokenizer.finish()]) == tokenizer.backend_tokenizer.normalizer.normalize_str(text)
    assert not any("\ufffd" in piece for piece in pieces)
