"""Rows in the forms of other tools are read as the same conversation as our own."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipo_core.errors import MissingInputError
from pipo_core.recipes.sft import TrainData
from pipo_core.train.rows import check_rows, read_rows
from tests.train.data_rows import GOOD, write

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "1+1"},
    {"role": "assistant", "content": "<think>\nEasy.\n</think>\n\n2"},
    {"role": "user", "content": "2+2"},
    {"role": "assistant", "content": "4"},
]
ASKED = [turn["content"] for turn in TURNS]
SHAREGPT = [
    {"from": {"user": "human", "assistant": "gpt"}[turn["role"]], "value": turn["content"]} for turn in TURNS[1:]
]
FORMS: dict[str, dict[str, Any]] = {
    "messages": {"messages": TURNS},
    "messages with system": {"system": "Be brief.", "messages": TURNS[1:]},
    "sharegpt": {"system": "Be brief.", "conversations": SHAREGPT},
    "sharegpt's system turn": {"conversations": [{"from": "system", "value": "Be brief."}, *SHAREGPT], "system": ""},
    "sharegpt with our names": {"conversations": TURNS},
    "sharegpt, other roles": {
        "conversations": [{**turn, "from": {"human": "user", "gpt": "bot"}[turn["from"]]} for turn in SHAREGPT],
        "system": "Be brief.",
    },
    "pairs": {
        "system": "Be brief.",
        "conversation": [{"human": ASKED[1], "assistant": ASKED[2]}, {"human": ASKED[3], "assistant": ASKED[4]}],
    },
    "query": {"system": "Be brief.", "query": ASKED[3], "response": ASKED[4], "history": [[ASKED[1], ASKED[2]]]},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_conversation(tmp_path: Path, form: str) -> None:
    file = write(tmp_path / "train.jsonl", GOOD, FORMS[form])
    assert check_rows(file) == 3
    _, row = read_rows(file, None)
    assert (row.line, row.messages, row.learned) == (2, TURNS, [2, 4])


def test_a_question_without_an_answer_is_enough_for_distillation(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = [
        {"query": "1+1"},
        {"query": "1+1", "response": None, "history": []},
        {"conversations": SHAREGPT[:1]},
    ]
    file = write(tmp_path / "train.jsonl", *asked)
    assert check_rows(file, answered=False) == 3
    assert {len(row.messages) for row in read_rows(file, None)} == {1}
    with pytest.raises(MissingInputError, match=r"train\.jsonl:1: the last turn is not the assistant's"):
        check_rows(file)


def test_keys_of_a_message_stay_in_the_sharegpt_form(tmp_path: Path) -> None:
    first = {"from": "gpt", "value": "3", "loss": False}
    turns = [SHAREGPT[0], first, SHAREGPT[2], {"from": "gpt", "value": "4", "reasoning": "Two and two."}]
    file = write(tmp_path / "train.jsonl", {"conversations": turns})
    assert check_rows(file) == 1
    (row,) = read_rows(file, None)
    assert row.learned == [3]
    assert row.messages[3] == {"role": "assistant", "content": "4", "reasoning_content": "Two and two."}


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ({"conversations": "hi"}, 'no list under the key "conversations"'),
        ({"conversations": ["hi"]}, "turn 0 of conversations is not an object"),
        ({"conversations": [{"from": "robot", "value": "x"}]}, "turn 0 of conversations is from 'robot'"),
        ({"conversations": [{"value": "x"}]}, "turn 0 of conversations is from None"),
        ({"conversations": [{"from": ["a"], "value": "x"}]}, "turn 0 of conversations is from"),
        ({"conversations": [{"from": "human", "role": "user", "value": "x"}]}, "has both role and from"),
        ({"conversations": [{"from": "human", "content": "x", "value": "x"}]}, "has both content and value"),
        ({"conversations": [{"from": "function_call", "value": "x"}]}, "from 'function_call'"),
        ({"conversations": [{"from": "human", "value": 3}]}, "message 0 has no text"),
        ({"conversations": [{"from": "human"}, {"from": "gpt", "value": "2"}]}, "message 0 has no text"),
        ({"conversations": SHAREGPT[:3]}, "the last turn is not the assistant's"),
        ({"conversations": [{**SHAREGPT[0], "weight": 0}, SHAREGPT[1]]}, "nothing reads the key 'weight' of message 0"),
        ({"conversations": SHAREGPT, "id": 7}, "nothing reads the key 'id' of a row with conversations"),
        ({"conversations": SHAREGPT, "system": 7}, "message 0 has no text"),
        ({"conversation": [{"human": "1+1"}]}, "turn 0 of conversation has not the two keys"),
        (
            {"conversation": [{"human": "1+1", "assistant": "2", "id": 1}]},
            "turn 0 of conversation has not the two keys",
        ),
        ({"conversation": [{"human": 1, "assistant": "2"}]}, "message 0 has no text"),
        ({"query": "1+1"}, "the last turn is not the assistant's"),
        ({"response": "2"}, 'no list under the key "messages"'),
        ({"query": "1+1", "response": ""}, "message 1: the answer is empty"),
        ({"query": ["1+1"], "response": "2"}, "message 0 has no text"),
        ({"query": "1+1", "response": "2", "history": "none"}, "history is not a list"),
        ({"query": "1+1", "response": "2", "history": [["a"]]}, "turn 0 of history is not a pair"),
        ({"query": "1+1", "response": "2", "input": "x"}, "nothing reads the key 'input' of a row with query"),
        ({"query": "1+1", "response": "2", "conversations": SHAREGPT}, "the key 'query' of a row with conversations"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, bad: dict[str, Any], complaint: str) -> None:
    file = write(tmp_path / "train.jsonl", FORMS["query"], "", json.dumps(bad))
    with pytest.raises(MissingInputError, match=rf"train\.jsonl:3: .*{complaint}") as caught:
        check_rows(file)
    assert caught.value.hint


def test_keys_of_another_form_may_be_left_unread_but_not_those_of_the_rows_own(tmp_path: Path) -> None:
    row = {"messages": TURNS, "query": "another", "history": [["a"]]}
    file = write(tmp_path / "train.jsonl", row)
    assert check_rows(file, unread=["query", "history"]) == 2
    (read,) = read_rows(file, None)
    assert read.messages == TURNS
    file = write(tmp_path / "train.jsonl", FORMS["query"])
    with pytest.raises(MissingInputError, match=r"train\.jsonl:1: data\.unread names 'history', which is read"):
        check_rows(file, unread=["history"])
    with pytest.raises(ValueError, match="system has a meaning and is read"):
        TrainData(train="x/y", unread=["system"])
