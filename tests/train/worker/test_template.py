"""What is learned from a conversation: the answer behind ``<think>\\n``, up to the end token."""

import copy
from pathlib import Path
from typing import Any

import pytest
from swift.model import get_model_processor
from swift.template import get_template

from pipo_core.chat import encode_prompt
from pipo_core.data.augment import IGNORED, prompt_length
from pipo_core.train.worker import swift_plugin
from pipo_core.train.worker.swift_arguments import MODEL_TYPE, SFT_TEMPLATE


@pytest.fixture(scope="module")
def template(base_model: Path) -> Any:
    swift_plugin.register()
    tokenizer = get_model_processor(str(base_model), model_type=MODEL_TYPE, load_model=False, use_hf=True)[1]
    made = get_template(
        tokenizer, template_type=SFT_TEMPLATE, enable_thinking=True, add_non_thinking_prefix=False, max_length=10**6
    )
    made.set_mode("train")
    return made


def encode(template: Any, *messages: tuple[str, str]) -> tuple[list[int], list[int]]:
    encoded = template.encode({"messages": [{"role": role, "content": content} for role, content in messages]})
    return encoded["input_ids"], encoded["labels"]


def generation_prompt(template: Any, *messages: tuple[str, str]) -> Any:
    return template.tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in messages],
        add_generation_prompt=True,
        enable_thinking=True,
        return_dict=False,
    )


@pytest.mark.parametrize("answer", ["add 1 and 2\n</think>\n\n3", "\n\nodd start", " 12 34", "no end of thought"])
def test_the_prompt_is_that_of_generation_and_the_answer_ends_with_the_end_token(template: Any, answer: str) -> None:
    ids, labels = encode(template, ("user", "1+2"), ("assistant", f"<think>\n{answer}"))
    length = prompt_length(labels)
    assert ids[:length] == generation_prompt(template, ("user", "1+2"))
    assert template.tokenizer.decode(ids[length - 2 : length]) == "<think>\n"
    assert labels[length:] == ids[length:]
    assert ids[-1] == template.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert ids.count(ids[-1]) == 2, "the user's and the answer's"


def test_the_answer_is_written_as_qwens_own_chat_template_does(template: Any) -> None:
    ids, labels = encode(template, ("user", " 1+2 "), ("assistant", "<think>\nadd them</think>3\n"))
    learned = template.tokenizer.decode(ids[prompt_length(labels) :])
    assert learned == "add them\n</think>\n\n3<|im_end|>"


def test_the_whole_of_an_answer_without_a_thought_has_a_loss(template: Any) -> None:
    ids, labels = encode(template, ("user", "1+2"), ("assistant", "3"))
    length = prompt_length(labels)
    assert template.tokenizer.decode(ids[:length]).endswith("<|im_start|>assistant\n")
    assert template.tokenizer.decode(ids[length:]) == "3<|im_end|>"


def test_all_answers_have_a_loss_and_no_question_has(template: Any) -> None:
    ids, labels = encode(
        template,
        ("system", "Add."),
        ("user", "1+2"),
        ("assistant", "<think>\na\n</think>\n\n3"),
        ("user", "2+2"),
        ("assistant", "<think>\nb\n</think>\n\n4"),
    )
    learned = [token for token, label in zip(ids, labels, strict=True) if label != IGNORED]
    assert template.tokenizer.decode(learned) == "a\n</think>\n\n3<|im_end|>b\n</think>\n\n4<|im_end|>"


TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
PROMPT = (
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if SWITCH %}<think>\n{% else %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
SWITCHES = {
    "4B": "enable_thinking is not defined or enable_thinking is not false",
    "0.8B": "enable_thinking is defined and enable_thinking is true",  # the small ones do not think unless asked to
}


@pytest.mark.parametrize("size", SWITCHES)
@pytest.mark.parametrize("question", ["1+2", "12+2", "  1+2=?\n"], ids=["one parity", "the other", "white space"])
def test_training_and_rollouts_read_the_text_of_qwens_template(template: Any, question: str, size: str) -> None:
    """Qwen3.5's text of a question with a system turn, token for token, however its template asks for the thought."""
    tokenizer = copy.deepcopy(template.tokenizer)
    tokenizer.chat_template = TURNS + PROMPT.replace("SWITCH", SWITCHES[size])
    text = (
        f"<|im_start|>system\nAdd.<|im_end|>\n<|im_start|>user\n{question.strip()}<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n"
    )
    expected = tokenizer.encode(text, add_special_tokens=False)
    asked = [{"role": "system", "content": "Add."}, {"role": "user", "content": question}]
    assert encode_prompt(tokenizer, asked) == expected
    turns = [("system", "Add."), ("user", question), ("assistant", "<think>\na\n</think>\n\n3")]
    ids, labels = encode(template, *turns)
    assert ids[: prompt_length(labels)] == expected
