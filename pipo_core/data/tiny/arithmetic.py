"""Arithmetic problems with worked reasoning, in varied words.

A problem is a chain of additions and subtractions; its level is the number of operations. The reasoning keeps a
running total. The wording of each step is sampled for every text, so that some next tokens are uncertain.

Whether a problem is held out is a property of the problem itself (a hash of its expression). So no training set of any
seed contains a held-out problem.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

LEVELS = (3, 4, 5)
_HELD_OUT_OF_256 = 26
"""One problem in ten is held out."""

_MAX_TOTAL = 20
"""No running total is larger, so that a small model can learn every step."""

_MAX_TRIES = 100
"""A problem may repeat after this many samples in a row were repetitions."""

_QUESTIONS = ("What is {}?", "Compute {}.", "Find {}.", "Evaluate {}.")
_STARTS = ("Start with {}.", "First take {}.", "We have {}.")
_STEPS = (
    "{before}{sign}{term}={after}.",
    "{verb} {term} to get {after}.",
    "{gerund} {term} gives {after}.",
    "Now {before}{sign}{term} is {after}.",
)
_ENDS = ("So the answer is {}.", "The result is {}.", "That makes {}.")


@dataclass(frozen=True)
class Chain:
    """``terms[0] ± terms[1] ± …``: ``signs`` has one entry per operation, and every running total is at least 0."""

    terms: tuple[int, ...]
    signs: tuple[str, ...]

    @property
    def expression(self) -> str:
        """The problem as written, such as ``14+3-5``."""
        return str(self.terms[0]) + "".join(f"{s}{t}" for s, t in zip(self.signs, self.terms[1:], strict=True))

    @property
    def totals(self) -> list[int]:
        """The running total after each operation."""
        totals, total = [], self.terms[0]
        for sign, term in zip(self.signs, self.terms[1:], strict=True):
            total += term if sign == "+" else -term
            totals.append(total)
        return totals

    @property
    def answer(self) -> int:
        """The value of the expression."""
        return self.totals[-1]

    @property
    def level(self) -> int:
        """Number of operations."""
        return len(self.signs)

    @property
    def held_out(self) -> bool:
        """Whether the problem belongs to the held-out tenth."""
        return hashlib.sha256(self.expression.encode()).digest()[0] < _HELD_OUT_OF_256


def chains(split: str, seed: int) -> Iterator[Chain]:
    """Yield problems of a split, the levels in turn, all different; a level ends when it runs out of new ones.

    Args:
        split: ``train`` or ``heldout``.
        seed: the same seed gives the same problems in the same order.
    """
    rng = random.Random(f"{split}-{seed}")  # noqa: S311 - problems, not secrets
    seen: set[str] = set()
    levels = list(LEVELS)
    while levels:
        for level in tuple(levels):
            tries = (_sample_chain_of(split, rng, level) for _ in range(_MAX_TRIES + 1))
            chain = next((chain for chain in tries if chain.expression not in seen), None)
            if chain is None:
                levels.remove(level)
                continue
            seen.add(chain.expression)
            yield chain


def question(chain: Chain, rng: random.Random) -> str:
    """Return the question in one of several wordings."""
    return rng.choice(_QUESTIONS).format(chain.expression)


def reasoning(chain: Chain, rng: random.Random) -> str:
    r"""Return worked reasoning and the final ``\boxed{}``, as a model writes them after ``<think>\n``."""
    sentences = [rng.choice(_STARTS).format(chain.terms[0])]
    before = chain.terms[0]
    for sign, term, after in zip(chain.signs, chain.terms[1:], chain.totals, strict=True):
        verb, gerund = ("Add", "Adding") if sign == "+" else ("Subtract", "Subtracting")
        style = rng.choice(_STEPS)
        sentences.append(style.format(before=before, sign=sign, term=term, after=after, verb=verb, gerund=gerund))
        before = after
    sentences.append(rng.choice(_ENDS).format(chain.answer))
    return " ".join(sentences) + f"\n</think>\n\n\\boxed{{{chain.answer}}}"


def _sample_chain_of(split: str, rng: random.Random, level: int) -> Chain:
    """Return a random problem that belongs to ``split``."""
    chain = _sample_chain(rng, level)
    while chain.held_out != (split == "heldout"):
        chain = _sample_chain(rng, level)
    return chain


def _sample_chain(rng: random.Random, level: int) -> Chain:
    """Return a random problem of ``level`` operations; it may belong to either split."""
    terms, signs = [rng.randint(2, 15)], []
    total = terms[0]
    for _ in range(level):
        term = rng.randint(2, 6)
        possible = [sign for sign, fits in (("+", total + term <= _MAX_TOTAL), ("-", total >= term)) if fits]
        sign = rng.choice(possible)
        total += term if sign == "+" else -term
        terms.append(term)
        signs.append(sign)
    return Chain(tuple(terms), tuple(signs))
