"""The strict base class of every schema, rules across fields, and the marks of fields."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, model_validator

Loc = tuple[str | int, ...]

MAX_NAME = 100
"""Longest name of a run, a stage or an arm: file names are made of it."""


@dataclass(frozen=True)
class Finding:
    """A broken rule across fields of one model.

    Attributes:
        at: path within the model where the message is shown.
        message: what is wrong.
        others: paths of the other fields that the rule is about.
    """

    at: Loc
    message: str
    others: tuple[Loc, ...] = ()


class CrossFieldError(ValueError):
    """All findings of one model in one exception, because pydantic keeps only one per model."""

    def __init__(self, findings: list[Finding]) -> None:
        """Keep the `findings`; the message, shown when a model is built in Python, joins them."""
        super().__init__("; ".join(f"{'.'.join(map(str, f.at))}: {f.message}" for f in findings))
        self.findings = findings


class RecipeModel(BaseModel):
    """A strict, frozen model: unknown keys are rejected, and types are not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def findings(self) -> Iterator[Finding]:
        """Yield every broken rule across this model's fields; each field by itself is valid already.

        A model that has such rules states them in the docstring of its method, which docs/recipes.md shows.
        """
        yield from ()

    @model_validator(mode="after")
    def _check_across_fields(self) -> Self:
        findings = list(self.findings())
        if findings:
            raise CrossFieldError(findings)
        return self


def by_kind(kinds: str, error: str) -> Discriminator:
    """Return what tells models of a union apart by their ``kind``.

    Args:
        kinds: the kinds, for the message.
        error: the name of the error for another kind.
    """
    return Discriminator(
        lambda value: value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None),
        custom_error_type=error,
        custom_error_message=f"kind must be one of {kinds}",
    )


@dataclass(frozen=True)
class Reference:
    """Marks a field that names an input: a catalog name of `kind`, a hub id, a path or `stage:NAME`.

    Attributes:
        kind: the kind of catalog names that the field takes.
        holds: what the input must be: a model, an adapter (or a training's folder), or a file of rows.
        file: the file of rows to read if the input is a folder.
        generated: values that stand for data pipo generates itself; they are settings, not inputs.
        tables: whether a folder of several files of rows may be read as a whole.
    """

    kind: str
    holds: Literal["model", "adapter", "rows"] = "model"
    file: str = ""
    generated: frozenset[str] = frozenset()
    tables: bool = False


@dataclass(frozen=True)
class Neutral:
    """Marks a field that does not change a job's result, only its speed or its output on the way."""


NEUTRAL = Neutral()


class JobRecipe(RecipeModel):
    """Fields of every recipe."""

    speed_is_the_result: ClassVar[bool] = False
    """Whether `Neutral` settings change the result after all, because the job measures speed."""

    run: Annotated[str, NEUTRAL] = Field(
        default="run",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=MAX_NAME,
        description="Folder of this run under outputs/ (default: the recipe's file name).",
    )

    @property
    def stage(self) -> str:
        """Return the name of the stage's folder, where a pipeline gives it no other."""
        return str(getattr(self, "kind", ""))


ModelRef = Annotated[str, Reference("model")]
AdapterRef = Annotated[str, Reference("model", holds="adapter")]


def rows_ref(
    file: str, *, kind: str = "data", generated: frozenset[str] = frozenset(), tables: bool = False
) -> Reference:
    """Return the mark of a field that names a JSON-lines file, or a folder that holds one called `file`.

    With ``tables`` it may also be a file of another form, or a folder of such files.
    """
    return Reference(kind, holds="rows", file=file, generated=generated, tables=tables)


Seed = Annotated[int, Field(ge=0, lt=2**32, description="Seed of everything random in this job.")]


def unique(names: list[str], at: str, what: str) -> Iterator[Finding]:
    """Yield a finding for each repeated name.

    Args:
        names: the names of the items, in their order.
        at: the field that holds the list of items.
        what: the word for one item in the message.
    """
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield Finding((at, index, "name"), f"a second {what} called {name!r}")
        seen.add(name)


def repeated(at: Loc, items: Sequence[Any], how: str = "given") -> Iterator[Finding]:
    """Yield a finding for each item of a list that stands in it already.

    Args:
        at: the field that holds the list.
        items: its items.
        how: the word for what was done with the item in the message.
    """
    for index, item in enumerate(items):
        if item in items[:index]:
            yield Finding((*at, index), f"{'null' if item is None else item} is {how} twice")


def dump(recipe: RecipeModel) -> dict[str, Any]:
    """Return the recipe as plain values that JSON can hold, defaults included."""
    return recipe.model_dump(mode="json")
