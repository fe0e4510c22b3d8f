"""Text as it comes against text decoded as a whole."""

import random
from typing import Any

import pytest

from pipo_core.chat.detokenizer import _WINDOW, Detokenizer


def parts(tokenizer: Any, ids: list[int], stop: tuple[str, ...] = (), behind: str = "") -> tuple[list[str], bool]:
    detokenizer = Detokenizer(tokenizer, stop, behind)
    texts = []
    for token in ids:
        texts.append(detokenizer.add(token))
        if detokenizer.stopped:
            return texts, True
    return [*texts, detokenizer.finish()], False


@pytest.fixture(scope="module")
def hard_ids(tokenizer: Any) -> list[list[int]]:
    """Texts of many kinds: real ones, spread over several tokens a character, and bytes that are no text."""
    rng = random.Random(0)
    written = ["naïve 日本語 🙂🙂🏽 ÿ�x", "🙂" * 30, "a\nb  c\t", "", "�", "日" * 40]
    texts = [tokenizer.encode(text, add_special_tokens=False) for text in written]
    vocabulary = len(tokenizer)
    bytes_only = [n for n in range(vocabulary) if "�" in tokenizer.decode([n])]
    assert len(bytes_only) > 50
    texts += [[rng.randrange(vocabulary) for _ in range(60)] for _ in range(40)]
    texts += [[rng.choice(bytes_only) for _ in range(90)] for _ in range(40)]
    return texts


def test_the_parts_add_up_to_the_text(tokenizer: Any, hard_ids: list[list[int]]) -> None:
    for ids in hard_ids:
        assert "".join(parts(tokenizer, ids)[0]) == tokenizer.decode(ids, skip_special_tokens=True)


def test_a_part_is_never_taken_back(tokenizer: Any, hard_ids: list[list[int]]) -> None:
    for ids in hard_ids:
        texts, _ = parts(tokenizer, ids)
        for count in range(1, len(ids)):
            whole = tokenizer.decode(ids[:count], skip_special_tokens=True)
            assert whole.startswith("".join(texts[:count]))
            assert len(whole) - len("".join(texts[:count])) <= 1  # at most one unfinished character is held back


def test_stop_strings_end_the_text_wherever_they_begin(tokenizer: Any, hard_ids: list[list[int]]) -> None:
    rng = random.Random(1)
    found = 0
    for ids in hard_ids:
        whole = tokenizer.decode(ids, skip_special_tokens=True)
        for _ in range(6):
            start = rng.randrange(max(len(whole), 1))
            stop = whole[start : start + rng.randint(1, 9)]
            if not stop or "�" in stop:
                continue
            stops = (stop, "never there", stop[:1] + "x")
            place = min(p for p in (whole.find(s) for s in stops) if p >= 0)
            texts, stopped = parts(tokenizer, ids, stops)
            assert stopped
            assert "".join(texts) == whole[:place]
            found += 1
    assert found > 50


def test_what_may_become_a_stop_string_is_held_back_and_no_more(tokenizer: Any) -> None:
    detokenizer = Detokenizer(tokenizer, ("aab",))
    said = "".join(detokenizer.add(token) for token in tokenizer.encode("xaa", add_special_tokens=False))
    assert said == "x"
    said += "".join(detokenizer.add(token) for token in tokenizer.encode("aac", add_special_tokens=False))
    assert said == "xaaaac"


def test_the_first_stop_string_counts_even_if_a_later_one_ends_earlier(tokenizer: Any) -> None:
    ids = tokenizer.encode("one two three", add_special_tokens=False)
    texts, stopped = parts(tokenizer, ids, ("two", "one two thr"))
    assert stopped
    assert "".join(texts) in ("one ", "")  # the tokens decide which of the two is complete first


def test_a_token_costs_the_decoding_of_a_few(tokenizer: Any, hard_ids: list[list[int]]) -> None:
    for ids in hard_ids[-3:]:
        detokenizer = Detokenizer(tokenizer, ("never there",))
        for token in ids * 20:
            detokenizer.add(token)
            assert len(detokenizer._window) <= _WINDOW
            assert len(detokenizer._held) < len("never there")


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("so a b.</think>\n\na b c", "b", "so a b.</think>\n\na "),
        ("a\n\nb</think>\n\nc\n\nd", "\n\n", "a\n\nb</think>\n\nc"),
        ("b never ends", "b", "b never ends"),
        ("</think>b", "b", "</think>"),
        ("a</think></think>b", "</think>", "a</think>"),
        ("a</think>\n", "\n", "a</think>\n"),
    ],
)
def test_stop_strings_may_count_only_behind_a_text(tokenizer: Any, text: str, stop: str, expected: str) -> None:
    whole = tokenizer.encode(text, add_special_tokens=False)
    characters = [token for character in text for token in tokenizer.encode(character, add_special_tokens=False)]
    for ids in (whole, characters):
        texts, stopped = parts(tokenizer, ids, (stop, "never there"), "</think>")
        assert "".join(texts) == expected
        assert stopped == (expected != text)
