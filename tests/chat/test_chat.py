"""What people write is plain text: only the layout's control tokens are control tokens."""

import threading
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pipo_core.chat import ControlTokens, encode_prompt, load_tokenizer
from pipo_core.errors import CheckpointError, UsageError
from pipo_core.recipes.locate import bundled_model
from tools.fuzz import areas

TINY = areas.tiny_tokenizer()
TAIL = 7  # <|im_end|>\n<|im_start|>assistant\n<think>\n
few = settings(derandomize=True, max_examples=150, database=None)


def plain(text: str) -> list[int]:
    return areas.without_controls(TINY).encode(text, add_special_tokens=False).ids


def asked(text: str) -> list[int]:
    return encode_prompt(TINY, [{"role": "user", "content": text}])


@few
@given(st.lists(st.text(max_size=40) | st.sampled_from(["a < b", "x |> y", "12 + 3", "</", "think>"]), min_size=1))
def test_texts_without_control_tokens_have_the_ids_of_the_plain_way(contents: list[str]) -> None:
    messages = [{"role": "user", "content": content} for content in contents]
    text = TINY.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    if not any(control in content for content in contents for control in areas.CONTROLS):
        assert encode_prompt(TINY, messages) == TINY(text, add_special_tokens=False).input_ids


@few
@given(st.randoms(use_true_random=False))
def test_no_text_makes_a_control_token(rng: Random) -> None:
    assert areas.chat(rng) == "taken"


@pytest.mark.parametrize("control", areas.CONTROLS)
def test_each_control_token_is_spelt_out(control: str) -> None:
    ids = asked(f"say {control} twice: {control}")
    assert ids == [*asked("x")[:1], *plain(f"user\nsay {control} twice: {control}"), *asked("x")[-TAIL:]]


def test_neighbours_do_not_make_a_control_token_together() -> None:
    controls = ControlTokens(TINY)
    halves = ["<|im_", "<|im_  ", "<", "<|im_end|"], ["end|>", "end|>", "|im_end|>", ">"]
    for left, right in zip(*halves, strict=True):
        joined = "".join(controls.hide({"content": text})["content"].strip() for text in (left, right))
        assert controls.encode(joined) == plain(left.strip() + right)


def test_the_placeholder_is_plain_text_too() -> None:
    for text in ("\ue000", "\ue000\U000f0000<|im_end|>\U000f0001", "\U000f0000"):
        assert asked(text)[1:-TAIL] == plain(f"user\n{text}")


def test_a_turn_of_the_assistant_has_the_marks_of_its_own_thought() -> None:
    controls = ControlTokens(TINY)

    def shown(content: str) -> list[str]:
        hidden = controls.hide({"role": "assistant", "content": content})["content"]
        return [token for token in TINY.convert_ids_to_tokens(controls.encode(hidden)) if token in areas.CONTROLS]

    assert shown("<think>\nuse <think> and <|im_end|></think>\n\n</think>") == ["<think>", "</think>"]
    assert shown(" <think>open") == ["<think>"]
    assert shown("the prompt opened it</think>\n\n3") == ["</think>"]
    assert shown("what is <think>?") == []


def test_every_text_of_a_message_is_hidden() -> None:
    message = {"role": "tool<|im_end|>", "calls": [{"<think>": ("</think>", 3, None)}]}
    hidden = ControlTokens(TINY).hide(message)
    assert not any(control in repr(hidden) for control in areas.CONTROLS)
    assert hidden["calls"][0].popitem()[1][1:] == [3, None]


def test_a_vocabulary_that_cannot_spell_a_text_leaves_it_out() -> None:
    letters = {letter: place for place, letter in enumerate("abc")}
    core = Tokenizer(models.BPE(vocab=letters, merges=[]))
    core.add_special_tokens(["<s>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, chat_template="{{ messages[0].content }}<s>")
    assert encode_prompt(tokenizer, [{"role": "user", "content": "a<s>b"}]) == [0, 1, 3]


def test_tokens_that_swallow_white_space_keep_their_neighbours() -> None:
    core = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken("<|im_end|>", lstrip=True, rstrip=True), "<|im_start|>"])
    template = "<|im_start|>{{ messages[0].content }}  <|im_end|>  "
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, chat_template=template)
    ids = encode_prompt(tokenizer, [{"role": "user", "content": "a <|im_end|> b"}])
    assert tokenizer.convert_ids_to_tokens([ids[0], ids[-1]]) == ["<|im_start|>", "<|im_end|>"]
    assert tokenizer.decode(ids[1:-1]) == "a <|im_end|> b"


def test_threads_share_a_tokenizer() -> None:
    expected = [asked(f"{number} <|im_end|> <think>") for number in range(20)]
    found: list[list[list[int]]] = []
    threads = [
        threading.Thread(target=lambda: found.append([asked(f"{n} <|im_end|> <think>") for n in range(20)]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


def test_a_template_that_refuses_says_so_in_one_line() -> None:
    tokenizer = load_tokenizer(bundled_model("tiny-student"))
    tokenizer.chat_template = "{{ raise_exception('roles must\nalternate') }}"
    with pytest.raises(UsageError, match="does not take these messages: roles must alternate"):
        encode_prompt(tokenizer, [{"role": "user", "content": "x"}])


@pytest.mark.parametrize(
    "template",
    [
        "{% for %}",
        "{{ messages[7].content | trim }}",
        "{{ ''.__class__.__mro__ }}",
        "{% for i in range(10**9) %}x{% endfor %}",
    ],
)
def test_a_template_that_cannot_lay_out_a_chat_is_refused_on_loading(tmp_path: Path, template: str) -> None:
    checkpoint = areas.tokenizer_folder(tmp_path)
    (checkpoint.folder / "chat_template.jinja").write_text(template)
    with pytest.raises(CheckpointError, match="cannot lay out a chat") as caught:
        load_tokenizer(checkpoint.folder)
    assert "\n" not in caught.value.message


def test_a_tokenizer_that_asks_to_cut_or_to_fill_texts_does_neither(tmp_path: Path) -> None:
    checkpoint = areas.tokenizer_folder(tmp_path)
    cutting = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    cutting.enable_truncation(4)
    cutting.enable_padding(length=64)
    cutting.save(str(checkpoint.folder / "tokenizer.json"))
    assert encode_prompt(load_tokenizer(checkpoint.folder), [{"role": "user", "content": "1 + 2"}]) == asked("1 + 2")


class PanicException(BaseException):
    """What the tokenizers library raises for some damaged files; it is no `Exception`."""


@pytest.mark.parametrize(
    ("raised", "expected"), [(PanicException("lost"), CheckpointError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_a_panic_of_the_tokenizers_library_is_a_refusal_and_ctrl_c_is_not(
    monkeypatch: pytest.MonkeyPatch, raised: BaseException, expected: type[BaseException]
) -> None:
    def broken(folder: str) -> None:
        raise raised

    monkeypatch.setattr(PreTrainedTokenizerFast, "from_pretrained", broken)
    with pytest.raises(expected):
        load_tokenizer(bundled_model("tiny-student"))
