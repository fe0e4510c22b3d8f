import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipo_core.errors import MachineError
from pipo_core.grade import MathGrader, extract_boxed


def boxed(content: str) -> str:
    return f"so the answer is $\\boxed{{{content}}}$."


def children(of: int) -> set[int]:
    """Return the ids of the children of process `of`, zombies included."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == of:
                found.add(int(entry.name))
    return found


def runs(process: int) -> bool:
    """Return whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def grader() -> Iterator[MathGrader]:
    with MathGrader(deadline=20) as shared:
        yield shared


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no box at all", None),
        ("", None),
        (r"\boxed{7}", "7"),
        (r"first \boxed{1}, then \boxed{2}.", "2"),
        (r"\boxed{\frac{1}{2^{3}}} and more {braces}", r"\frac{1}{2^{3}}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\fbox{12}", "12"),
        (r"\boxed {3}", "3"),
        (r"\boxed 7", "7"),
        (r"$\boxed 7$.", "7"),
        (r"so \boxed \frac12, as said", r"\frac12"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\{1}", r"\{1"),
        (r"\boxed{a\\}", r"a\\"),
        (r"\boxed{ 4" + "\n}", "4"),
        (r"\boxed{}", ""),
        (r"\boxed{1", None),
        (r"\boxed{3} … \boxed{\frac{1}{2}", None),
        (r"\boxed{1\}", None),
        (r"\boxed", None),
        (r"\boxedtext{9}", None),
    ],
)
def test_extract_boxed(text: str, expected: str | None) -> None:
    assert extract_boxed(text) == expected


braces = st.recursive(
    st.text(st.characters(exclude_characters="{}\\", exclude_categories=["Cs"])),
    lambda inner: st.lists(inner.map(lambda s: f"{{{s}}}"), max_size=3).map("".join),
)


@given(braces, st.text(st.characters(exclude_characters="\\", exclude_categories=["Cs"])))
def test_the_box_holds_whatever_is_balanced(content: str, after: str) -> None:
    assert extract_boxed(rf"before \boxed{{1}} \boxed{{{content}}}{after}") == content.strip()


@given(st.integers(), st.integers(), st.integers(0, 3))
@settings(max_examples=200)
def test_integers_are_compared_as_numbers(value: int, other: int, zeros: int) -> None:
    spelling = ("-" if value < 0 else "") + "0" * zeros + str(abs(value))
    with MathGrader() as grader:
        assert grader.grade(boxed(spelling), str(value))
        assert grader.grade(boxed(spelling), str(other)) == (value == other)


@pytest.mark.parametrize(
    ("given_answer", "reference", "equal"),
    [
        ("0.5", r"\frac{1}{2}", True),
        (r"\frac12", "1/2", True),
        (r"\dfrac{3}{4}", r"\frac{3}{4}", True),
        ("1,234", "1234", True),
        (r"12\,345", "12345", True),
        ("$42$", "42", True),
        ("42.", "42", True),
        ("\N{MINUS SIGN}3", "-3", True),
        ("3.0", "3", True),
        ("-0", "0", True),
        ("x=5", "5", True),
        (r"\sqrt{12}", r"2\sqrt{3}", True),
        (r"12\text{ cm}", "12", True),
        ("(x+1)^2", "x^2+2x+1", True),
        (r"\{2, 1\}", r"\{1, 2\}", True),
        ("4", r"\boxed{4}", True),
        ("0.3", r"\frac{1}{3}", False),
        (r"\sqrt{13}", r"2\sqrt{3}", False),
        ("4", "-4", False),
        ("5, 6", "5", False),
        ("1 2", "12", False),
        ("x^2+1", "x^2+2x+1", False),
        ("", "5", False),
        ("5", "", False),
    ],
)
def test_mathematical_equality(grader: MathGrader, given_answer: str, reference: str, equal: bool) -> None:
    assert grader.grade(boxed(given_answer), reference) == equal


def test_a_text_without_a_box_is_wrong_though_it_names_the_answer(grader: MathGrader) -> None:
    texts = ["the answer is 5", boxed("5"), boxed("5") + r" \boxed{5"]
    assert [grader.grade(text, "5") for text in texts] == [False, True, False]


HOSTILE = [
    r"10^{10^{10}}",
    "10**10**10",
    r"9^{9^{9^{9}}}",
    "9!!!!!!!!!!!!",
    r"\sum_{n=1}^{10^{10}} \frac{1}{n^2+\sin n}",
    "{" * 999 + "}" * 999,
    "(" * 900 + "1" + ")" * 900,
    "{" * 50_000 + "}" * 50_000,
    "1" * 100_000,
    "7\x00\x00",
    "\x00",
    "\ud800\udfff \udc00",
    "\u202e\U0001f4a3" * 300,
    "__import__('os').system('true')",
]


