"""The tiny world: correct problems, disjoint splits, a tokenizer with Qwen's conventions."""

import json
import random
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipo_core.chat import encode_prompt, end_ids, load_tokenizer
from pipo_core.data.problems import load_problems
from pipo_core.data.tiny import arithmetic
from pipo_core.data.tiny.shapes import SHAPES, tiny_config
from pipo_core.data.tiny.tokenizer import train_tokenizer
from pipo_core.grade.math import extract_boxed
from pipo_core.recipes.locate import bundled_model

TOKENIZER = load_tokenizer(bundled_model("tiny-student"))


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_answers_and_every_step_of_the_reasoning_are_right(split: str) -> None:
    rng = random.Random(0)
    for chain in islice(arithmetic.chains(split, 3), 300):
        assert chain.answer == eval(chain.expression)  # noqa: S307 - digits and signs of this code
        assert min(chain.totals) >= 0
        text = arithmetic.reasoning(chain, rng)
        assert extract_boxed(text) == str(chain.answer)
        places = [text.find(str(total)) for total in chain.totals]
        assert -1 not in places


def test_no_training_problem_is_held_out_whatever_the_seed() -> None:
    held_out = {chain.expression for chain in islice(arithmetic.chains("heldout", 0), 600)}
    assert len(held_out) == 600
    for seed in range(5):
        assert held_out.isdisjoint(chain.expression for chain in islice(arithmetic.chains("train", seed), 3000))


def test_about_a_tenth_is_held_out_and_every_level_has_its_share() -> None:
    rng = random.Random(1)
    drawn = [arithmetic._sample_chain(rng, 3) for _ in range(5000)]
    assert 0.08 < sum(chain.held_out for chain in drawn) / len(drawn) < 0.125
    levels = [chain.level for chain in islice(arithmetic.chains("train", 0), 30)]
    assert all(levels.count(level) == 10 for level in arithmetic.LEVELS)


def test_the_wording_varies_and_the_seed_decides_it() -> None:
    chain = next(arithmetic.chains("train", 0))
    texts = {arithmetic.reasoning(chain, random.Random(seed)) for seed in range(40)}
    assert len(texts) > 20
    assert arithmetic.reasoning(chain, random.Random(5)) == arithmetic.reasoning(chain, random.Random(5))
    assert load_problems("tiny", "train", 20, 4) == load_problems("tiny", "train", 20, 4)
    assert load_problems("tiny", "train", 20, 4) != load_problems("tiny", "train", 20, 5)


def test_more_problems_than_exist_can_be_taken() -> None:
    assert len(list(islice(arithmetic.chains("heldout", 0), 3000))) == 3000


def test_answers_have_twenty_to_two_hundred_tokens() -> None:
    lengths = [len(TOKENIZER(p.solution).input_ids) for p in load_problems("tiny", "train", 300, 0)]
    assert min(lengths) >= 20
    assert max(lengths) <= 200


@given(st.text())
def test_every_text_can_be_written(text: str) -> None:
    import unicodedata

    ids = TOKENIZER(text, add_special_tokens=False).input_ids
    normal = unicodedata.normalize("NFC", text)
    if not any(special in normal for special in (*TOKENIZER.all_special_tokens, "<think>", "</think>")):
        assert TOKENIZER.decode(ids) == normal


def test_words_and_the_numbers_of_the_problems_are_whole_tokens() -> None:
    for number in range(arithmetic._MAX_TOTAL + 1):
        assert len(TOKENIZER.tokenize(f" {number}")) == 1
    assert len(TOKENIZER.tokenize(" Adding")) == 1
    assert len(TOKENIZER.tokenize("</think>\n\n")) == 2


def test_prompts_have_qwens_layout() -> None:
    prompt = encode_prompt(TOKENIZER, [{"role": "user", "content": "What is 1+2?"}])
    expected = "<|im_start|>user\nWhat is 1+2?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert TOKENIZER.decode(prompt) == expected
    assert len(TOKENIZER.tokenize("<think>\n")) == 2
    assert end_ids(TOKENIZER) == {TOKENIZER.convert_tokens_to_ids(t) for t in ("<|im_end|>", "<|endoftext|>")}


@pytest.mark.parametrize("name", list(SHAPES))
def test_the_bundled_tokenizer_and_shape_come_from_this_code(name: str, tmp_path: Path) -> None:
    tokenizer = train_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    folder = bundled_model(name)
    assert json.loads((tmp_path / "tokenizer.json").read_text()) == json.loads((folder / "tokenizer.json").read_text())
    bundled = json.loads((folder / "config.json").read_text())
    shape = tiny_config(name, tokenizer)
    for key in ("hidden_size", "num_hidden_layers", "layer_types", "vocab_size", "rope_parameters", "pad_token_id"):
        assert bundled[key] == shape[key], key
