"""Control tokens, kept apart from text that looks like them.

The text of a message is plain text. A message that spells a control token (``<|im_end|>``, ``<think>``, any token that
the tokenizer adds to its vocabulary) must neither end a turn nor open a thought. `ControlTokens` hides such texts from
the chat template and from the tokenizer's search for control tokens, and encodes their characters afterwards.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from pipo_core.messages import END_OF_THOUGHT, THOUGHT

_HIDDEN = "\ue000"
"""Precedes the code of a hidden character. A private-use character is neither white space nor a word to a template."""
_FIRST_CODE = 0xF0000
_SURROGATES = "\ud800-\udfff"
"""Halves of surrogate pairs: JSON can hold them, tokenizers cannot encode them."""


class ControlTokens:
    """Keeps the control tokens that a layout writes apart from texts that look like them.

    Call `hide` on each message before the layout and `encode` on the text that the layout returns. Between two control
    tokens of the layout, a stretch without hidden text has exactly the tokenizer's ids. A stretch with hidden text is
    encoded as by a tokenizer without control tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, also: Iterable[str] = ()) -> None:
        """Read the control tokens of a tokenizer.

        Args:
            tokenizer: the tokenizer of the texts.
            also: further texts that the layout treats as control tokens.
        """
        self._tokenizer = tokenizer
        backend = tokenizer.backend_tokenizer
        # A tokenizer.json may ask for truncation or padding. Both are switched off only where they are on, because
        # setting them disturbs other threads.
        if backend.truncation is not None:
            backend.no_truncation()
        if backend.padding is not None:
            backend.no_padding()
        added = backend.get_added_tokens_decoder()
        self._ids = frozenset(added)
        texts = {token.content for token in added.values() if token.content} | set(also)
        self._firsts = sorted({text[0] for text in texts} | {_HIDDEN})
        self._found = _beginnings(frozenset(texts | {_HIDDEN}))

    def hide(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Return a message in which the texts of control tokens are hidden.

        In an assistant's message, the marks of its thought stay: a ``<think>`` at its beginning, and the first
        ``</think>``, which may be there without a ``<think>`` because the prompt can have opened the thought.
        """
        speaks = message.get("role") == "assistant"
        return {
            key: self._hidden_turn(value)
            if speaks and key == "content" and isinstance(value, str)
            else self._hidden(value)
            for key, value in message.items()
        }

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text that the layout made of hidden messages."""
        encoding = self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
        if _HIDDEN not in text:
            whole: list[int] = encoding.ids
            return whole
        ids: list[int] = []
        stretch: list[int] = []
        begin = 0
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token in self._ids:
                ids += [*self._stretch(text[begin:start], stretch), token]
                stretch, begin = [], end
            else:
                stretch.append(token)
        return ids + self._stretch(text[begin:], stretch)

    def _hidden_turn(self, content: str) -> str:
        opened = content[: len(content) - len(content.lstrip())] + THOUGHT
        begin = len(opened) if content.startswith(opened) else 0
        thought, end, answer = content[begin:].partition(END_OF_THOUGHT)
        return content[:begin] + str(self._hidden(thought)) + end + str(self._hidden(answer))

    def _hidden(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._found.sub(self._code, value)
        if isinstance(value, Mapping):
            return {self._hidden(key): self._hidden(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._hidden(item) for item in value]
        return value

    def _code(self, found: re.Match[str]) -> str:
        character = found[0]
        if character not in self._firsts:
            return "\N{REPLACEMENT CHARACTER}"
        return _HIDDEN + chr(_FIRST_CODE + self._firsts.index(character))

    def _stretch(self, text: str, ids: list[int]) -> list[int]:
        """Return the ids of a text between two control tokens: `ids`, unless the text has hidden characters."""
        if _HIDDEN not in text:
            return ids
        last = chr(_FIRST_CODE + len(self._firsts) - 1)
        shown = re.sub(
            f"{_HIDDEN}([{chr(_FIRST_CODE)}-{last}])", lambda code: self._firsts[ord(code[1]) - _FIRST_CODE], text
        )
        # The tokenizer's own steps, without the first one, which splits at control tokens.
        backend = self._tokenizer.backend_tokenizer
        if backend.normalizer is not None:
            shown = backend.normalizer.normalize_str(shown)
        pieces = [(shown, None)] if backend.pre_tokenizer is None else backend.pre_tokenizer.pre_tokenize_str(shown)
        return [token.id for piece, _ in pieces for token in backend.model.tokenize(piece)]


@lru_cache(maxsize=8)
def _beginnings(texts: frozenset[str]) -> re.Pattern[str]:
    """Return a pattern that finds the first character of each of `texts`, and surrogates.

    A text that is cut off by the end of the message is found, too: the layout may strip white space and put another
    message behind this one.
    """
    tree: dict[str, Any] = {}
    for text in texts:
        node = tree
        for character in text:
            node = node.setdefault(character, {})
        node[""] = {}

    def rest(node: dict[str, Any]) -> str:
        if "" in node:
            return ""
        return "(?:" + "|".join([*(re.escape(c) + rest(n) for c, n in node.items()), r"\s*\Z"]) + ")"

    # With the character set first, the search is several times faster than with the alternatives alone.
    firsts = "".join(map(re.escape, tree)) + _SURROGATES
    ways = [f"(?<=[{_SURROGATES}])", *(f"(?<={re.escape(c)})(?={rest(n)})" for c, n in tree.items())]
    return re.compile(f"[{firsts}](?:{'|'.join(ways)})")
