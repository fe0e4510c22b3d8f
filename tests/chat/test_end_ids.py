"""Which ids end a text: whatever part of a checkpoint names them."""

import json
import shutil
from pathlib import Path

import pytest

from pipo_core.chat import end_ids, load_tokenizer
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Request, open_engine
from pipo_core.recipes.common import TorchSettings
from pipo_core.recipes.locate import bundled_model
from pipo_core.recipes.methods import Decoding

END, PAD = "<|im_end|>", "<|endoftext|>"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint whose tokenizer names end-of-text as its end, as those of base models do."""
    folder = shutil.copytree(bundled_model("tiny-student"), tmp_path / "model")
    (folder / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": PAD}))
    return folder


def test_the_chat_template_names_the_turns_end(checkpoint: Path) -> None:
    tokenizer = load_tokenizer(checkpoint)
    assert tokenizer.eos_token == PAD
    assert end_ids(tokenizer) == set(tokenizer.convert_tokens_to_ids([END, PAD]))


@pytest.mark.parametrize(
    "template", ["{% for m in messages %}{{ m.content }}{% endfor %}", "{{ raise_exception('no') }}"]
)
def test_a_template_without_a_turns_end_names_none(checkpoint: Path, template: str) -> None:
    tokenizer = load_tokenizer(checkpoint)
    tokenizer.chat_template = template
    assert end_ids(tokenizer) == {tokenizer.pad_token_id}


@pytest.mark.parametrize("listed", [[5, 7], 5, [5, None, "x", True, 10**9, -1]])
def test_the_generation_configuration_names_more(checkpoint: Path, listed: object) -> None:
    (checkpoint / "generation_config.json").write_text(json.dumps({"eos_token_id": listed}))
    tokenizer = load_tokenizer(checkpoint)
    more = {5, 7} if listed == [5, 7] else {5}
    assert end_ids(tokenizer, checkpoint) == end_ids(tokenizer) | more


def test_such_a_checkpoint_ends_its_answers(checkpoint: Path) -> None:
    engine = open_engine(checkpoint, Decoding("regular"), TorchSettings(device="cpu", threads=1))
    messages = ({"role": "user", "content": "Compute 3 plus 4."},)
    request = Request("a", messages=messages, sampling=SamplingParams(temperature=0.0), max_tokens=400)
    (answer,) = engine.generate([request])
    assert answer.finish_reason == "stop"
