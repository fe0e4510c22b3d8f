"""Chat layout: from messages to a prompt's ids, the same for training, rollouts and evaluation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pipo_core.errors import CheckpointError


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a checkpoint folder; code in the folder is never run.

    Raises:
        CheckpointError: if it is missing or damaged, or has no chat template or PAD.
    """
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(f"{folder} has no tokenizer.json")
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder))
    except Exception as error:  # the tokenizers library raises bare Exception for damaged files
        raise CheckpointError(f"the tokenizer in {folder} cannot be read: {error}") from error
    if tokenizer.pad_token_id is None or tokenizer.eos_token_id is None:
        raise CheckpointError(f"the tokenizer in {folder} names no pad_token or no eos_token")
    if not tokenizer.chat_template:
        raise CheckpointError(f"the tokenizer in {folder} has no chat template")
    return tokenizer


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> list[int]:
    r"""Return the ids of a conversation up to where the assistant writes, the template's ``<think>\n`` included."""
    text = tokenizer.apply_chat_template(
        [dict(message) for message in messages],
        add_generation_prompt=True,
        enable_thinking=True,
        tokenize=False,
    )
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


def end_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids that end a text: the turn's end, and end-of-text, which is PAD's id too.

    Emitted as a first token or as a kept draft it is an end, never a pad (algorithm, section 1).
    """
    return frozenset((int(tokenizer.eos_token_id), int(tokenizer.pad_token_id)))
