"""Arms: the sides of a comparison, each a checkpoint and a decoding method."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, get_args

from pydantic import Discriminator, Field, Tag

from pipo_core.recipes.base import Finding, Loc, ModelRef, RecipeModel, repeated
from pipo_core.recipes.common import Name
from pipo_core.recipes.methods import DEFAULT_TAU, METHODS, PAIRS, Decoding, MethodName, Option


def _share_form(value: Any) -> str:
    return "list" if isinstance(value, list) else "number"


Share = Annotated[float, Field(ge=0, le=1)]
ShareOrSweep = Annotated[
    Annotated[Share, Tag("number")]
    | Annotated[list[Share], Field(min_length=1), Tag("list")]
    | Annotated[None, Tag("none")],
    Discriminator(lambda value: "none" if value is None else _share_form(value)),
]


class Arm(RecipeModel):
    """One side of a comparison: a checkpoint and a decoding method."""

    name: Name = Field(description="Name of this arm in tables and plots.", examples=["x"])
    method: MethodName = Field(
        description="; ".join(f"{name}: {spec.summary}" for name, spec in METHODS.items()) + ".",
        examples=[PAIRS.name],
    )
    ckpt: ModelRef = Field(description="Checkpoint: a folder, catalog name, hub id or stage:NAME.", examples=["x/y"])
    tau: ShareOrSweep = Field(
        default=None,
        description="pipo only: keep drafts whose confidence is at least this; a list is a sweep (null: 0.95).",
    )
    acceptance: ShareOrSweep = Field(
        default=None,
        description="Keep this share of the drafts, evenly spread, in place of the gate's choice (pipo) or, in a bench "
        "alone, of verification (eagle); a list is a sweep.",
    )
    draft_vocab: int | None = Field(
        default=None,
        ge=1,
        description="pipo only: take drafts from this many of the training set's most frequent tokens; null: from all. "
        "Train with the same draft_vocab, a finished model by tuning.method: gate: the gate then drops the draft where "
        "another token should follow, and else may keep a wrong one.",
    )
    drafts: int | None = Field(
        default=None, ge=1, le=16, description="eagle only: drafts per step; null: 3, as in the paper."
    )

    def findings(self) -> Iterator[Finding]:
        """An arm takes only its method's options, and tau or acceptance but not both; a sweep has no value twice."""
        for option in get_args(Option):
            if getattr(self, option) is not None and option not in METHODS[self.method].options:
                yield Finding((option,), f"method {self.method} has no {option}; remove it", (("method",),))
        if self.acceptance is not None and self.tau is not None:
            yield Finding(
                ("acceptance",), "tau and acceptance both decide which drafts are kept; give one", (("tau",),)
            )
        for key in ("tau", "acceptance"):
            swept = getattr(self, key)
            yield from repeated((key,), swept if isinstance(swept, list) else ())

    def decodings(self) -> list[Decoding]:
        """Return the decodings of this arm: one for each threshold, or each fixed share, of its sweep."""
        if self.acceptance is not None:
            shares = self.acceptance if isinstance(self.acceptance, list) else [self.acceptance]
            return [self._decoding(acceptance=share) for share in shares]
        if "tau" not in METHODS[self.method].options:
            return [self._decoding()]
        taus = self.tau if isinstance(self.tau, list) else [DEFAULT_TAU if self.tau is None else self.tau]
        return [self._decoding(tau=tau) for tau in taus]

    def _decoding(self, tau: float | None = None, acceptance: float | None = None) -> Decoding:
        return Decoding(self.method, tau=tau, acceptance=acceptance, draft_vocab=self.draft_vocab, drafts=self.drafts)


def server_findings(index: int, arm: Arm, kind: str, others: tuple[Loc, ...]) -> Iterator[Finding]:
    """Yield a finding for each option of an arm that servers do not have.

    Args:
        index: the arm's place among the recipe's arms.
        arm: an arm that a server answers for.
        kind: of its engine.
        others: further keys that have to do with it.
    """
    for option in get_args(Option):
        if option != "tau" and getattr(arm, option) is not None:
            message = f"only the torch engine has {option}, and this arm's is {kind}; remove it"
            yield Finding(("arms", index, option), message, others)


def baseline_findings(baseline: str | None, arms: Sequence[Arm]) -> Iterator[Finding]:
    """Yield a finding if `baseline` is not the name of an arm."""
    names = [arm.name for arm in arms]
    if baseline is not None and baseline not in names:
        others = tuple(("arms", index, "name") for index in range(len(arms)))
        yield Finding(("baseline",), f"no arm is called {baseline!r}; arms: {', '.join(names)}", others)
