"""Where the thought of an answer ends, if the prompt has not opened it."""

import pytest

from pipo_core.chat import ThoughtSplitter


@pytest.mark.parametrize("size", [1, 2, 3, 50])
@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think>\n2+2\n</think>\n\n4", ("2+2\n", "4")),
        ("<think>2+2</think>4", ("2+2", "4")),
        ("<think>\ncut off", ("cut off", "")),
        ("<thing> is no thought", ("", "<thing> is no thought")),
        ("four </think> four", ("", "four </think> four")),
        ("<thin", ("<thin", "")),
        ("", ("", "")),
    ],
)
def test_an_answer_has_a_thought_if_it_begins_with_one(text: str, parts: tuple[str, str], size: int) -> None:
    splitter = ThoughtSplitter(opened=False)
    fed = [splitter.feed(text[at : at + size]) for at in range(0, len(text), size)]
    assert ("".join(t for t, _ in fed) + splitter.end(), "".join(a for _, a in fed)) == parts
