"""JSON by schemas and forced calls, from a model that means nothing."""

import json
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from pipo_core.chat import ToolCallSplitter, end_ids
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine.torch_engine import TorchEngine
from pipo_core.errors import UsageError
from pipo_core.messages import END_OF_THOUGHT
from tests.engine.asking import ask, counts, run
from tests.features import WEATHER

pytest.importorskip("xgrammar")

from pipo_core.engine.json_grammar import GrammarMaker

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["a", "b"]},
        "size": {"type": "integer", "minimum": 10, "maximum": 99},
        "parts": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    },
    "required": ["kind", "size", "parts"],
}
NOW: dict[str, Any] = {
    "type": "function",
    "function": {"name": "now", "parameters": {"type": "object", "properties": {}}},
}


@pytest.fixture(scope="module")
def maker(tokenizer: PreTrainedTokenizerFast) -> GrammarMaker:
    return GrammarMaker(tokenizer, end_ids(tokenizer))


def sampled(number: int, **settings: Any) -> Any:
    sampling = SamplingParams(temperature=1.5, seed=number, presence_penalty=0.5, **settings)
    return ask(number, sampling=sampling, stop_ids=None, max_tokens=200)


def assert_follows(text: str) -> None:
    value = json.loads(text)
    assert value.keys() == {"kind", "size", "parts"}
    assert value["kind"] in ("a", "b")
    assert 10 <= value["size"] <= 99
    assert 1 <= len(value["parts"]) <= 3
    assert all(isinstance(part, bool) for part in value["parts"])


@pytest.mark.parametrize("method", ["regular", "pipo", "mtp", "eagle"])
def test_every_answer_follows_the_schema_and_others_do_not_notice(
    engine: Any, maker: GrammarMaker, method: str
) -> None:
    grammar = maker.of_schema(SCHEMA, behind_thought=False)
    bound = [sampled(number, grammar=grammar) for number in range(6)]
    free = [ask(number, length=3 + number) for number in range(10, 16)]
    opened: TorchEngine = engine(method, tau=0.0, batch=4)
    done = run(opened, [request for pair in zip(bound, free, strict=True) for request in pair])
    for request in bound:
        assert_follows(done[request.id].text)
        assert done[request.id].finish_reason == "stop"
        if method == "pipo":
            assert counts(done[request.id]).kept == 0
    alone = run(engine(method, tau=0.0, batch=1), free)
    assert {name: one.token_ids for name, one in alone.items()} == {
        request.id: done[request.id].token_ids for request in free
    }
    assert len({done[request.id].text for request in bound}) > 1


@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_a_grammar_begins_behind_the_thought(
    engine: Any, maker: GrammarMaker, tokenizer: PreTrainedTokenizerFast, tau: float
) -> None:
    end = int(tokenizer.convert_tokens_to_ids(END_OF_THOUGHT))
    grammar = maker.of_schema(SCHEMA, behind_thought=True)
    requests = [sampled(number, grammar=grammar, logit_bias=((end, 3.0),)) for number in range(16)]
    thoughts = 0
    for completion in run(engine(tau=tau), requests).values():
        assert completion.finish_reason in ("stop", "length"), completion.error
        thought, mark, answer = completion.text.partition(END_OF_THOUGHT)
        if mark:
            assert_follows(answer)
            thoughts += bool(thought)
    assert thoughts, "no thought was said and ended, so nothing was tested"


def test_a_call_of_one_of_the_tools_is_forced(engine: Any, maker: GrammarMaker) -> None:
    tools = [WEATHER, NOW]
    grammar = maker.of_calls(tools, behind_thought=False)
    names = set()
    for completion in run(engine(tau=0.5), [sampled(number, grammar=grammar) for number in range(12)]).values():
        said, [call] = ToolCallSplitter(tools).feed(completion.text)
        assert said == ""
        assert json.loads(call.arguments) == ({"city": "Rome"} if call.name == "weather" else {})
        names.add(call.name)
    assert names == {"weather", "now"}


def test_who_may_end_when_is_said_once(maker: GrammarMaker) -> None:
    with pytest.raises(UsageError, match="min_tokens and a grammar"):
        sampled(1, grammar=maker.of_schema(SCHEMA, behind_thought=False), min_tokens=5)


def test_a_call_is_forced_with_an_object_only(maker: GrammarMaker) -> None:
    tool = {"type": "function", "function": {"name": "count", "parameters": {"type": "integer"}}}
    with pytest.raises(UsageError, match="the parameters of count must be an object's"):
        maker.of_calls([tool], behind_thought=False)


def test_any_object_will_do_without_a_schema(engine: Any, maker: GrammarMaker) -> None:
    grammar = maker.of_schema(None, behind_thought=False)
    answers = run(engine(), [sampled(number, grammar=grammar) for number in range(20)]).values()
    ended = [answer for answer in answers if answer.finish_reason == "stop"]
    assert ended, "none was short enough to end"
    assert all(isinstance(json.loads(answer.text), dict) for answer in ended)
    assert all(answer.text.startswith("{") for answer in answers)


@pytest.mark.parametrize(
    ("schema", "words"), [({"type": "nothing"}, "cannot be followed"), ({"enum": ["x" * 70_000]}, "larger than")]
)
def test_what_is_no_schema_is_refused(maker: GrammarMaker, schema: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        maker.of_schema(schema, behind_thought=False)
