"""The rollouts that a training set is built from, as one, after a check that no shard is missing or there twice."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipo_core.data.answers import Answer, Key, read_index
from pipo_core.data.provenance import name_of, read_about
from pipo_core.errors import MissingInputError
from pipo_core.files import decode_row


@dataclass(frozen=True)
class Source:
    """One file of rollouts.

    Attributes:
        path: the file.
        about: the record that the rollout left of itself; None if it left none.
        answers: the index of its answers, by key.
    """

    path: Path
    about: Mapping[str, Any] | None
    answers: Mapping[Key, Answer]


class Sources:
    """Several files of rollouts as one.

    Attributes:
        parts: the files, in the order of the recipe.
    """

    def __init__(self, parts: Sequence[Source]) -> None:
        """Hold files that `read_sources` has read."""
        self.parts = list(parts)
        self._file = {key: source.path for source in parts for key in source.answers}

    def answers(self) -> list[Answer]:
        """Return the index entries of all answers."""
        return [answer for source in self.parts for answer in source.answers.values()]

    def rows(self, answers: Iterable[Answer]) -> Iterator[dict[str, Any]]:
        """Yield the lines of the given answers, in the given order, without verdicts."""
        with ExitStack() as stack:
            files = {source.path: stack.enter_context(source.path.open("rb")) for source in self.parts}
            for answer in answers:
                file = files[self._file[answer.key]]
                file.seek(answer.offset)
                yield decode_row(file.readline())


def read_sources(paths: Sequence[str]) -> Sources:
    """Return the rollouts of several files.

    Raises:
        MissingInputError: if one cannot be read, is not graded or not finished; if a shard is missing or there twice;
            or if two files hold an answer of the same name.
    """
    parts = []
    for path in map(Path, paths):
        answers = read_index(path)
        ungraded = sum(answer.correct is None for answer in answers.values())
        if ungraded:
            raise MissingInputError(
                f"{path}: {ungraded} of {len(answers)} answers are not graded yet", hint="let pipo rollout finish"
            )
        parts.append(Source(path, read_about(path.parent), answers))
    _check_shards(parts)
    _check_keys(parts)
    return Sources(parts)


def _check_shards(parts: Sequence[Source]) -> None:
    """Raise for a set of rollouts of which a shard is missing, is there twice, or is not finished."""
    sets: dict[str, list[tuple[int, int, Path]]] = {}
    for source in parts:
        if source.about is None:
            continue
        if source.about.get("finished") is None:
            raise MissingInputError(f"{source.path}: the rollout is not finished", hint="let pipo rollout finish")
        shard = source.about["shard"]
        sets.setdefault(source.about["set"], []).append((shard["count"], shard["index"], source.path))
    for members in sets.values():
        counts = {count for count, _, _ in members}
        if len(counts) > 1:
            shown = ", ".join(f"{path} is shard {index} of {count}" for count, index, path in sorted(members))
            raise MissingInputError(f"rollouts: these are shards of one set, divided differently: {shown}")
        (count,) = counts
        there: dict[int, Path] = {}
        for _, index, path in members:
            if index in there:
                raise MissingInputError(
                    f"rollouts: shard {index} of {count} is there twice: {there[index]} and {path}",
                    hint="leave one of them out",
                )
            there[index] = path
        missing = [index for index in range(count) if index not in there]
        if missing:
            which = ", ".join(map(str, missing))
            named = f"shard{'s' * (len(missing) > 1)} {which} of {count} {'are' if len(missing) > 1 else 'is'} missing"
            raise MissingInputError(
                f"rollouts: {named} beside {next(iter(there.values()))}",
                hint=f"name the folder in rollouts, or make it: the pipo rollout command with shard.index={missing[0]} "
                f"shard.count={count}",
            )


def _check_keys(parts: Sequence[Source]) -> None:
    """Raise if two files hold an answer of the same name: which of the two belongs to the problem is not known."""
    where: dict[Key, Path] = {}
    for source in parts:
        for key in source.answers:
            if key in where:
                raise MissingInputError(
                    f"rollouts: {where[key]} and {source.path} both hold answer {key}",
                    hint="build a set of each, or give the problems ids of their own (problems.columns.id)",
                )
            where[key] = source.path


_FACTS = (
    *("model", "method", "problems", "source_print", "grader", "shard", "samples", "sampling", "budget"),
    *("engine", "seed", "begun", "finished"),
)
"""What the record of a rollout says, and a card repeats."""


def source_facts(source: Source, fingerprint: str) -> dict[str, Any]:
    """Return what a data card says of a file of rollouts.

    Args:
        source: the file.
        fingerprint: of its content.
    """
    known = source.about or {}
    return {
        "file": name_of(source.path.absolute()),
        "fingerprint": fingerprint,
        "answers": len(source.answers),
        **{key: known.get(key) for key in _FACTS},
    }
