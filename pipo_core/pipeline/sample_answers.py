"""Two answers of an evaluation with their slots shown, for the report."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipo_core.data.answers import Answer, read_index, read_row
from pipo_core.errors import PipoError
from pipo_core.evaluate.runner import answers_path
from pipo_core.recipes.catalog import CATALOG
from pipo_core.recipes.locate import bundled_model

BETWEEN_SLOTS, WITHIN = "│", "·"
_SHOWN_SLOTS = 60


def sample_answers(stage: Path, suite: str, arm: Mapping[str, Any]) -> str:
    """Return a right answer of an arm, and a wrong one if there is one, in Markdown; empty if slots are not known.

    The texts are tokenized again, and an answer whose text tokenizes otherwise than it was sampled is passed over.

    Args:
        stage: the evaluation's folder.
        suite: the suite's name.
        arm: its entry in the results.
    """
    log = answers_path(stage, suite, arm["label"])
    if arm["ckpt"] is None:
        return ""
    model = Path(arm["ckpt"])
    if arm["ckpt"] in CATALOG and CATALOG[arm["ckpt"]].bundled:
        model = bundled_model(arm["ckpt"])
    try:
        from pipo_core.chat import load_tokenizer

        tokenizer = load_tokenizer(model)
        answers = list(read_index(log).values())
    except PipoError:  # the checkpoint was moved, or the log is of another version
        return ""

    def tokens_of(text: str) -> list[str]:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        return [tokenizer.decode([token]) for token in ids]

    shown = [next(_with_slots(log, answers, tokens_of, right=right), "") for right in (True, False)]
    parts = [part for part in shown if part]
    head = f"Answers of `{arm['label']}`: {BETWEEN_SLOTS} stands between slots, {WITHIN} within one, ↵ for a new line."
    return "\n\n".join([head, *parts]) if parts else ""


def _with_slots(log: Path, answers: Sequence[Answer], tokens_of: Any, *, right: bool) -> Iterator[str]:
    """Yield the finished answers that are right, or wrong, with their slots."""
    for answer in answers:
        if not answer.finished or bool(answer.correct) is not right:
            continue
        row = read_row(log, answer)
        counts, tokens = row.get("slot_token_counts"), tokens_of(row["text"])
        if counts and sum(counts) == len(tokens) + 1:  # the end token has no text
            yield _block(row, slots_of(tokens, counts), right=right)


def slots_of(tokens: Sequence[str], counts: Sequence[int]) -> list[list[str]]:
    """Return an answer's tokens by slot; the end token, which ``counts`` count too, is left out."""
    slots: list[list[str]] = []
    place = 0
    for count in counts:
        slots.append(list(tokens[place : place + count]))
        place += count
    return [slot for slot in slots if slot]


def _block(row: Mapping[str, Any], slots: Sequence[Sequence[str]], *, right: bool) -> str:
    text = BETWEEN_SLOTS.join(WITHIN.join(slot) for slot in slots[:_SHOWN_SLOTS]).replace("\n", "↵")
    more = f" … ({len(slots) - _SHOWN_SLOTS} more slots)" if len(slots) > _SHOWN_SLOTS else ""
    known = f": it is {row['answer']}" if row.get("answer") is not None else ""
    verdict = "right" if right else f"wrong{known}"
    question = str(row.get("question", row["problem"])).replace("\n", " ")
    return f"{question} ({verdict})\n\n```\n{text.replace('```', '')}{more}\n```"
