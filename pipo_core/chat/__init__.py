"""From messages to token ids and back: tokenizer, chat layout, control tokens, detokenizer."""

from pipo_core.chat.control_tokens import ControlTokens
from pipo_core.chat.detokenizer import Detokenizer
from pipo_core.chat.layout import encode_answered, encode_prompt, takes_tools
from pipo_core.chat.thought import ThoughtSplitter
from pipo_core.chat.tokenizer import end_ids, load_tokenizer
from pipo_core.chat.tool_calls import ToolCall, ToolCallSplitter

__all__ = [
    "ControlTokens",
    "Detokenizer",
    "ThoughtSplitter",
    "ToolCall",
    "ToolCallSplitter",
    "encode_answered",
    "encode_prompt",
    "end_ids",
    "load_tokenizer",
    "takes_tools",
]
