"""The decoding methods: what is known of each without loading a model.

This is the one table of methods. Recipes, the engine, bench, eval, compare and the terminal ask it; nobody compares a
method's name. How a method decodes stands in `pipo_core.decode`, in one class a method, which refers to its entry here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MethodName = Literal["regular", "mtp", "eagle", "pipo"]
Option = Literal["tau", "acceptance", "draft_vocab", "drafts"]
Part = Literal["compressor", "mtp", "confidence_head"]

DEFAULT_TAU = 0.95
"""The paper's confidence threshold."""


@dataclass(frozen=True)
class MethodSpec:
    """One decoding method.

    Attributes:
        name: how recipes and commands call it.
        summary: what it writes, in a few words, for help texts.
        needs: the parts of a checkpoint that it uses beside backbone and LM head.
        options: the settings that it has; any other one is refused where a user names it for this method.
        cache_width: tokens that a cached position holds: 2 where the backbone reads slots.
        fixed_drafts: drafts a step; None where the option ``drafts`` sets the number.
    """

    name: MethodName
    summary: str
    needs: frozenset[Part] = frozenset()
    options: frozenset[Option] = frozenset()
    cache_width: Literal[1, 2] = 1
    fixed_drafts: int | None = 0

    @property
    def reads_pairs(self) -> bool:
        """Whether the backbone reads slots of two tokens."""
        return self.cache_width == 2

    @property
    def uses_mtp(self) -> bool:
        """Whether it runs the MTP block."""
        return "mtp" in self.needs

    def max_step_tokens(self, drafts: int) -> int:
        """Return the most real tokens that one step writes; ``drafts`` is the value of that option."""
        return 1 + (drafts if self.fixed_drafts is None else self.fixed_drafts)


METHODS: Mapping[MethodName, MethodSpec] = {
    spec.name: spec
    for spec in (
        MethodSpec("regular", "one token a step"),
        MethodSpec("mtp", "two, unverified", needs=frozenset({"mtp"}), fixed_drafts=1),
        MethodSpec(
            "eagle",
            "verified drafts",
            needs=frozenset({"mtp"}),
            options=frozenset({"drafts"}),
            fixed_drafts=None,
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
"""What an uncompressed model decodes with, unless something else is asked for."""

PAIRS = METHODS["pipo"]
"""What a pair model decodes with, unless something else is asked for."""


def methods_with(option: str) -> str:
    """Return the names of the methods that have an option, for messages."""
    return ", ".join(name for name, spec in METHODS.items() if option in spec.options)


@dataclass(frozen=True)
class Decoding:
    """A method, and what decides which of its drafts are kept.

    Attributes:
        method: its name.
        tau: confidence threshold; None for the method's default, and where it has none.
        acceptance: keep this share of the drafts by a coin instead; None leaves it to the threshold.
        draft_vocab: drafts come from this many of the most frequent tokens; None leaves it to the engine's settings.
    """

    method: MethodName
    tau: float | None = None
    acceptance: float | None = None
    draft_vocab: int | None = None

    @property
    def spec(self) -> MethodSpec:
        """What is known of the method."""
        return METHODS[self.method]

    def label(self, name: str) -> str:
        """Return what files, tables and plots call this decoding of the arm ``name``."""
        if self.acceptance is not None:
            return f"{name}@{100 * self.acceptance:.12g}%"
        return name if self.tau is None else f"{name}@{self.tau:.12g}"