def test_hostile_answers_are_wrong_and_leave_the_grader_working() -> None:
    verdicts = []
    with MathGrader(deadline=0.3) as grader:
        for content in HOSTILE:
            verdicts += [grader.grade(boxed(content), r"\frac{1}{2}"), grader.grade(boxed(r"\frac{1}{2}"), content)]
            assert True not in verdicts, content[:40]
    assert None in verdicts
    with MathGrader(deadline=60) as grader:
        for content in [
            "{" * 100_000,
            "}" * 100_000,
            r"\boxed{" * 20_000,
            r"\boxed" * 20_000,
            "\\" * 100_001,
        ]:
            assert not grader.grade(content, "5")
        assert not grader.grade(boxed("10**10**10"), "5")
        assert grader.grade(boxed("1/2"), "0.5")


def test_no_process_before_it_is_needed_and_none_afterwards() -> None:
    before = children(os.getpid())
    with MathGrader() as grader:
        assert grader.grade(boxed("12"), "12")
        assert not grader.grade(boxed("13"), "12")
        assert children(os.getpid()) == before
        assert grader.grade(boxed("1/2"), "0.5")
        assert len(children(os.getpid()) - before) == 1
    assert children(os.getpid()) == before


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_dies_or_stops_costs_one_answer(how: signal.Signals) -> None:
    before = children(os.getpid())
    with MathGrader(deadline=30) as grader:
        assert grader.grade(boxed("1/2"), "0.5")
        (worker,) = children(os.getpid()) - before
        os.kill(worker, how)
        grader.deadline = 0.5
        assert grader.grade(boxed("1/4"), "0.25") is None
        grader.deadline = 30
        assert grader.grade(boxed("1/4"), "0.25")
    assert children(os.getpid()) == before


def test_without_math_verify_the_version_that_pipo_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [needed] = [text for text in project["dependencies"] if text.startswith("math-verify")]
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with MathGrader() as grader, pytest.raises(MachineError, match="math-verify cannot be imported") as caught:
        grader.grade(boxed("1/2"), "0.5")
    assert caught.value.hint == f"pip install '{needed}'"


