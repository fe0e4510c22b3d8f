"""`kind: build`: rollouts become a training set (docs/algorithm.md)."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pipo_core.recipes.base import Finding, JobRecipe, Seed, repeated, rows_ref
from pipo_core.recipes.problems import Problems, columns_findings


def _as_list(value: Any) -> Any:
    """Return one name as a list of one."""
    return [value] if isinstance(value, str) else value


class BuildRecipe(JobRecipe):
    """Chooses answers, or questions, and writes them as train.jsonl, with a data card."""

    kind: Literal["build"] = Field(default="build", description="The kind of recipe.")
    rollouts: Annotated[list[str], BeforeValidator(_as_list), rows_ref("rollouts.jsonl")] = Field(
        default=[],
        description="Rollouts to choose from, one or a list: folders of rollout runs, or their rollouts.jsonl. Of a "
        "rollout in shards all of them are given.",
        examples=[["x/y"]],
    )
    worked: Problems | None = Field(
        default=None, description="Instead of rollouts: problems with worked solutions, which become the examples."
    )
    rows: Literal["answers", "questions"] = Field(
        default="answers",
        description="answers: a row for each chosen answer, for pipo train; questions: a row for each question, "
        "without an answer, for pipo distill.",
    )
    pick: Literal["all", "shortest"] = Field(
        default="all", description="all: all correct finished answers (the paper's); shortest: one per problem."
    )
    minimum_solved: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Leave out problems of which a smaller share of the answers is correct (paper: 0.5 for "
        "distillation).",
    )
    max_tokens: int | None = Field(default=None, ge=1, description="Leave out longer answers, in tokens; null: none.")
    max_repetition: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Leave out answers of which a larger share stands in a passage of 64 characters that occurs four "
        "times or more; null: none (the paper's). Loops have shares near 1, honest answers near 0.",
    )
    drop_overlap: bool = Field(
        default=True, description="Leave out questions that are, or contain, one of a benchmark; they are counted."
    )
    hash_range: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=2, max_length=2)] = Field(
        default=[0.0, 1.0],
        description="Use only questions whose hash, a number in [0, 1), is from the first value on and below the "
        "second. The paper's 90/10: [0, 0.9] for fine-tuning, [0.9, 1] for distillation.",
    )
    validation_share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="About this share of the questions goes to validation.jsonl instead, by another hash of each: a "
        "question is on the same side in every build.",
    )
    seed: Seed = 0

    def findings(self) -> Iterator[Finding]:
        """Give either rollouts or worked; hash_range rises; keys about answers need answers that are chosen from."""
        if (not self.rollouts) == (self.worked is None):
            yield Finding(("rollouts",), "give either rollouts or worked", (("worked",),))
        yield from repeated(("rollouts",), self.rollouts)
        if self.hash_range[0] >= self.hash_range[1]:
            yield Finding(("hash_range",), "the second value must be above the first")
        chosen = {"pick": self.pick != "all", "max_tokens": self.max_tokens is not None}
        chosen["max_repetition"] = self.max_repetition is not None
        if self.rows == "questions":
            if self.worked is not None:
                yield Finding(("rows",), "worked solutions are answers: give rollouts", (("worked",),))
            for name in (name for name, given in chosen.items() if given):
                yield Finding((name,), "rows: questions have no answers to choose from", (("rows",),))
        elif self.worked is not None:
            chosen["minimum_solved"] = self.minimum_solved > 0
            for name in (name for name, given in chosen.items() if given):
                yield Finding((name,), "worked solutions are all taken: it needs rollouts", (("worked",),))
        if self.worked is not None and self.worked.columns is not None:
            at = ("worked", "columns")
            why = "of worked problems the solution is learned"
            yield from columns_findings(self.worked.columns, {"answer": why, "level": why}, at)
            if self.worked.columns.solution is None:
                yield Finding((*at, "solution"), "worked problems need the column of the solution")
