"""The tokenizer of a checkpoint folder, and the ids that end a text."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pipo_core.chat.layout import encode_prompt
from pipo_core.errors import CheckpointError
from pipo_core.text import one_line


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a checkpoint folder; code in the folder is never run.

    Raises:
        CheckpointError: if it is missing or damaged, or lacks a PAD token or a working chat template.
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
    """Raise `error` again unless it comes from a damaged tokenizer or template: Ctrl-C, for example.

    For damaged files the tokenizers library raises a bare `Exception`, or a `PanicException`, which is not derived from
    `Exception`. A chat template is a program and may raise anything.

    Raises:
        BaseException: `error`, if it is not a failure.
    """
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error


def end_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids that end a text: the end of the turn, and the end of the text.

    The id of the end of the text is PAD's id, too. As a first token or a kept draft it ends the text (algorithm,
    section 1).
    """
    return frozenset((int(tokenizer.eos_token_id), int(tokenizer.pad_token_id)))
