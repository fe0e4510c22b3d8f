"""Grammars for JSON and for calls of tools, by xgrammar: as SGLang has them, for the torch engine."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from pipo_core.decode.grammars import Grammar
from pipo_core.errors import UsageError
from pipo_core.messages import END_OF_THOUGHT
from pipo_core.text import one_line

_SCHEMA_BYTES = 64 << 10
_ANY_OBJECT = {"type": "object", "additionalProperties": True}


class GrammarMaker:
    """Compiles grammars for a model's tokens, and keeps what it has compiled.

    Args:
        tokenizer: the model's.
        ends: the ids that end its texts; they may come where a grammar is complete.

    Raises:
        UsageError: if xgrammar is not installed.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ends: frozenset[int]) -> None:
        try:
            import xgrammar
        except ImportError as error:
            raise UsageError("grammars need the package xgrammar, which is not installed here") from error
        self._library = xgrammar
        self._thought_end = tokenizer.convert_tokens_to_ids(END_OF_THOUGHT)
        # A string could spell a control token, and the model would mean its letters.
        self._never = sorted(set(tokenizer.all_special_ids) - ends)
        self._size = len(tokenizer)
        known = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=self._size, stop_token_ids=sorted(ends))
        self._compiler = xgrammar.GrammarCompiler(known, max_threads=2, cache_limit_bytes=256 << 20)

    def of_schema(self, schema: Mapping[str, Any] | None, *, behind_thought: bool) -> Grammar:
        """Return the grammar of the JSON values that a schema allows.

        Args:
            schema: None for any object.
            behind_thought: whether the grammar begins behind the thought.

        Raises:
            UsageError: if it is no schema, or too large.
        """
        return self._compiled(self._json(schema or _ANY_OBJECT), behind_thought)

    def of_calls(self, tools: Sequence[Mapping[str, Any]], *, behind_thought: bool) -> Grammar:
        """Return the grammar of a call of one of some tools, in OpenAI's shape; see `pipo_core.chat.tool_calls`.

        Raises:
            UsageError: if the parameters of one are no schema, or too large.
        """
        grammar = self._library.Grammar
        calls = []
        for tool in tools:
            function = tool["function"]
            if (function.get("parameters") or _ANY_OBJECT).get("type") != "object":
                raise UsageError(f"the parameters of {function['name']} must be an object's to force a call")
            opening = f'<tool_call>\n{{"name": {json.dumps(function["name"])}, "arguments": '
            arguments = self._json(function.get("parameters") or _ANY_OBJECT)
            calls.append(grammar.concat(_literal(grammar, opening), arguments, _literal(grammar, "}\n</tool_call>")))
        return self._compiled(calls[0] if len(calls) == 1 else grammar.union(*calls), behind_thought)

    def _json(self, schema: Mapping[str, Any]) -> Any:
        try:
            text = json.dumps(schema)
            if len(text) > _SCHEMA_BYTES:
                raise UsageError(f"a schema of {len(text):,} characters is larger than {_SCHEMA_BYTES:,}")
            return self._library.Grammar.from_json_schema(text, any_whitespace=False)
        except (RuntimeError, ValueError, TypeError) as error:
            said = one_line(error).rpartition(": ")[2]  # behind the library's clock and source line
            raise UsageError(f"the schema cannot be followed: {said}") from error

    def _compiled(self, grammar: Any, behind_thought: bool) -> Grammar:
        opened_by = self._thought_end if behind_thought else None
        return _Compiled(self._library, self._compiler.compile_grammar(grammar), self._size, self._never, opened_by)


def _literal(grammar: Any, text: str) -> Any:
    return grammar.from_ebnf(f"root ::= {json.dumps(text)}")


class _Compiled:
    def __init__(self, library: Any, grammar: Any, size: int, never: list[int], opened_by: int | None) -> None:
        self.library, self.grammar, self.size, self.never, self.opened_by = library, grammar, size, never, opened_by

    def start(self) -> "_Place":
        return _Place(self)


class _Place:
    """See `pipo_core.decode.grammars.Matcher`."""

    def __init__(self, compiled: _Compiled) -> None:
        self._compiled = compiled
        self._matcher = compiled.library.GrammarMatcher(compiled.grammar)
        self._bits = compiled.library.allocate_token_bitmask(1, compiled.size)
        self._opened = compiled.opened_by is None

    @property
    def active(self) -> bool:
        return self._opened and not self._matcher.is_terminated()

    def allowed(self) -> torch.Tensor:
        self._matcher.fill_next_token_bitmask(self._bits)
        places = torch.arange(32, dtype=torch.int32)
        may: torch.Tensor = ((self._bits[0][:, None] >> places) & 1).bool().flatten()[: self._compiled.size]
        may[self._compiled.never] = False
        return may

    def accept(self, token: int) -> None:
        if self.active:
            self._matcher.accept_token(token)
        elif token == self._compiled.opened_by:
            self._opened = True
