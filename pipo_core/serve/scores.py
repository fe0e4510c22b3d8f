"""Log-probabilities in OpenAI's two shapes: of chats, and the older one of completions."""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from transformers import PreTrainedTokenizerBase

from pipo_core.decode.token_scores import TokenScore


class TokenTexts:
    """The bytes of single tokens: of a character that several tokens spell, each has a part.

    Args:
        tokenizer: one with byte-level BPE.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._added = {number: token.content for number, token in tokenizer.added_tokens_decoder.items()}

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes that a token stands for."""
        if token in self._added:
            return str(self._added[token]).encode()
        spelled = self._tokenizer.convert_ids_to_tokens([token])[0] or ""
        return bytes(_BYTES[character] for character in spelled if character in _BYTES)

    def text_of(self, token: int) -> str:
        r"""Return a token's text; ``bytes:\xe2`` for one that is only a part of a character."""
        raw = self.bytes_of(token)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def chat_scores(texts: TokenTexts, scores: Iterable[TokenScore]) -> dict[str, Any]:
    """Return the ``logprobs`` of a chat's choice."""

    def told(token: int, logprob: float) -> dict[str, Any]:
        return {"token": texts.text_of(token), "logprob": logprob, "bytes": list(texts.bytes_of(token))}

    content = [
        {**told(score.token, score.logprob), "top_logprobs": [told(*best) for best in score.top]} for score in scores
    ]
    return {"content": content, "refusal": None}


def completion_scores(
    texts: TokenTexts,
    scores: Sequence[TokenScore],
    *,
    unscored: Sequence[int] = (),
    begin: int = 0,
    as_ids: bool = False,
) -> dict[str, Any]:
    """Return the ``logprobs`` of a completion's choice.

    Args:
        texts: of the tokens.
        scores: of its tokens, in their order.
        unscored: tokens before them that have no score: the first one of a prompt.
        begin: the place in the text at which the first token begins.
        as_ids: whether tokens are told as ``token_id:5`` and not by their texts, which several may share (vLLM's form).
    """
    name = _id_of if as_ids else texts.text_of
    tokens = [*unscored, *(score.token for score in scores)]
    lengths = [len(texts.text_of(token)) for token in tokens[:-1]]
    nothing = [None] * len(unscored)
    return {
        "tokens": [name(token) for token in tokens],
        "token_logprobs": [*nothing, *(score.logprob for score in scores)],
        "top_logprobs": [*nothing, *({name(token): value for token, value in score.top} for score in scores)],
        "text_offset": list(accumulate(lengths, initial=begin)) if tokens else [],
    }


def _id_of(token: int) -> str:
    return f"token_id:{token}"


def _byte_alphabet() -> dict[str, int]:
    """Return the characters by which byte-level BPE spells bytes (GPT-2): printable ones spell themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_alphabet()
