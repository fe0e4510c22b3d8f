"""What is learned from a conversation: the answer behind ``<think>\\n``, up to the end token."""

import copy
from pathlib import Path
from typing import Any

import pytest
from swift.model import get_model_processor
from swift.template import get_template

from pipo_core.chat import encode_answered, encode_prompt
from pipo_core.data.augment import prompt_length
from pipo_core.errors import MissingInputError
from pipo_core.messages import THOUGHT_KEYS
from pipo_core.recipes.locate import bundled_model
from pipo_core.train.rows import check_rows, read_rows
from pipo_core.train.worker import swift_plugin
from pipo_core.train.worker.sft_examples import EncodedExamples, encode_examples
from pipo_core.train.worker.swift_arguments import MODEL_TYPE, SFT_TEMPLATE
from tests.qwen_vocabulary import reference, write_tokenizer
from tests.train.data_rows import GOOD, write

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"


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


@pytest.mark.parametrize("answer", ["3", " 3\n", "<think>\n\n</think>\n\n3", "</think>3"])
def test_an_answer_without_a_thought_has_an_empty_one_behind_the_same_prompt(template: Any, answer: str) -> None:
    ids, labels = encode(template, ("user", "1+2"), ("assistant", answer))
    length = prompt_length(labels)
    assert ids[:length] == generation_prompt(template, ("user", "1+2"))
    assert template.tokenizer.decode(ids[length:]) == "\n</think>\n\n3<|im_end|>"


@pytest.mark.parametrize("key", THOUGHT_KEYS)
def test_a_thought_under_a_key_of_its_own_is_the_thought(template: Any, key: str) -> None:
    messages = [{"role": "user", "content": "1+2"}, {"role": "assistant", "content": "3", key: " add them\n"}]
    inside = encode(template, ("user", "1+2"), ("assistant", "<think>\nadd them\n</think>\n\n3"))
    encoded = template.encode({"messages": messages})
    assert (encoded["input_ids"], encoded["labels"]) == inside


def test_a_template_that_opens_no_thought_gets_one_with_the_answer(template: Any) -> None:
    tokenizer = copy.deepcopy(template.tokenizer)
    tokenizer.chat_template = TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    asked = {"role": "user", "content": "1+2"}
    for answer, learned in {
        "3": "3<|im_end|>",
        "<think>a</think>3": "<think>\na\n</think>\n\n3<|im_end|>",
        "<think>\na": "<think>\na<|im_end|>",
    }.items():
        prompt, written = encode_answered(tokenizer, [asked, {"role": "assistant", "content": answer}])
        assert prompt == encode_prompt(tokenizer, [asked])
        assert tokenizer.decode(written) == learned


ROUNDS = [
    {"role": "system", "content": "Add."},
    {"role": "user", "content": "1+2"},
    {"role": "assistant", "content": "<think>\na\n</think>\n\n3"},
    {"role": "user", "content": "2+2"},
    {"role": "user", "content": "quickly"},
    {"role": "assistant", "content": "4", "reasoning": "b"},
    {"role": "tool", "content": "4 is right"},
    {"role": "assistant", "content": "5", "loss": False},
    {"role": "user", "content": ""},
    {"role": "assistant", "content": "6"},
]


@pytest.mark.parametrize("rules", ["tiny", "qwen"])
def test_each_answer_is_an_example_behind_the_prompt_of_decoding(template: Any, rules: str, tmp_path: Path) -> None:
    """Whatever the template does with earlier turns, such as leaving out their thoughts."""
    tokenizer = template.tokenizer
    stock = tokenizer.chat_template
    file = write(tmp_path / "train.jsonl", {"messages": ROUNDS})
    assert check_rows(file) == 3
    try:
        if rules == "qwen":
            tokenizer.chat_template = (FIXTURES / "qwen_rules.jinja").read_text(encoding="utf-8")
        encode_examples(
            file, tmp_path / "x", encode=template.encode, max_length=10**6, limit=None, progress=lambda done: None
        )
        examples = EncodedExamples(tmp_path / "x", augmented=False)
        assert len(examples) == 3
        (row,) = read_rows(file, None)
        texts = ["a\n</think>\n\n3", "b\n</think>\n\n4", "\n</think>\n\n6"]
        for index, (turn, learned) in enumerate(zip([2, 5, 9], texts, strict=True)):
            example = examples[index]
            length = prompt_length(example.labels.tolist())
            assert example.ids[:length].tolist() == encode_prompt(tokenizer, row.messages[:turn])
            assert tokenizer.decode(example.ids[length:]) == f"{learned}<|im_end|>"
            assert example.labels[length:].tolist() == example.ids[length:].tolist()
    finally:
        tokenizer.chat_template = stock


def test_a_row_that_the_template_does_not_take_is_named_by_its_line(template: Any, tmp_path: Path) -> None:
    tokenizer = template.tokenizer
    stock = tokenizer.chat_template
    file = write(tmp_path / "train.jsonl", GOOD, "", GOOD)
    tokenizer.chat_template = stock + "{% if messages[0].content == '1+1' %}{{ raise_exception('no sums') }}{% endif %}"
    try:
        with pytest.raises(MissingInputError, match=r"train\.jsonl:1: the chat template .*no sums"):
            encode_examples(
                file, tmp_path / "x", encode=template.encode, max_length=100, limit=None, progress=lambda done: None
            )
    finally:
        tokenizer.chat_template = stock


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


def test_training_loads_the_tokenizer_that_decoding_loads(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "qwen")
    (folder / "config.json").write_text((bundled_model("tiny-student") / "config.json").read_text())
    swift_plugin.register()
    tokenizer = get_model_processor(str(folder), model_type=MODEL_TYPE, load_model=False, use_hf=True)[1]
    text = "สวัสดีครับ ผมชื่อสมชาย"
    assert tokenizer(text, add_special_tokens=False).input_ids == reference().encode(text)
