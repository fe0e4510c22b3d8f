"""Distillation's examples: the questions, and the student's answers to them in slots.

Training reads exactly what the rollout read: the prompt as `chat.encode_prompt` encodes it, with the template's
``<think>`` line and made even by one PAD, then the sampled slots. PADs are known by a mask, never by their id, because
the same id is end-of-text, which a student may write.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, overload

import torch
from transformers import PreTrainedTokenizerBase

from pipo_core.chat import encode_prompt
from pipo_core.data.augment import IGNORED
from pipo_core.engine import Slot
from pipo_core.errors import MissingInputError, UsageError
from pipo_core.model.slots import even_prompt
from pipo_core.train.rows import read_rows


@dataclass(frozen=True)
class Question:
    """One prompt.

    Attributes:
        line: of the data file, from 1.
        prompt_ids: token ids without PADs.
    """

    line: int
    prompt_ids: tuple[int, ...]


class Questions:
    """The prompts of one data file: a map-style dataset of `Question`.

    Attributes:
        dropped: rows that are left out because their questions were too long.
    """

    def __init__(self, questions: Sequence[Question], dropped: int) -> None:
        """Hold questions that were read by `read_questions`."""
        self._questions = questions
        self.dropped = dropped

    def __len__(self) -> int:
        """Return how many questions there are."""
        return len(self._questions)

    @overload
    def __getitem__(self, index: int) -> Question: ...

    @overload
    def __getitem__(self, index: Literal["lengths"]) -> list[int]: ...

    def __getitem__(self, index: int | Literal["lengths"]) -> Question | list[int]:
        """Return one question, or the token count of each: ms-swift groups examples by the column ``lengths``."""
        if isinstance(index, str):
            return [len(question.prompt_ids) for question in self._questions]
        return self._questions[index]


def read_questions(
    file: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_prompt: int,
    limit: int | None,
    progress: Callable[[int], None],
) -> Questions:
    """Return the questions of a data file: of each row, the messages up to the last user turn.

    Args:
        file: JSON lines of ``{"messages": [...]}``, checked by `rows.check_rows`.
        tokenizer: the student's, with its chat template.
        max_prompt: longer questions, in tokens, are left out and counted.
        limit: read at most this many rows.
        progress: called with the number of rows done.

    Raises:
        MissingInputError: for a row that the chat template does not take, naming its line, or if no question is left.
    """
    questions: list[Question] = []
    number = dropped = 0
    for number, row in enumerate(read_rows(file, limit), start=1):
        last = max(index for index, message in enumerate(row.messages) if message["role"] == "user")
        try:
            ids = encode_prompt(tokenizer, row.messages[: last + 1])
        except UsageError as error:
            raise MissingInputError(f"{file}:{row.line}: {error.message}", hint=error.hint) from error
        if len(ids) > max_prompt:
            dropped += 1
        else:
            questions.append(Question(row.line, tuple(ids)))
        progress(number)
    if not questions:
        raise MissingInputError(
            f"{file}: all {dropped} questions are longer than data.max_prompt ({max_prompt} tokens)",
            hint="give a larger data.max_prompt",
        )
    return Questions(questions, dropped)


class Rollout(NamedTuple):
    """A prompt and the slots that the student sampled after it, as lists of one even length.

    Attributes:
        input_ids: token ids; a PAD in each second place whose draft was rejected or not made.
        labels: the token that was sampled at each position, rejected drafts included; `IGNORED` where none was.
        pads: True at PADs.
    """

    input_ids: list[int]
    labels: list[int]
    pads: list[bool]


class RolloutBatch(NamedTuple):
    """Rollouts padded on the right to one even length with PADs that have no label.

    Attributes:
        input_ids: ``[B, T]``.
        labels: ``[B, T]``.
        pads: ``[B, T]``.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    pads: torch.Tensor


def lay_out_rollout(prompt_ids: Sequence[int], slots: Sequence[Slot], pad_id: int) -> Rollout:
    """Return a prompt and the slots after it in the layout that training reads.

    A rejected draft is its label, as it was sampled, and PAD in the input: the student reads PAD in its place.
    """
    ids = even_prompt(prompt_ids, pad_id)
    labels = [IGNORED] * len(ids)
    pads = [False] * len(prompt_ids) + [True] * (len(ids) - len(prompt_ids))
    for slot in slots:
        kept = slot.kept and slot.draft is not None
        ids += [slot.first, slot.draft if slot.draft is not None and kept else pad_id]
        labels += [slot.first, IGNORED if slot.draft is None else slot.draft]
        pads += [False, not kept]
    return Rollout(ids, labels, pads)


def collate_rollouts(rollouts: Sequence[Rollout], pad_id: int) -> RolloutBatch:
    """Return rollouts as a batch."""
    width = max(len(rollout.input_ids) for rollout in rollouts)
    parts = [
        [getattr(rollout, name) + [fill] * (width - len(rollout.input_ids)) for rollout in rollouts]
        for name, fill in (("input_ids", pad_id), ("labels", IGNORED), ("pads", True))
    ]
    return RolloutBatch(*(torch.tensor(part) for part in parts))


def without_pads(input_ids: torch.Tensor, pads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the text without PADs, and where each position of the batch is in it.

    Args:
        input_ids: ``[B, T]``; the first position of each sequence is not a PAD.
        pads: ``[B, T]``, True at PADs and at the batch's padding.

    Returns:
        ``text``, ``[B, T']``, padded on the right, and ``positions``, ``[B, T]``: the number of tokens up to and with
        each position that are not PADs, minus one. A PAD has the position of the token before it.
    """
    real = ~pads
    positions = real.long().cumsum(dim=1) - 1
    text = input_ids.new_zeros(len(input_ids), int(real.sum(dim=1).max()))
    rows = torch.arange(len(input_ids), device=input_ids.device)[:, None].expand_as(input_ids)
    text[rows[real], positions[real]] = input_ids[real]
    return text, positions
