"""The table of decoding methods: what is known of each without loading a model.

Recipes, the engine, bench, eval, compare and the terminal ask this table; no code compares a method's name. In
`pipo_core.decode` each method has a class that refers to its entry here and does the decoding.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MethodName = Literal["regular", "mtp", "eagle", "pipo"]
Option = Literal["tau", "acceptance", "draft_vocab", "drafts"]
Part = Literal["compressor", "mtp", "confidence_head"]

DEFAULT_TAU = 0.95
"""The paper's confidence threshold."""
DEFAULT_DRAFTS = 3
"""The paper's number of eagle's drafts per step."""


@dataclass(frozen=True)
class MethodSpec:
    """One decoding method.

    Attributes:
        name: its name in recipes and commands.
        summary: what it writes in a step, in a few words, for help texts.
        needs: the parts of a checkpoint that it uses besides backbone and LM head.
        options: its settings; a setting of another method is rejected.
        cache_width: tokens per cached position: 2 if the backbone reads slots.
        fixed_drafts: drafts per step; None if the option ``drafts`` sets the number.
        verified: whether the backbone checks the drafts, so that the text is as without them.
    """

    name: MethodName
    summary: str
    needs: frozenset[Part] = frozenset()
    options: frozenset[Option] = frozenset()
    cache_width: Literal[1, 2] = 1
    fixed_drafts: int | None = 0
    verified: bool = False

    @property
    def reads_pairs(self) -> bool:
        """Return whether the backbone reads slots of two tokens."""
        return self.cache_width == 2

    @property
    def uses_mtp(self) -> bool:
        """Return whether it runs the MTP block."""
        return "mtp" in self.needs


METHODS: Mapping[MethodName, MethodSpec] = {
    spec.name: spec
    for spec in (
        MethodSpec("regular", "one token a step"),
        MethodSpec("mtp", "two, unverified", needs=frozenset({"mtp"}), fixed_drafts=1),
        MethodSpec(
            "eagle",
            "verified drafts",
            needs=frozenset({"mtp"}),
            options=frozenset({"drafts", "acceptance"}),
            fixed_drafts=None,
            verified=True,
        ),
        MethodSpec(
            "pipo",
            "up to two",
            needs=frozenset({"compressor", "mtp", "confidence_head"}),
            options=frozenset({"tau", "acceptance", "draft_vocab"}),
            cache_width=2,
            fixed_drafts=1,
        ),
    )
}


PLAIN = METHODS["regular"]
"""The default method of an uncompressed model."""

PAIRS = METHODS["pipo"]
"""The default method of a pair model."""

VERIFIED = METHODS["eagle"]
"""The method that makes an uncompressed model faster without changing its text."""


def methods_with(option: str) -> str:
    """Return the names of the methods that have an option, joined for a message."""
    return ", ".join(name for name, spec in METHODS.items() if option in spec.options)


@dataclass(frozen=True)
class Decoding:
    """A method with the options that one arm gives it.

    Attributes:
        method: its name.
        tau: confidence threshold; None for the method's default, or if it has no such option.
        acceptance: share of the drafts to keep, evenly spread; None for the method to decide.
        draft_vocab: number of most frequent tokens that drafts come from; None for all.
        drafts: drafts per step, if the method lets it be chosen; None for `DEFAULT_DRAFTS`.
    """

    method: MethodName
    tau: float | None = None
    acceptance: float | None = None
    draft_vocab: int | None = None
    drafts: int | None = None

    @property
    def spec(self) -> MethodSpec:
        """Return the method's entry in the table."""
        return METHODS[self.method]

    @property
    def drafts_per_step(self) -> int:
        """Return how many drafts a step makes, where it makes as many as it can."""
        fixed = self.spec.fixed_drafts
        return (self.drafts or DEFAULT_DRAFTS) if fixed is None else fixed

    @property
    def max_step_tokens(self) -> int:
        """Return the most tokens that one step writes, PAD not counted."""
        return 1 + self.drafts_per_step

    def label(self, name: str) -> str:
        """Return the name of this decoding of the arm ``name`` in files, tables and plots."""
        if self.acceptance is not None:
            return f"{name}@{100 * self.acceptance:.12g}%"
        return name if self.tau is None else f"{name}@{self.tau:.12g}"
