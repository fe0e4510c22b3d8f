"""The strict base of every schema, checks across fields, and the marks that fields carry."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Loc = tuple[str | int, ...]

MAX_NAME = 100
"""Longest name of a run, a stage or an arm: it becomes a file's name, and others grow from it."""


@dataclass(frozen=True)
class Finding:
    """A broken rule across fields: shown at `at`, about `at` and `others` (paths within the model)."""

    at: Loc
    message: str
    others: tuple[Loc, ...] = ()


class CrossFieldError(ValueError):
    """Carries all findings of one model through pydantic, which would keep only one message."""

    def __init__(self, findings: list[Finding]) -> None:
        """Keep the `findings`; the message joins them, for those who build a model in Python."""
        super().__init__("; ".join(f"{'.'.join(map(str, f.at))}: {f.message}" for f in findings))
        self.findings = findings


class RecipeModel(BaseModel):
    """Unknown keys are refused, types are not converted, values do not change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def findings(self) -> Iterator[Finding]:
        """Yield every broken rule across this model's fields; single fields are valid already."""
        yield from ()

    @model_validator(mode="after")
    def _check_across_fields(self) -> Self:
        findings = list(self.findings())
        if findings:
            raise CrossFieldError(findings)
        return self


@dataclass(frozen=True)
class Reference:
    """Marks a field that names an input: a catalog name of `kind`, a hub id, a path or `stage:NAME`.

    Attributes:
        kind: of the catalog.
        holds: what must lie there: a model, an adapter or what a training left, or a file of rows.
        file: the rows' file where the input is a folder.
        generated: values that name something pipo makes itself; these are settings and no inputs.
    """

    kind: str
    holds: Literal["model", "adapter", "rows"] = "model"
    file: str = ""
    generated: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Neutral:
    """Marks a field that changes how fast or loudly a job works, not what it makes."""


NEUTRAL = Neutral()


class JobRecipe(RecipeModel):
    """What every recipe has."""

    speed_is_the_result: ClassVar[bool] = False
    """Whether a `Neutral` setting changes the result after all, because the job measures how fast it is."""

    run: Annotated[str, NEUTRAL] = Field(
        default="run",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=MAX_NAME,
        description="Folder under outputs/ that this run writes (default: the recipe's file name).",
    )


ModelRef = Annotated[str, Reference("model")]
AdapterRef = Annotated[str, Reference("model", holds="adapter")]


def rows_ref(file: str, *, kind: str = "data", generated: frozenset[str] = frozenset()) -> Reference:
    """Return the mark of a field that names a JSON-lines file, or a folder that holds one called `file`."""
    return Reference(kind, holds="rows", file=file, generated=generated)


Seed = Annotated[int, Field(ge=0, lt=2**32, description="Seed of every random draw.")]


def unique(names: list[str], at: str, what: str) -> Iterator[Finding]:
    """Yield a finding for each repeated name in the list `at`, whose items have a `name`."""
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield Finding((at, index, "name"), f"a second {what} called {name!r}")
        seen.add(name)


def dump(recipe: RecipeModel) -> dict[str, Any]:
    """Return the recipe as plain JSON-able values, defaults included."""
    return recipe.model_dump(mode="json")
