"""Distillation's questions, and the student's answers to them in slots.

What a rollout reads and what training reads are one layout: the prompt as `chat.encode_prompt` lays it out, with
the template's ``<think>`` line, made even by one PAD, then the slots as they were drawn. PADs are told apart by a mask,
never by id: the id is also end-of-text's, which a student may write.
"""

import json
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
from pipo_core.train.rows import read_lines


@dataclass(frozen=True)
class Question:
    """A prompt as token ids, without PADs, and the line of the file that it is from, from 1."""

    line: int
    prompt_ids: tuple[int, ...]


class Questions:
    """The prompts of one file: a map-style dataset of `Question`; ``dropped`` were too long."""

    def __init__(self, questions: Sequence[Question], dropped: int) -> None:
        self._questions = questions
        self.dropped = dropped

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._questions)

    @overload
    def __getitem__(self, index: int) -> Question: ...

    @overload
    def __getitem__(self, index: Literal["lengths"]) -> list[int]: ...

    def __getitem__(self, index: int | Literal["lengths"]) -> Question | list[int]:
        """Return one question, or the tokens of each: ms-swift groups rows by this column."""
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
    """Return the questions of a file of ``{"messages": [...]}``, checked by `rows.check_rows`.

    A question is what stands up to the last user turn.

    Raises:
        MissingInputError: for a row that the chat template does not take, by its line, or if no row is left.
    """
    questions: list[Question] = []
    number = dropped = 0
    for number, (line, content) in enumerate(read_lines(file, limit), start=1):
        messages = json.loads(content)["messages"]
        last = max(index for index, message in enumerate(messages) if message["role"] == "user")
        try:
            ids = encode_prompt(tokenizer, messages[: last + 1])
        except UsageError as error:
            raise MissingInputError(f"{file}:{line}: {error.message}") from error
        if len(ids) > max_prompt:
            dropped += 1
        else:
            questions.append(Question(line, tuple(ids)))
        progress(number)
    if not questions:
        raise MissingInputError(
            f"{file}: all {dropped} questions are longer than data.max_prompt ({max_prompt} tokens)",
            hint="give a larger data.max_prompt",
        )
    return Questions(questions, dropped)


class DrawnRow(NamedTuple):
    """A prompt and the slots that the student wrote behind it; lists of one even length.

    Attributes:
        input_ids: token ids, PADs in second places where a draft was rejected or none was made.
        labels: what was drawn at each place of the answer, rejected drafts among it; -100 where nothing was.
        pads: True on PADs.
    """

    input_ids: list[int]
    labels: list[int]
    pads: list[bool]


class DrawnBatch(NamedTuple):
    """Rows padded on the right to one even length, ``[B, T]`` each; padding is PADs without a label."""

    input_ids: torch.Tensor
    labels: torch.Tensor
    pads: torch.Tensor


def lay_out(prompt_ids: Sequence[int], slots: Sequence[Slot], pad_id: int) -> DrawnRow:
    """Return a rollout as a training row."""
    ids = even_prompt(prompt_ids, pad_id)
    labels = [IGNORED] * len(ids)
    pads = [place >= len(prompt_ids) for place in range(len(ids))]
    for slot in slots:
        kept = slot.kept and slot.draft is not None
        ids += [slot.first, slot.draft if slot.draft is not None and kept else pad_id]
        labels += [slot.first, IGNORED if slot.draft is None else slot.draft]
        pads += [False, not kept]
    return DrawnRow(ids, labels, pads)


def collate_drawn(rows: Sequence[DrawnRow], pad_id: int) -> DrawnBatch:
    """Return rows as a batch."""
    width = max(len(row.input_ids) for row in rows)
    parts = [
        [getattr(row, name) + [fill] * (width - len(row.input_ids)) for row in rows]
        for name, fill in (("input_ids", pad_id), ("labels", IGNORED), ("pads", True))
    ]
    return DrawnBatch(*(torch.tensor(part) for part in parts))


def without_pads(input_ids: torch.Tensor, pads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the text without PADs, ``[B, T']`` filled on the right, and where each place's word of it stands.

    ``places``, ``[B, T]``, is the running count of tokens that are no PADs, minus one: a PAD stands where the token
    before it does.

    Args:
        input_ids: ``[B, T]``; the first place of each row is no PAD.
        pads: ``[B, T]``, True on PADs and on the batch's padding.
    """
    real = ~pads
    places = real.long().cumsum(dim=1) - 1
    text = input_ids.new_zeros(len(input_ids), int(real.sum(dim=1).max()))
    rows = torch.arange(len(input_ids), device=input_ids.device)[:, None].expand_as(input_ids)
    text[rows[real], places[real]] = input_ids[real]
    return text, places
