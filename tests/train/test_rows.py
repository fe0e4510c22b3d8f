"""Rows are checked before anything starts."""

import json
from pathlib import Path

import pytest

from pipo_core.errors import MissingInputError
from pipo_core.train.rows import check_rows, read_rows
from tests.train.data_rows import GOOD, conversation, write

ANSWER = {"role": "assistant", "content": "2"}


def asked(**answer: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": "1+1"}, answer]}


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ("{", "not JSON"),
        ([1], "messages"),
        ({"message": []}, "messages"),
        ({"messages": ["hello"]}, "role"),
        (conversation(("robot", "hi")), "role"),
        ({"messages": [{"role": "user", "content": 3}]}, "content"),
        (conversation(("assistant", "2")), "no user turn"),
        (conversation(("user", "1+1")), "last turn"),
        (conversation(("user", "1+1"), ("assistant", "<think>\n ")), "empty"),
        (conversation(("user", "1+1"), ("assistant", "")), "empty"),
        (conversation(("user", "1"), ("assistant", " "), ("user", "2"), ("assistant", "2")), "message 1: .*empty"),
        (conversation(("user", "1"), ("assistant", "<think> </think>\n")), "empty"),
        (conversation(("user", "1"), ("system", "s"), ("assistant", "2")), "message 1 is a system turn"),
        (conversation(("system", "a"), ("system", "b"), ("user", "1"), ("assistant", "2")), "message 1 is a system"),
        (conversation(("tool", "5"), ("user", "1"), ("assistant", "2")), "message 0 is a tool's"),
        (conversation(("user", "1"), ("tool", "5"), ("assistant", "2")), "message 1 is a tool's"),
        (conversation(("assistant", "hello"), ("user", "1"), ("assistant", "2")), "message 0 is an answer without"),
        ({"messages": [{"role": "system", "content": "a"}, *GOOD["messages"]], "system": "b"}, "two system turns"),
        ({**GOOD, "query": "1+1"}, "nothing reads the key 'query' of a row with messages"),
        ({**GOOD, "tools": []}, "nothing reads the key 'tools' of a row"),
        ({**GOOD, "id": 7}, "nothing reads the key 'id' of a row"),
        (asked(role="assistant", content="2", weight=0), "nothing reads the key 'weight' of message 1"),
        (asked(role="assistant", content="2", tool_calls=[{}]), "nothing reads the key 'tool_calls' of message 1"),
        ({"messages": [{"role": "user", "content": "1", "thinking": "x"}, ANSWER]}, "'thinking' of message 0"),
        (asked(role="assistant", content="2", reasoning_content=3), "message 1: reasoning_content is not a text"),
        (asked(role="assistant", content="2", reasoning="a", thinking="b"), "message 1 has two thoughts"),
        (asked(role="assistant", content="<think>a</think>2", reasoning="b"), "message 1 has two thoughts"),
        (asked(role="assistant", content="a</think>2", reasoning="b"), "message 1 has two thoughts"),
        (asked(role="assistant", content="2", reasoning="a</think>b"), "message 1: reasoning holds </think>"),
        (asked(role="assistant", content="2", loss="no"), "message 1: loss is true or false"),
        (asked(role="assistant", content="2", loss=0), "message 1: loss is true or false"),
        ({"messages": [{"role": "user", "content": "1", "loss": True}, ANSWER]}, "message 0: loss is"),
        (asked(role="assistant", content="2", loss=False), "no answer is learned"),
        ('{"messages": [], "messages": []}', "an object has the key 'messages' twice"),
        ('{"messages": [{"role": "user", "content": "1", "content": "2"}]}', "the key 'content' twice"),
        ('{"messages": ' + "[" * 100_000 + "]" * 100_000 + "}", "too deep"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, bad: object, complaint: str) -> None:
    file = write(tmp_path / "train.jsonl", GOOD, "", bad if isinstance(bad, str) else json.dumps(bad))
    with pytest.raises(MissingInputError, match=rf"train\.jsonl:3: .*{complaint}"):
        check_rows(file)


def test_rows_are_counted_up_to_the_limit(tmp_path: Path) -> None:
    file = write(tmp_path / "train.jsonl", GOOD, "", GOOD, GOOD)
    assert check_rows(file) == 3
    assert check_rows(file, limit=2) == 2
    with pytest.raises(MissingInputError, match="no rows"):
        check_rows(write(tmp_path / "empty.jsonl"))
    with pytest.raises(MissingInputError, match="cannot be read"):
        check_rows(tmp_path / "absent.jsonl")


def test_keys_that_are_named_may_be_left_unread(tmp_path: Path) -> None:
    row = {**asked(role="assistant", content="2", weight=0), "id": 7}
    file = write(tmp_path / "train.jsonl", row)
    assert check_rows(file, unread=["id", "weight"]) == 1
    with pytest.raises(MissingInputError) as caught:
        check_rows(file, unread=["id"])
    assert caught.value.hint == 'for an answer that is not learned give "loss": false, or name it in data.unread'


def test_null_counts_as_absent(tmp_path: Path) -> None:
    assert check_rows(write(tmp_path / "empty.jsonl", asked(**{**ANSWER, "reasoning": "", "thinking": "t"}))) == 1
    answer = {**ANSWER, "reasoning_content": None, "tool_calls": None, "loss": None, "name": None}
    assert check_rows(write(tmp_path / "train.jsonl", {**asked(**answer), "tools": None})) == 1


def test_each_answer_that_is_learned_makes_an_example(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "1"}, {**ANSWER, "thinking": "t"}, {"role": "user", "content": "2"}, ANSWER]
    file = write(
        tmp_path / "train.jsonl", {"messages": turns}, {"messages": [turns[0], {**ANSWER, "loss": False}, *turns]}
    )
    assert check_rows(file) == 4
    assert check_rows(file, answered=False) == 2
    first, second = read_rows(file, None)
    assert (first.line, first.learned) == (1, [1, 3])
    assert (second.line, second.learned) == (2, [3, 5])
    assert first.messages[1] == {**ANSWER, "reasoning_content": "t"}
    assert second.messages[1] == ANSWER
