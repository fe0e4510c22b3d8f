"""From messages to token ids and back: tokenizer, chat layout, control tokens, detokenizer."""

from pipo_core.chat.control_tokens import END_OF_THOUGHT, THOUGHT, ControlTokens
from pipo_core.chat.detokenizer import Detokenizer
from pipo_core.chat.layout import encode_prompt
from pipo_core.chat.thought import ThoughtSplitter
from pipo_core.chat.tokenizer import end_ids, load_tokenizer

__all__ = [
    "END_OF_THOUGHT",
    "THOUGHT",
    "ControlTokens",
    "Detokenizer",
    "ThoughtSplitter",
    "encode_prompt",
    "end_ids",
    "load_tokenizer",
]
