"""The forms in which data sets write conversations, as one: a list of messages with role and content.

    {"messages": [{"role": "user", "content": …}, …]}                       pipo, ms-swift, OpenAI
    {"conversations": [{"from": "human", "value": …}, …]}                   ShareGPT
    {"conversation": [{"human": …, "assistant": …}, …]}                     ms-swift
    {"query": …, "response": …, "history": [[query, response], …]}          ms-swift

Each may have a key `system` beside it. A row that has the keys of several forms is read in the first of them; the keys
of the others are unread, which is an error unless `data.unread` names them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MESSAGES = "messages"
SYSTEM = "system"
_ROLES = {
    **{role: role for role in ("system", "user", "assistant", "tool")},
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
}
"""Roles of the ShareGPT form by the names that data sets give them."""


class RowFormError(ValueError):
    """A row is not of the form that its keys promise."""


@dataclass(frozen=True)
class RowForm:
    """One form of rows.

    Attributes:
        key: the key that a row of this form has.
        others: further keys that are read, besides `system`.
        messages: returns the messages of a row, or raises `RowFormError`.
    """

    key: str
    others: tuple[str, ...]
    messages: Callable[[Mapping[str, Any]], list[Any]]

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the keys of a row that are read."""
        return (self.key, *self.others, SYSTEM)


def form_of(row: Mapping[str, Any]) -> RowForm | None:
    """Return the form of a row; None if it has none."""
    return next((form for form in _FORMS if row.get(form.key) is not None), None)


def messages_of(row: Mapping[str, Any]) -> list[Any]:
    """Return the messages of a row, not yet checked beyond its form.

    Raises:
        RowFormError: if the row has no form, or is not of the form that its keys promise.
    """
    form = form_of(row)
    if form is None:
        raise RowFormError('no list under the key "messages" (nor conversations, conversation or query)')
    messages = form.messages(row)
    system = row.get(SYSTEM)
    if system in (None, ""):
        return messages
    if messages and isinstance(messages[0], dict) and messages[0].get("role") == SYSTEM:
        raise RowFormError(f"two system turns: the key {SYSTEM!r} and the first of the {form.key}")
    return [{"role": SYSTEM, "content": system}, *messages]


def _list_under(row: Mapping[str, Any], key: str) -> list[Any]:
    found = row[key]
    if not isinstance(found, list):
        raise RowFormError(f'no list under the key "{key}"')
    return found


def _from_messages(row: Mapping[str, Any]) -> list[Any]:
    return _list_under(row, MESSAGES)


def _from_conversations(row: Mapping[str, Any]) -> list[Any]:
    return [_message(index, turn) for index, turn in enumerate(_list_under(row, "conversations"))]


def _message(index: int, turn: Any) -> dict[str, Any]:
    """Return a turn of the ShareGPT form as a message; its further keys stay."""
    where = f"turn {index} of conversations"
    if not isinstance(turn, dict):
        raise RowFormError(f"{where} is not an object")
    message: dict[str, Any] = {key: value for key, value in turn.items() if key not in ("from", "value")}
    for ours, theirs in (("role", "from"), ("content", "value")):
        if turn.get(theirs) is None:
            continue
        if message.get(ours) is not None:
            raise RowFormError(f"{where} has both {ours} and {theirs}")
        message[ours] = turn[theirs]
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise RowFormError(f"{where} is from {role!r}, not from one of {', '.join(_ROLES)}")
    return {**message, "role": _ROLES[role]}


def _from_pairs(row: Mapping[str, Any]) -> list[Any]:
    messages: list[Any] = []
    for index, turn in enumerate(_list_under(row, "conversation")):
        if not isinstance(turn, dict) or turn.keys() != {"human", "assistant"}:
            raise RowFormError(f"turn {index} of conversation has not the two keys human and assistant")
        messages += _pair(turn["human"], turn["assistant"])
    return messages


def _from_query(row: Mapping[str, Any]) -> list[Any]:
    history = row.get("history")
    if history is not None and not isinstance(history, list):
        raise RowFormError("history is not a list")
    messages: list[Any] = []
    for index, turn in enumerate(history or ()):
        if not isinstance(turn, list) or len(turn) != 2:
            raise RowFormError(f"turn {index} of history is not a pair of query and response")
        messages += _pair(*turn)
    asked = _pair(row["query"], row.get("response"))
    return [*messages, *(asked if row.get("response") is not None else asked[:1])]


def _pair(question: Any, answer: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


_FORMS = (
    RowForm(MESSAGES, (), _from_messages),
    RowForm("conversations", (), _from_conversations),
    RowForm("conversation", (), _from_pairs),
    RowForm("query", ("response", "history"), _from_query),
)
"""In the order in which they are looked for."""
