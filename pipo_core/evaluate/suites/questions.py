"""The questions of a suite: rows of its file become prompts with the references that answers are graded against."""

import json
import math
import random
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipo_core.data.problems import Problem, Reference, load_problems, text_of, user_message
from pipo_core.data.tables import TableRow, read_table, value_at
from pipo_core.data.tiny import functions
from pipo_core.errors import MissingInputError, UsageError
from pipo_core.files import fingerprint
from pipo_core.grade import MAX_ANSWER_LENGTH
from pipo_core.grade.packed_tests import is_packed
from pipo_core.recipes.evaluate import USUAL_QUESTIONS, EvalProblems
from pipo_core.recipes.suite import Choices, Condition, FileSource, GeneratedSource, prompt_environment
from pipo_core.recipes.suites import NamedSuite
from pipo_core.reporting import Reporter
from pipo_core.text import did_you_mean, one_line

_LETTERS = string.ascii_uppercase[:10]
"""Of choices; the grader of letters takes no others."""


@dataclass(frozen=True)
class Questions:
    """What a suite asks.

    Attributes:
        problems: the questions, each with the whole prompt as its question.
        fingerprint: of the questions' own contents, whatever the profile: two runs with the same one asked the same.
    """

    problems: list[Problem]
    fingerprint: str


def load_questions(
    named: NamedSuite, path: Path | None, profile: str | None, chosen: EvalProblems, reporter: Reporter
) -> Questions:
    """Return the questions of a suite that a recipe chooses; every call returns the same ones.

    Args:
        named: the suite.
        path: the file of its rows; None if pipo makes them.
        profile: how the questions are asked; None for the suite's usual way.
        chosen: which of them.
        reporter: gets a warning if a copy holds another number of questions than the suite's own file.

    Raises:
        MissingInputError: if the file cannot be read, a column is not there, or a row is not a question.
        UsageError: if the suite has no such profile or no such question.
    """
    suite = named.suite
    template = prompt_environment().from_string(named.profile(profile).prompt)
    found: list[Problem] = []
    contents: list[str] = []
    for where, identity, values, reference in _contents(named, path, profile, chosen):
        try:
            prompt = template.render(values).strip()
        except Exception as error:  # a template is a program of the suite's author
            raise MissingInputError(f"{where}: the prompt cannot be made: {one_line(error)}") from error
        if not prompt:
            raise MissingInputError(f"{where}: the prompt is empty")
        if re.search(r"[\ud800-\udfff]", prompt):
            raise MissingInputError(f"{where}: half of a character (a lone surrogate), which no text can hold")
        level = text_of(values.get("level")) if "level" in suite.columns else text_of(values.get("_level"))
        found.append(Problem(id=identity, question=prompt, answer=reference, level=level))
        contents.append(fingerprint([identity, values, reference]))
    if not found:
        raise MissingInputError(f"suite {named.name}: {path} holds no questions")
    _require_number(named, path, len(found), reporter)
    _require_distinct([problem.id for problem in found], named.name)
    kept = _chosen([problem.id for problem in found], chosen, named)
    return Questions([found[index] for index in kept], fingerprint([contents[index] for index in kept]))


def bare_questions(named: NamedSuite, path: Path | None) -> list[str]:
    """Return the questions of a suite by themselves, without prompts, to compare training questions with.

    Args:
        named: the suite.
        path: the file of its rows; None if pipo makes them.

    Raises:
        MissingInputError: if the file cannot be read, or a row has no question.
    """
    return [str(values["question"]) for _, _, values, _ in _contents(named, path, None, EvalProblems())]