def test_threads_get_their_own_verdicts(grader: MathGrader) -> None:
    verdicts: dict[int, bool | None] = {}

    def work(number: int) -> None:
        verdicts[number] = grader.grade(boxed(f"{number}/8"), str(number / 8 if number % 2 else number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == {number: number % 2 == 1 for number in range(1, 9)}


def test_the_worker_ends_when_its_parent_is_killed() -> None:
    program = (
        "import sys, time; from pipo_core.grade import MathGrader\n"
        "grader = MathGrader(deadline=20); grader.grade(r'\\boxed{1/2}', '0.5')\n"
        "print('graded', flush=True); time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "graded\n"
    (worker,) = children(parent.pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    while runs(worker):  # if the worker stays, the suite runs into its time limit
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("given", "reference", "expected"),
    [
        (r"6.6\times 10^{-34}", r"1.6\times 10^{-19}", False),
        (r"6.6\times 10^{-34}", r"6.60\times 10^{-34}", True),
        ("0.0000001", "0.0000002", False),
        ("0.0000001", r"10^{-7}", True),
        ("0.0000001", "0", False),
        (r"\frac{1}{2007!}", r"\frac{1}{2005!}", False),
        (r"\frac{1}{2007!}", "1/2007!", True),
        ("0.333333", r"\frac13", True),
        ("0.3333", r"\frac13", False),
        (r"2^{1000}", r"2^{1001}", False),
        ("1+i", "1-i", False),
        ("1+i", "i+1", True),
        (r"\infty", r"-\infty", False),
    ],
)
def test_numbers_are_compared_by_their_digits_whatever_their_size(
    grader: MathGrader, given: str, reference: str, expected: bool
) -> None:
    assert grader.grade(boxed(given), reference) is expected


@pytest.mark.parametrize(
    ("given", "reference", "expected"),
    [
        (r"1,3,5,\ldots", r"1,2,\ldots", False),
        (r"1,3,5,\dots", "1, 3, 5, …", True),
        ("1,3,5,...", r"1,3,5,\cdots", True),
        (r"1,3,5,\ldots", "1,3,5", False),
    ],
)
def test_a_list_that_goes_on_is_equal_to_itself_only(
    grader: MathGrader, given: str, reference: str, expected: bool
) -> None:
    assert grader.grade(boxed(given), reference) is expected


@pytest.mark.parametrize(
    "spelt", ["**8000**", "__8000__", "`8000`", "8~000", r"8\,000", "8{,}000", "8,000", "**8{,}000**"]
)
def test_emphasis_and_gaps_are_layout(grader: MathGrader, spelt: str) -> None:
    assert grader.grade(boxed(spelt), "8000") is True


@pytest.mark.parametrize(
    ("text", "right"), [("\\boxed\n{73}", True), ("\\boxed \r\n {73}", True), ("\\boxed\n\n{73}", False)]
)
def test_a_line_break_before_the_brace_is_a_blank(grader: MathGrader, text: str, right: bool) -> None:
    assert grader.grade(text, "73") is right


# Text, reference, verdict: what texts look like, rather than what is equal.
TEXTS = [
    (r"\boxed{\dfrac{\sqrt{3}}{2^{\frac{1}{2}}}}", r"\frac{\sqrt{3}}{\sqrt{2}}", True),
    (r"\boxed{\left\{\frac{1}{2}, \left(3\right)\right\}}", r"\{3, 0.5\}", True),
    (r"\boxed{\frac{\frac{1}{2}}{\frac{3}{4}}}", r"\frac{2}{3}", True),
    (r"\boxed{\frac{\frac{1}{2}}{\frac{3}{4}}}", r"\frac{3}{8}", False),
    (r"\boxed{{{{7}}}}", "7", True),
    (r"\boxed{\text{7}}", "7", True),
    (r"\boxed{-\frac{3}{4}}", r"\frac{-3}{4}", True),
    (r"\boxed{\frac{3}{-4}}", r"\frac{3}{4}", False),
    (r"\boxed{3 \text{ m}}", "3", True),
    (r"\boxed{3\,\mathrm{cm}^2}", "3", True),
    (r"\boxed{90^\circ}", "90", True),
    (r"\boxed{50\%}", r"50\%", True),
    (r"\boxed{50\%}", "0.5", True),
    (r"\boxed{50\%}", "50", True),
    (r"\boxed{50}", r"50\%", True),
    (r"\boxed{12.5\%}", r"\frac{1}{8}", True),
    (r"\boxed{50\%}", "5", False),
    (r"\boxed{\$1,250}", "1250", True),
    (r"\boxed{4 \text{ m}}", "3", False),
    (r"\boxed{1} is the case $n=1$. In all: \boxed{2}", "2", True),
    (r"\boxed{1} is the case $n=1$. In all: \boxed{2}", "1", False),
    ("$$\\boxed{1}$$\n\nCheck:\n\n$$x = \\boxed{\\frac{1}{2}}$$\n\nThis is the answer.", "0.5", True),
    ("```latex\n\\boxed{5}\n```\nand\n```latex\n\\boxed{6}\n```", "6", True),
    ("\\[\r\n\\boxed{\r\n  73\r\n}\r\n\\]\r\n", "73", True),
    ("\\boxed{\\frac{1}{2}}\r\n", r"\frac{1}{2}", True),
    (r"So A is 5 and B is \boxed{B}.", "5", False),
    (r"A good answer is 5.", "5", False),
    (r"\boxed{\text{A}}", "A", True),
    (r"\boxed{E}", "5", False),
    (r"\boxed{5", "5", False),
    (r"\boxed{4} \boxed{5", "5", False),
    (r"\boxed{4} \boxed{5", "4", False),
    ("\\boxed{\N{FULLWIDTH DIGIT SEVEN}}", "7", False),
    ("\\boxed{\N{MINUS SIGN}7}", "-7", True),
    ("\ud800\\boxed{7}\udfff", "7", True),
    ("\\boxed{7\ud800}", "7", False),
    ("\\boxed{7\N{REPLACEMENT CHARACTER}}", "7", False),
    ("\N{REPLACEMENT CHARACTER}" * 1000 + "\\boxed{7}", "7", True),
    ("\\boxed{\N{RIGHT-TO-LEFT OVERRIDE}12}", "21", False),
    ("x" * 1_000_000 + r"\boxed{7}", "7", True),
    (r"\boxed{7}" + "x" * 1_000_000, "7", True),
    (r"\boxed{7" + "0" * 1_000_000 + "}", "7", False),
]


@pytest.mark.parametrize(("text", "reference", "verdict"), TEXTS, ids=range(len(TEXTS)))
def test_texts_as_models_write_them(grader: MathGrader, text: str, reference: str, verdict: bool) -> None:
    assert grader.grade(text, reference) is verdict


@pytest.mark.parametrize(
    ("text", "counting", "not_counting"),
    [
        (r"<think>\boxed{5}</think>\boxed{6}", False, False),
        (r"<think>\boxed{6}</think>\boxed{5}", True, True),
        (r"<think>\boxed{5}</think>It is 5.", True, False),
        (r"<think>So it is \boxed{5}", True, False),  # a thought that was cut off
        ("It is five.\n</think>\n\n\\boxed{5}", True, True),
        (r"\boxed{5}", True, True),
    ],
)
def test_boxes_in_thoughts_count_only_where_that_is_wanted(text: str, counting: bool, not_counting: bool) -> None:
    with MathGrader() as usual, MathGrader(thoughts_count=False) as strict:
        assert (usual.grade(text, "5"), strict.grade(text, "5")) == (counting, not_counting)
