r"""Small programming problems with worked solutions and tests, in varied words.

A problem describes a function of one whole number as a chain of additions, subtractions and multiplications; its level
is the number of operations. The reasoning keeps the expression so far; a product of a sum needs brackets. The question
shows the value of one test, and the others stay hidden, so a program that returns the shown value is wrong.

Whether a problem is held out is a property of the problem itself (a hash of its operations), as in `arithmetic`.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LEVELS = (2, 3)
OPEN_TESTS = 1
"""So many tests are shown in the question; they are the first ones of the reference."""

FUNCTION = "f"
_HELD_OUT_OF_256 = 26
"""One problem in ten is held out."""

_TERMS = {"+": range(2, 10), "-": range(2, 10), "*": range(2, 6)}
_SHOWN = range(1, 7)
"""Arguments of the shown test."""

_HIDDEN = (0, -7, 40)
"""Arguments of the hidden tests. The functions are affine, so two points tell any two of them apart."""

_MAX_TRIES = 200
"""A problem may repeat after this many samples in a row were repetitions."""

_VERBS = {"+": ("Add {}", "Adding {}"), "-": ("Subtract {}", "Subtracting {}"), "*": ("Times {}", "Times {}")}
_QUESTIONS = ("Write f(x).", "Code f(x).", "Give f(x).")
_STARTS = ("Start with x.", "First take x.", "We have x.")
_STEPS = ("{verb} to get {after}.", "{gerund} gives {after}.", "Now {after}.")


@dataclass(frozen=True)
class Program:
    """A function of x: ``signs`` and ``terms`` have one entry per operation, and each works on the value so far."""

    signs: tuple[str, ...]
    terms: tuple[int, ...]

    @property
    def name(self) -> str:
        """The operations as one word, such as ``+3*2``."""
        return "".join(f"{sign}{term}" for sign, term in zip(self.signs, self.terms, strict=True))

    @property
    def expressions(self) -> list[str]:
        """The value after each operation as Python writes it, such as ``(x + 3) * 2``."""
        found, before = ["x"], ""
        for sign, term in zip(self.signs, self.terms, strict=True):
            inner = f"({found[-1]})" if sign == "*" and before in ("+", "-") else found[-1]
            found.append(f"{inner} {sign} {term}")
            before = sign
        return found[1:]

    @property
    def level(self) -> int:
        """Number of operations."""
        return len(self.signs)

    @property
    def held_out(self) -> bool:
        """Whether the problem belongs to the held-out tenth."""
        return hashlib.sha256(self.name.encode()).digest()[0] < _HELD_OUT_OF_256

    @property
    def shown(self) -> int:
        """The argument of the shown test."""
        return _SHOWN[hashlib.sha256(self.name.encode()).digest()[1] % len(_SHOWN)]

    def value(self, x: int) -> int:
        """Return what the function makes of an argument, operation by operation."""
        for sign, term in zip(self.signs, self.terms, strict=True):
            x = x + term if sign == "+" else x - term if sign == "-" else x * term
        return x


def programs(split: str, seed: int) -> Iterator[Program]:
    """Yield problems of a split, the levels in turn, all different; a level ends when it runs out of new ones.

    Args:
        split: ``train`` or ``heldout``.
        seed: the same seed gives the same problems in the same order.
    """
    rng = random.Random(f"functions-{split}-{seed}")  # noqa: S311 - problems, not secrets
    seen: set[str] = set()
    levels = list(LEVELS)
    while levels:
        for level in tuple(levels):
            tries = (_sample_program_of(split, rng, level) for _ in range(_MAX_TRIES))
            program = next((program for program in tries if program.name not in seen), None)
            if program is None:
                levels.remove(level)
                continue
            seen.add(program.name)
            yield program


def question(program: Program, rng: random.Random) -> str:
    """Return the question in one of several wordings; it shows one test."""
    verbs = [_VERBS[sign][0].format(term) for sign, term in zip(program.signs, program.terms, strict=True)]
    sentences = [*verbs, f"f({program.shown}) is {program.value(program.shown)}"]
    return f"{rng.choice(_QUESTIONS)} {'. '.join(sentences)}."


def solution(program: Program, rng: random.Random) -> str:
    r"""Return worked reasoning and the program, as a model writes them after ``<think>\n``."""
    sentences = [rng.choice(_STARTS)]
    for sign, term, after in zip(program.signs, program.terms, program.expressions, strict=True):
        verb, gerund = (form.format(term) for form in _VERBS[sign])
        sentences.append(rng.choice(_STEPS).format(verb=verb, gerund=gerund, after=after))
    source = f"def {FUNCTION}(x):\n    return {program.expressions[-1]}"
    return " ".join(sentences) + f"\n</think>\n\n```python\n{source}\n```"


def reference(program: Program) -> dict[str, Any]:
    """Return what the grader of programs takes: the tests, the shown one first, and the function that they call."""
    arguments = (program.shown, *_HIDDEN)
    tests = [{"input": str(x), "output": str(program.value(x))} for x in arguments]
    return {"tests": tests, "function": FUNCTION}


def _sample_program_of(split: str, rng: random.Random, level: int) -> Program:
    """Return a random problem that belongs to ``split``."""
    while True:
        signs = tuple(rng.choice("+-*") for _ in range(level))
        program = Program(signs, tuple(rng.choice(_TERMS[sign]) for sign in signs))
        if program.held_out == (split == "heldout"):
            return program