def _contents(
    named: NamedSuite, path: Path | None, profile: str | None, chosen: EvalProblems
) -> Iterator[tuple[str, str, dict[str, Any], Reference]]:
    """Yield place, name, values for the prompt and reference of each question."""
    suite = named.suite
    kind = named.profile(profile).grader.kind
    for number, row in enumerate(_rows(named, path, chosen)):
        if not all(_holds(condition, row) for condition in suite.where):
            continue
        values = {name: value_at(row, column) for name, column in suite.columns.items()}
        _require_question(values["question"], row)
        generated = isinstance(suite.source, GeneratedSource)
        identity = text_of(values["id"]) if "id" in values else row.name if generated else str(number)
        if not identity:
            raise MissingInputError(f"{row.where}: the question has no name (a text or a whole number)")
        right = ""
        if suite.choices is not None:
            texts, place = _choices(suite.choices, row, number)
            right = _LETTERS[place]
            values["choices"] = [
                {"letter": letter, "text": text} for letter, text in zip(_LETTERS, texts, strict=False)
            ]
        if generated:
            values["_level"] = row.values["level"]
        yield row.where, identity, values, _REFERENCES[kind](values, right, row)


def _rows(named: NamedSuite, path: Path | None, chosen: EvalProblems) -> Iterator[TableRow]:
    """Yield the rows of a suite's file, or of the questions that pipo makes."""
    source = named.suite.source
    if not isinstance(source, GeneratedSource):
        if path is None:
            raise MissingInputError(f"suite {named.name}: its questions are not here")
        yield from read_table(path)
        return
    for problem in load_problems(source.name, "heldout", chosen.count or USUAL_QUESTIONS, chosen.seed):
        values: dict[str, Any] = {"question": user_message(problem), "level": problem.level}
        if isinstance(problem.answer, dict):
            tests = problem.answer["tests"]
            values |= {"tests": tests[: functions.OPEN_TESTS], "hidden_tests": tests[functions.OPEN_TESTS :]}
            values["metadata"] = {"func_name": problem.answer["function"]}
        else:
            values["answer"] = problem.answer
        yield TableRow(named.name, problem.id, values)


def _holds(condition: Condition, row: TableRow) -> bool:
    value = value_at(row, condition.column)
    if condition.equals is not None:
        return bool(value == condition.equals)
    try:
        return bool(value >= condition.at_least)
    except TypeError as error:
        raise MissingInputError(f"{row.where}: {condition.column} is {value!r}, not comparable") from error


def _require_question(question: object, row: TableRow) -> None:
    if not isinstance(question, str) or not question.strip():
        raise MissingInputError(f"{row.where}: the question is not a text")


def _choices(settings: Choices, row: TableRow, number: int) -> tuple[list[str], int]:
    """Return the choices in the order in which they are shown, and the place of the right one.

    The order is that of the authors' evaluation: ``random.Random(number).sample(range(n), n)``.
    """
    values = [value_at(row, column) for column in settings.columns]
    if len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    texts = [text_of(value) for value in values]
    if len(texts) < 2 or not all(texts) or len(texts) > len(_LETTERS):
        raise MissingInputError(f"{row.where}: a question has 2 to {len(_LETTERS)} choices, which are texts")
    right = 0 if settings.right is None else _place(value_at(row, settings.right))
    if not 0 <= right < len(texts):
        raise MissingInputError(f"{row.where}: {settings.right} names none of the {len(texts)} choices")
    if not settings.shuffle:
        return texts, right
    order = random.Random(number).sample(range(len(texts)), len(texts))  # noqa: S311 - an order, not a secret
    return [texts[index] for index in order], order.index(right)


