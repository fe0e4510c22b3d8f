"""Texts that look like control tokens are plain text in training too, with the ids that decoding gives them."""

import json
from itertools import groupby
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipo_core.data.augment import IGNORED
from pipo_core.data.build import run_build
from pipo_core.recipes.build import BuildRecipe
from tools.fuzz import areas

few = settings(derandomize=True, max_examples=100, database=None)


def laid_out(*messages: tuple[str, str]) -> str:
    """The row as text, with a bar on either side of each control token."""
    tokenizer = areas.tiny_tokenizer()
    row = {"messages": [{"role": role, "content": content} for role, content in messages]}
    ids = areas.tiny_template().encode(row)["input_ids"]
    controls = set(tokenizer.backend_tokenizer.get_added_tokens_decoder())
    stretches = groupby(ids, key=lambda token: token if token in controls else None)
    shown = [(control, tokenizer.decode(list(tokens))) for control, tokens in stretches]
    text = "".join(part if control is None else f"¦{part}¦" for control, part in shown)
    return text.removeprefix("¦<|im_start|>¦user\n").removesuffix("¦<|im_end|>¦")


BETWEEN = "¦<|im_end|>¦\n¦<|im_start|>¦"
ASKED = f"1{BETWEEN}assistant\n¦<think>¦\n"


@few
@given(st.randoms(use_true_random=False))
def test_prompts_are_those_of_decoding_and_answers_have_their_own_marks_alone(rng: Random) -> None:
    assert areas.training(rng, areas.tiny_template()) == "taken"


@pytest.mark.parametrize("control", areas.CONTROLS)
def test_each_control_token_is_spelt_out(control: str) -> None:
    shown = laid_out(("user", f"a {control}"), ("assistant", f"<think>\nb{control}</think>c{control}d"))
    thought, answer = ("b", f"</think>c{control}d") if control == "</think>" else (f"b{control}", f"c{control}d")
    assert shown == f"a {control}{ASKED[1:]}{thought}\n¦</think>¦\n\n{answer}"


def test_a_thought_about_marks_is_kept_whole() -> None:
    shown = laid_out(("user", "1"), ("assistant", "<think>\nuse <think> tags</think>ok"))
    assert shown == f"{ASKED}use <think> tags\n¦</think>¦\n\nok"


def test_placeholders_of_ms_swift_in_messages_stay_text() -> None:
    slots = "{{ROUND0}}{{ROUND1}}{{QUERY}}{{SYSTEM}}{{RESPONSE}}"
    assert laid_out(("user", slots), ("assistant", f"<think>\n{slots}")) == f"{slots}{ASKED[1:]}{slots}"


def test_turns_that_are_joined_make_no_control_token() -> None:
    shown = laid_out(("user", "<|im_ "), ("user", "end|>2"), ("assistant", "<think>\n3"))
    assert shown == f"<|im_{BETWEEN}user\nend|>2{ASKED[1:]}3"


def test_tools_and_systems_write_plain_text() -> None:
    thought = ("assistant", "<think>\n2</think>3")
    shown = laid_out(("system", "s<|im_end|>"), ("user", "1"), thought, ("tool", "<|im_end|>t<think>"), thought)
    earlier = "2¦</think>¦3"
    tool = f"{BETWEEN}tool\n<|im_end|>t<think>"
    learned = "2\n¦</think>¦\n\n3"
    assert shown == f"¦<|im_start|>¦system\ns<|im_end|>{BETWEEN}user\n{ASKED}{earlier}{tool}{ASKED[1:]}{learned}"


def test_half_a_character_is_replaced() -> None:
    assert laid_out(("user", "1\ud800"), ("assistant", "<think>\n2")) == f"1\ufffd{ASKED[1:]}2"


def test_rows_of_the_tiny_world_have_the_ids_of_plain_tokenizing(tmp_path: Path) -> None:
    recipe = {"run": "x", "worked": {"source": "tiny", "split": "train", "count": 200, "seed": 5}}
    run_build(BuildRecipe.model_validate(recipe), tmp_path)
    tokenizer = areas.tiny_tokenizer()
    for line in (tmp_path / "train.jsonl").read_text().splitlines():
        (question, answer) = json.loads(line)["messages"]
        encoded = areas.tiny_template().encode({"messages": [question, answer]})
        thought, _, rest = answer["content"].removeprefix("<think>\n").partition("</think>")
        prompt = f"<|im_start|>user\n{question['content'].strip()}<|im_end|>\n<|im_start|>assistant\n<think>\n"
        learned = f"{thought.strip()}\n</think>\n\n{rest.strip()}<|im_end|>"
        ids = [tokenizer(text, add_special_tokens=False).input_ids for text in (prompt, learned)]
        assert encoded["input_ids"] == ids[0] + ids[1]
        assert encoded["labels"] == [IGNORED] * len(ids[0]) + ids[1]
