"""The tokenizer of a checkpoint folder, and the ids that end a text."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pipo_core.chat.layout import encode_prompt
from pipo_core.errors import CheckpointError
from pipo_core.text import one_line


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a checkpoint folder; code in the folder is never run.

    Raises:
        CheckpointError: if it is missing or damaged, or has no PAD, or no chat template that works.
    """
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(f"{folder} has no tokenizer.json")
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder))
    except BaseException as error:
        _reraise_unless_failed(error)
        raise CheckpointError(f"the tokenizer in {folder} cannot be read: {one_line(error)}") from error
    if tokenizer.pad_token_id is None or tokenizer.eos_token_id is None:
        raise CheckpointError(f"the tokenizer in {folder} names no pad_token or no eos_token")
    if not tokenizer.chat_template:
        raise CheckpointError(f"the tokenizer in {folder} has no chat template")
    try:
        encode_prompt(tokenizer, [{"role": "user", "content": "1"}])
    except BaseException as error:
        _reraise_unless_failed(error)
        raise CheckpointError(f"the tokenizer in {folder} cannot lay out a chat: {one_line(error)}") from error
    return tokenizer


def _reraise_unless_failed(error: BaseException) -> None:
    """Pass on what is no failure, such as Ctrl-C.

    For damaged files the tokenizers library raises a bare `Exception`, or panics with an exception that is none; a chat
    template is a program, and may fail in any way.
    """
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error


def end_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids that end a text: the turn's end, and end-of-text, which is PAD's id too.

    Emitted as a first token or as a kept draft it is an end, never a pad (algorithm, section 1).
    """
    return frozenset((int(tokenizer.eos_token_id), int(tokenizer.pad_token_id)))