def _place(value: object) -> int:
    """Return the place that a letter or a number names; -1 if it names none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = text_of(value)
    return _LETTERS.find(text) if len(text) == 1 else int(text) if text.isdecimal() else -1


def _boxed_reference(values: Mapping[str, Any], _: str, row: TableRow) -> Reference:
    given = values["answer"]
    number = isinstance(given, float) and math.isfinite(given)
    answer = (str(int(given)) if given == int(given) else repr(given)) if number else text_of(given)
    if not answer:
        raise MissingInputError(f"{row.where}: the answer is neither a text nor a number")
    if len(answer) > MAX_ANSWER_LENGTH:
        raise MissingInputError(f"{row.where}: an answer of {len(answer):,} characters cannot be graded")
    return answer


def _letter_reference(values: Mapping[str, Any], right: str, _: TableRow) -> Reference:
    return {"letter": right, "choices": [choice["text"] for choice in values["choices"]]}


def _instructions_reference(values: Mapping[str, Any], _: str, row: TableRow) -> Reference:
    ids, arguments = values["instructions"], values["arguments"]
    if not isinstance(ids, list) or not isinstance(arguments, list) or len(ids) != len(arguments):
        raise MissingInputError(f"{row.where}: instructions and arguments are lists of the same length")
    return {"prompt": values["question"], "instruction_id_list": ids, "kwargs": arguments}


def _code_reference(values: Mapping[str, Any], _: str, row: TableRow) -> Reference:
    """Return what `CodeGrader` takes; tests stay packed until they run, for they can be megabytes."""
    reference: dict[str, Any] = {"tests": _tests(values["tests"], row)}
    hidden = values.get("hidden_tests")
    if isinstance(hidden, str) and hidden and not hidden.lstrip().startswith("["):
        if not is_packed(hidden):
            raise MissingInputError(
                f"{row.where}: the hidden tests are neither JSON nor packed as LiveCodeBench packs them"
            )
        reference["packed"] = hidden
    elif hidden:
        reference["tests"] = [*reference["tests"], *_tests(hidden, row)]
    if not reference["tests"] and "packed" not in reference:
        raise MissingInputError(f"{row.where}: there is no test")
    if values.get("checker"):
        reference["checker"] = str(values["checker"])
    metadata = values.get("metadata") or {}
    if isinstance(metadata, str):
        metadata = _json(metadata, row, "metadata")
    name = metadata.get("func_name") if isinstance(metadata, dict) else None
    return reference if not name else {**reference, "function": str(name)}


def _tests(value: object, row: TableRow) -> list[Any]:
    tests = _json(value, row, "tests") if isinstance(value, str) else value
    if not isinstance(tests, list):
        raise MissingInputError(f"{row.where}: tests are a list of objects with input and output")
    return [_test(test, row) for test in tests]


def _test(test: object, row: TableRow) -> dict[str, str]:
    if not isinstance(test, dict) or not {"input", "output"} <= test.keys():
        raise MissingInputError(f"{row.where}: a test is an object with input and output")
    values = {name: test[name] for name in ("input", "output")}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def _json(text: str, row: TableRow, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MissingInputError(f"{row.where}: {what} are not JSON") from error


_REFERENCES = {
    "boxed": _boxed_reference,
    "letter": _letter_reference,
    "instructions": _instructions_reference,
    "code": _code_reference,
}


def _require_number(named: NamedSuite, path: Path | None, number: int, reporter: Reporter) -> None:
    """Check that the file holds all of the suite's questions; a copy may hold fewer.

    Raises:
        MissingInputError: if the suite's own file holds another number.
    """
    wanted = named.suite.rows
    if wanted is None or number == wanted:
        return
    message = f"suite {named.name}: {path} holds {number} questions, and the suite says {wanted}"
    if isinstance(named.suite.source, FileSource):
        raise MissingInputError(message, hint=f"correct rows in {named.path}")
    reporter.warn(message)


def _require_distinct(names: Sequence[str], suite: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise MissingInputError(f"suite {suite}: two questions are called {name}")
        seen.add(name)


def _chosen(names: Sequence[str], chosen: EvalProblems, named: NamedSuite) -> list[int]:
    """Return the places of the questions that a recipe chooses."""
    places = {name: place for place, name in enumerate(names)}
    kept = list(places.values())
    if chosen.ids is not None:
        for name in chosen.ids:
            if name not in places:
                raise UsageError(f"suite {named.name} has no question {name!r}{did_you_mean(name, places)}")
        kept = [places[name] for name in chosen.ids]
    if chosen.seed and not isinstance(named.suite.source, GeneratedSource):
        raise UsageError(f"suite {named.name} does not generate its questions, so problems.seed applies to nothing")
    return kept[: chosen.count]
