"""The tokenizer of a checkpoint folder, and the ids that end a text."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pipo_core.chat.bounds import bounded
from pipo_core.chat.layout import encode_prompt, turn_end
from pipo_core.errors import CheckpointError
from pipo_core.files import read_object
from pipo_core.text import one_line

_GENERATION = "generation_config.json"


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
        with bounded(f"the chat template in {folder}"):
            encode_prompt(tokenizer, [{"role": "user", "content": "1"}])
            turn_end(tokenizer)
    except CheckpointError:
        raise
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


def end_ids(tokenizer: PreTrainedTokenizerBase, folder: Path | None = None) -> frozenset[int]:
    """Return the ids that end a text: those of every part of a checkpoint that names one.

    The tokenizer's end token is often that of a base model, which never ends a turn. So the token with which the chat
    template ends an assistant's turn is included, and those in ``generation_config.json``. PAD has the id of
    end-of-text: as a first token or a kept draft it ends the text (algorithm, section 1).

    Args:
        tokenizer: the checkpoint's.
        folder: the checkpoint's; None to leave out its generation configuration.
    """
    named = {int(tokenizer.eos_token_id), int(tokenizer.pad_token_id), turn_end(tokenizer)}
    if folder is not None and (folder / _GENERATION).is_file():
        listed = read_object(folder / _GENERATION).get("eos_token_id")
        named |= {token for token in (listed if isinstance(listed, list) else [listed]) if type(token) is int}
    return frozenset(token for token in named if token is not None and 0 <= token < len(tokenizer))
