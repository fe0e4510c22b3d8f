"""Reads the reference answer of a programming problem: its tests, and how an output is judged."""

import json
from dataclasses import dataclass

from pipo_core.grade.packed_tests import unpack_tests

_KEYS = {"tests", "packed", "function", "checker"}
_TEST_KEYS = {"input", "output", "testtype"}
_KINDS = {"stdin": False, "functional": True}


@dataclass(frozen=True, slots=True)
class CodeTest:
    """One test: what the program gets, and what it should write or, as JSON, its function return."""

    given: str
    expected: str


@dataclass(frozen=True, slots=True)
class CodeReference:
    """The tests of a problem; the function that they call, if any; the program that judges outputs, if any."""

    tests: tuple[CodeTest, ...]
    function: str | None = None
    checker: str | None = None


def read_reference(answer: object) -> CodeReference:
    """Return the tests of a reference answer.

    Args:
        answer: a JSON object. `tests`: a list of `{"input", "output"}`, or its JSON text. `packed`: further tests as
            LiveCodeBench packs its hidden ones. `function`: the tests call this function; then an input has one JSON
            value a line for each argument, and an output is JSON. `checker`: a Python program that judges outputs.

    Raises:
        TypeError: if the answer, or a part of it, is of the wrong type.
        ValueError: if it has no tests, or keys that nothing reads, or a text that cannot be read.
    """
    if not isinstance(answer, dict):
        raise TypeError(f"the reference answer must be an object with tests, not {_short(answer)}")
    if unknown := answer.keys() - _KEYS:
        raise ValueError(f"the reference answer has keys that are not read: {', '.join(sorted(map(str, unknown)))}")
    for key in ("packed", "function", "checker"):
        if not isinstance(answer.get(key), str | None):
            raise TypeError(f"{key} of the reference answer must be a text, not {_short(answer[key])}")
    function, checker = answer.get("function") or None, answer.get("checker") or None
    if function and not function.isidentifier():
        raise ValueError(f"function of the reference answer must be a name, not {_short(function)}")
    if function and checker:
        raise ValueError("the reference answer has a function and a checker; a checker judges standard output")
    listed = _as_list(answer.get("tests"), "tests")
    if packed := answer.get("packed"):
        listed = [*listed, *_as_list(unpack_tests(packed), "packed")]
    if not listed:
        raise ValueError("the reference answer has no tests")
    tests = tuple(_read_test(test, number, function) for number, test in enumerate(listed, 1))
    return CodeReference(tests, function, checker)


def _as_list(tests: object, key: str) -> list[object]:
    if isinstance(tests, str):
        try:
            tests = json.loads(tests)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{key} of the reference answer is no JSON: {error}") from None
    if not isinstance(tests, list | None):
        raise TypeError(f"{key} of the reference answer must be a list, not {_short(tests)}")
    return tests or []


def _read_test(test: object, number: int, function: str | None) -> CodeTest:
    where = f"test {number} of the reference answer"
    if not isinstance(test, dict) or not all(isinstance(test.get(key), str) for key in ("input", "output")):
        raise TypeError(f"{where} must be an object with the texts input and output, not {_short(test)}")
    if unknown := test.keys() - _TEST_KEYS:
        raise ValueError(f"{where} has keys that are not read: {', '.join(sorted(map(str, unknown)))}")
    kind = test.get("testtype")
    if kind is not None and (kind not in _KINDS or _KINDS[kind] is not bool(function)):
        raise ValueError(f"{where} has testtype {_short(kind)}, which does not fit function {function!r}")
    if function is not None:
        try:
            for text in (*filter(str.strip, test["input"].split("\n")), test["output"]):
                json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where} calls a function, and is no JSON: {error}") from None
    return CodeTest(test["input"], test["output"])


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
