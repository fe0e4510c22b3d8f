"""Training questions that are, or contain, questions of a benchmark.

Both are compared in the normal form of `questions.normalised`. Paraphrases and translations are not found.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipo_core.data.questions import normalised

MIN_CONTAINED = 50
"""Characters. A shorter question of a benchmark, such as "What is 2 + 2?", counts only if it is the whole question."""


@dataclass(frozen=True)
class Overlap:
    """A training question that overlaps with one of a benchmark.

    Attributes:
        question: its index.
        benchmark: the index of the benchmark's question, the first one that it overlaps with.
        kind: exact if the two are the same; contained if the benchmark's stands inside of the training question.
    """

    question: int
    benchmark: int
    kind: Literal["exact", "contained"]


def overlap(questions: Sequence[str], benchmark: Sequence[str]) -> list[Overlap]:
    """Return the training questions that overlap with a benchmark, in their order, each once.

    Args:
        questions: of the training set.
        benchmark: the benchmark's questions.
    """
    known: dict[str, int] = {}
    for index, question in enumerate(benchmark):
        known.setdefault(normalised(question), index)
    known.pop("", None)
    long = [(text, index) for text, index in known.items() if len(text) >= MIN_CONTAINED]
    found: list[Overlap] = []
    for index, question in enumerate(questions):
        text = normalised(question)
        if text in known:
            found.append(Overlap(index, known[text], "exact"))
            continue
        inside = next((number for part, number in long if part in text), None)
        if inside is not None:
            found.append(Overlap(index, inside, "contained"))
    return found


@dataclass(frozen=True)
class BenchmarkOverlap:
    """What a set of training questions has in common with one benchmark.

    Attributes:
        name: the benchmark's.
        compared: how many questions it has.
        exact: ids of training questions that are one of its questions.
        contained: ids of training questions that contain one.
    """

    name: str
    compared: int
    exact: list[str]
    contained: list[str]

    @property
    def ids(self) -> set[str]:
        """Return the ids of all training questions that overlap."""
        return {*self.exact, *self.contained}


def compare_with(questions: Mapping[str, str], benchmarks: Mapping[str, Sequence[str]]) -> list[BenchmarkOverlap]:
    """Return the overlap of training questions, by id, with each benchmark, by name."""
    ids, texts = list(questions), list(questions.values())
    compared = []
    for name, asked in benchmarks.items():
        found = overlap(texts, asked)
        exact, contained = ([ids[one.question] for one in found if one.kind == kind] for kind in ("exact", "contained"))
        compared.append(BenchmarkOverlap(name, len(asked), exact, contained))
    return compared
