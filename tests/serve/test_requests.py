"""From bodies to requests, and from answers to thoughts and what is said."""

from typing import Any

import pytest

from pipo_core.chat import ThoughtSplitter
from pipo_core.engine import Request
from pipo_core.serve.requests import to_requests
from pipo_core.serve.schemas import BodyError, ChatBody, Defaults, read_body


def asked(length: int = 5, **changes: Any) -> list[Request]:
    body = read_body(ChatBody, {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | changes)
    return to_requests(body, range(length), name="r", max_length=10, defaults=Defaults(top_k=7))


def test_choices_differ_by_seed_and_repeat() -> None:
    one, two = asked(n=2, seed=3, stop="x", temperature=0.5)
    assert [one, two] == asked(n=2, seed=3, stop="x", temperature=0.5)
    assert (one.id, two.id, one.stop, one.stop_ids) == ("r-0", "r-1", ("x",), None)
    assert one.sampling.seed != two.sampling.seed
    assert one.sampling.temperature == 0.5


@pytest.mark.parametrize(("said", "meant"), [({}, 7), ({"top_k": None}, 7), ({"top_k": 3}, 3), ({"top_k": -1}, 0)])
def test_sampling_that_is_not_said_is_the_default(said: dict[str, Any], meant: int) -> None:
    assert asked(**said)[0].sampling.top_k == meant


def test_a_budget_fits_or_is_refused_with_what_would() -> None:
    assert [asked()[0].max_tokens, asked(max_tokens=5)[0].max_tokens, asked(length=9)[0].max_tokens] == [5, 5, 1]
    for refused, words in (({"max_tokens": 6}, "up to 5 would fit"), ({"length": 10}, "up to 9 tokens fit")):
        with pytest.raises(BodyError, match=words) as caught:
            asked(**refused)
        assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a < b</think>\n\n4</think>\n", ("a < b", "4</think>\n")),
        ("never ends </thi", ("never ends </thi", "")),
        ("</think>\n", ("", "")),
    ],
)
def test_the_parts_do_not_depend_on_the_cuts(text: str, parts: tuple[str, str], size: int) -> None:
    splitter = ThoughtSplitter()
    fed = [splitter.feed(text[at : at + size]) for at in range(0, len(text), size)]
    assert ("".join(t for t, _ in fed) + splitter.end(), "".join(a for _, a in fed)) == parts
