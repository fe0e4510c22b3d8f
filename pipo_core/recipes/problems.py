"""Which problems are asked: generated ones, or those of a file, whose columns may have any names."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from pipo_core.recipes.base import Finding, RecipeModel, Seed, rows_ref

GENERATED = frozenset({"tiny", "tiny-code"})
"""Names of the problems that pipo makes; they stand in the place of a file."""

QUESTION, INSTRUCTION = "{question}", "{instruction}"
"""What stands in a prompt for the text of a problem."""


class Columns(RecipeModel):
    """Which column of a file of problems holds what; dots lead into objects and lists (prompt.0.content)."""

    question: str = Field(description="The question.", examples=["x"])
    id: str | None = Field(default=None, description="A name of its own for each problem; null: file and row number.")
    answer: str | dict[str, str] | None = Field(
        default=None,
        description="The right answer; or a mapping that makes an object of several columns, such as "
        "{tests: official_tests, checker: generated_checker} for the code grader. Null columns are left out of it.",
    )
    level: str | None = Field(default=None, description="Difficulty, for tables.")
    instruction: str | None = Field(default=None, description="Text that follows the question in the user's turn.")
    solution: str | None = Field(default=None, description="Worked reasoning with the answer (build: worked).")


class Problems(RecipeModel):
    """Which problems are asked."""

    source: Annotated[str, rows_ref("problems.jsonl", generated=GENERATED, tables=True)] = Field(
        default="tiny",
        description="tiny (generated arithmetic), tiny-code (generated functions with tests), a catalog name, or a "
        "file of problems: .jsonl, .json (a list), .parquet or .csv, or a folder of them (its train-* files, if there "
        'are such). Without columns its rows are {"id", "question", "answer"}.',
    )
    split: Literal["train", "heldout"] = Field(
        default="train",
        description="Of generated problems: those for training, or held-out ones, which are in no training set.",
    )
    count: int | None = Field(default=None, ge=1, description="Number of problems, the first; null: all of a file.")
    columns: Columns | None = Field(
        default=None, description="The file's columns by what they hold; null: they have our names and no others."
    )
    where: dict[str, str | int | bool] = Field(
        default={}, description="Only the rows that have these values in these columns: {language: python}."
    )
    strip: Annotated[list[str], Field(min_length=2, max_length=2)] | None = Field(
        default=None,
        description="Texts around every question that do not belong to it, the one before and the one after; they are "
        "taken off, and a question without them is an error.",
    )
    prompt: str | None = Field(
        default=None,
        description="The user's turn, with {question} and perhaps {instruction} in it; null: the question, and on the "
        "next line the instruction.",
    )
    seed: Seed = 0

    def findings(self) -> Iterator[Finding]:
        """Keys about columns need a file; where needs columns; prompt has {question}, and reads {instruction}."""
        if self.source in GENERATED:
            for name in ("columns", "where", "strip"):
                if getattr(self, name):
                    yield Finding((name,), f"source: {self.source} has no columns; remove it", (("source",),))
        elif self.where and self.columns is None:
            yield Finding(("where",), "needs columns: without them every key of a row has one of our names")
        if self.prompt is not None and self.prompt.count(QUESTION) != 1:
            yield Finding(("prompt",), f"must hold {QUESTION} once")
        given = self.columns is not None and self.columns.instruction is not None
        if given and self.prompt is not None and INSTRUCTION not in self.prompt:
            message = f"nothing reads the instruction: prompt has no {INSTRUCTION}"
            yield Finding(("columns", "instruction"), message, (("prompt",),))


def columns_findings(columns: Any, unread: dict[str, str], at: tuple[str, ...]) -> Iterator[Finding]:
    """Yield an error for each column that is mapped and that a job does not read.

    Args:
        columns: the mapping; None for none.
        unread: what is not read, and why.
        at: where the mapping stands in the recipe.
    """
    for name, why in unread.items():
        if columns is not None and getattr(columns, name) is not None:
            yield Finding((*at, name), f"nothing reads it: {why}")
