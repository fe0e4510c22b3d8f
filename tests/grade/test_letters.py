from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipo_core.grade import LetterGrader
from pipo_core.grade.letters import LETTERS, Form
from pipo_core.grade.thoughts import answer_behind_thought

FORMS: tuple[Form, ...] = ("boxed", "answer_line", "answer_is", "correct_answer_is")

# Text, right letter, verdict.
BOXED = [
    (r"\boxed{A}", "A", True),
    (r"\boxed{B}", "A", False),
    (r"So $\boxed{D}$.", "D", True),
    (r"\boxed{\text{C}}", "C", True),
    (r"\boxed{\mathbf{C}}", "C", True),
    (r"\boxed{\textbf{(C)}}", "C", True),
    (r"\boxed{\mathrm{(C)}}", "C", True),
    (r"\boxed{\text{\textbf{C}}}", "C", True),
    (r"\boxed{{{{C}}}}", "C", True),
    (r"\boxed{(C)}", "C", True),
    (r"\boxed{\left(C\right)}", "C", True),
    (r"\boxed{C.}", "C", True),
    (r"\boxed{C)}", "C", True),
    (r"\boxed{$C$}", "C", True),
    (r"\boxed{\(C\)}", "C", True),
    (r"\boxed{**C**}", "C", True),
    (r"\boxed{ C }", "C", True),
    ("\\boxed{\r\n  C\r\n}", "C", True),
    (r"\boxed{~C\,}", "C", True),
    (r"\boxed C", "C", True),
    (r"\fbox{C}", "C", True),
    (r"\boxed{\boxed{C}}", "C", True),
    (r"\boxed{c}", "C", True),
    (r"\boxed{Option C}", "C", True),
    (r"\boxed{\text{Answer: C}}", "C", True),
    (r"\boxed{The answer is C}", "C", True),
    (r"\boxed{C: the mitochondrion}", "C", True),
    (r"\boxed{C. \frac{1}{2}}", "C", True),
    (r"\boxed{(C) 5 \text{ m/s}}", "C", True),
    (r"\boxed{\text{C) } x^{2^{3}}}", "C", True),
    (r"\boxed{C: neither A nor B}", "C", True),
    (r"\boxed{A} is tempting, but \boxed{C}", "C", True),
    (r"\boxed{A} is tempting, but \boxed{C}", "A", False),
    (r"\boxed{C} and then \boxed{A", "C", False),  # the last answer was cut off
    (r"\boxed{A, C}", "C", False),
    (r"\boxed{A, C}", "A", False),
    (r"\boxed{A \text{ and } C}", "A", False),
    (r"\boxed{\text{A}\text{ or }\text{C}}", "A", False),
    (r"\boxed{(A)(C)}", "A", False),
    (r"\boxed{A/C}", "A", False),
    (r"\boxed{AC}", "A", False),
    (r"\boxed{\mathbf{A}\mathbf{C}}", "A", False),
    (r"\boxed{\frac{A}{B}}", "A", False),
    (r"\boxed{A = 5}", "A", False),
    (r"\boxed{E = mc^2}", "E", False),
    (r"\boxed{A^{2}}", "A", False),
    (r"\boxed{A good answer}", "A", False),
    (r"\boxed{I think so}", "I", False),
    (r"\boxed{Catalysis}", "C", False),
    (r"\boxed{K}", "A", False),
    (r"\boxed{}", "A", False),
    (r"\boxed{42}", "D", False),
    ("The answer is C.", "C", False),  # another form
    ("C", "C", False),
    ("", "C", False),
    ("\\boxed{\N{FULLWIDTH LATIN CAPITAL LETTER C}}", "C", True),
    ("\\boxed{\N{FULLWIDTH LEFT PARENTHESIS}C\N{FULLWIDTH RIGHT PARENTHESIS}}", "C", True),
    ("\\boxed{\N{RIGHT-TO-LEFT MARK}C\N{RIGHT-TO-LEFT OVERRIDE}}", "C", True),
    ("\\boxed{\N{MATHEMATICAL BOLD CAPITAL C}}", "C", True),
    ("\\boxed{\N{CYRILLIC CAPITAL LETTER ES}}", "C", False),  # looks the same
    ("\ud800 \\boxed{C} \udfff", "C", True),
    ("\\boxed{\ud83dC}", "C", False),
    ("\\boxed{C\N{REPLACEMENT CHARACTER}}", "C", False),
    ("\N{REPLACEMENT CHARACTER}\\boxed{C}", "C", True),
    ("\\boxed{C\x00}", "C", False),
]
THOUGHTS = [
    (r"<think>\boxed{A}</think>\boxed{C}", "C", True),
    (r"<think>\boxed{A}</think>\boxed{C}", "A", False),
    (r"\boxed{C}</think>I am not sure.", "C", False),
    (r"\boxed{A}</think>\boxed{B}</think>\boxed{C}", "C", True),
    (r"\boxed{A}</think>\boxed{B}</think>\boxed{C}", "B", False),
    (r"<think>So it is \boxed{C}", "C", False),  # cut off
    ("\n <think>\nThe answer is C", "C", False),
    (r"</think><think>\boxed{C}", "C", False),
    ("<think>\n\n</think>\n\n\\boxed{C}", "C", True),
]
ANSWER_LINES = [
    ("Answer: C", "C", True),
    ("Answer: C", "B", False),
    ("Answer:C", "C", True),
    ("answer : C", "C", True),
    ("ANSWER: C", "C", True),
    ("Step by step.\r\nAnswer: C\r\n", "C", True),
    ("**Answer:** C", "C", True),
    ("**Answer: C**", "C", True),
    ("**Answer**: **C**", "C", True),
    ("__Answer: C__", "C", True),
    ("### Final Answer: (C)", "C", True),
    ("> Answer: $C$", "C", True),
    (r"Answer: \(C\)", "C", True),
    (r"Answer: $\boxed{C}$", "C", True),
    (r"Answer: \textbf{C}", "C", True),
    ("Answer: C.", "C", True),
    ("Answer: C) 12 m", "C", True),
    ("Answer: C, because it is hot", "C", True),
    ("Answer: A because it is hot", "A", True),
    ("Answer: Option C", "C", True),
    ("**Answer:**\n\nC", "C", True),
    ("Answer:\nBecause of C", "C", False),
    ("Answer: A\nNo, wait.\nAnswer: C", "C", True),
    ("Answer: A\nNo, wait.\nAnswer: C", "A", False),
    ("Answer: C\nI hope this helps.", "C", True),
    ("Answer: C\nAnswer: see above", "C", True),
    ("Answer: A good answer needs thought", "A", False),
    ("Answer: I do not know", "I", False),
    ("Answer: $LETTER", "E", False),
    ("Answer: Carbon", "C", False),
    ("Answer: B-cells", "B", False),
    ("Answer: C–H bonds", "C", False),
    ("Answer: B = 5 T", "B", False),
    ("Answer: c", "C", False),
    ("Answer: A and C", "A", False),
    ("Answer: A or C", "C", False),
    ("Answer: A, C", "A", False),
    ("Answer: (A)/(C)", "A", False),
    ("Answer: C, I think", "C", True),
    ("Answer: A, B is wrong", "A", True),
    ("A good answer: it depends", "A", False),
    ("The answer is C", "C", False),
    ("\N{FULLWIDTH LATIN CAPITAL LETTER A}nswer\N{FULLWIDTH COLON} \N{FULLWIDTH LATIN CAPITAL LETTER C}", "C", True),
    ("\N{RIGHT-TO-LEFT MARK}Answer: \N{LEFT-TO-RIGHT MARK}C", "C", True),
    ("Answer: \ud800C", "C", False),
    ("\ud800Answer: C", "C", True),
]
ANSWER_IS = [
    ("The answer is (C).", "C", True),
    ("The answer is (C).", "D", False),
    ("the answer is C", "C", True),
    ("So the answer is: C", "C", True),
    ("The final answer is **(J)**", "J", True),
    ("The answer is\r\n\r\n**C**", "C", True),
    (r"The answer is $\boxed{C}$.", "C", True),
    (r"The answer is \(\text{C}\).", "C", True),
    ("The answer is option C", "C", True),
    ("The answer is (A). No: the answer is (C).", "C", True),
    ("The answer is (A). No: the answer is (C).", "A", False),
    ("The answer is (C). A is wrong.", "C", True),
    ("The answer is (C)\n\nA Ferrari is faster.", "C", True),
    ("The answer is A", "A", True),
    ("The answer is A because of heat", "A", True),
    ("The answer is A good one", "A", False),
    ("The answer is a matter of taste", "A", False),
    ("The answer is I think unclear", "I", False),
    ("The answer is not C", "C", False),
    ("The answer is C or D", "C", False),
    ("The answer is (C) and (D)", "D", False),
    ("The answer is E. coli", "E", True),  # as in MMLU-Pro's script
    ("The answer is DNA", "D", False),
    ("The answers is (C)", "C", False),
    ("Is the answer C?", "C", False),
]
CORRECT_ANSWER_IS = [
    ("The correct answer is (B).", "B", True),
    ("The correct answer is (B).", "C", False),
    ("The correct answer is B", "B", True),
    ("**The correct answer is (B)**", "B", True),
    ("The correct answer is **B**.", "B", True),
    ("The correct answer is: (B) the letter", "B", True),
    ("The correct answer is (A). The correct answer is (B).", "B", True),
    ("The answer is (B)", "B", False),
    ("The correct answer is A new law", "A", False),
    ("The correct answer is (A), (B)", "B", False),
    ("The correct answer is unclear: (B)", "B", False),
]


@pytest.mark.parametrize(("text", "right", "verdict"), BOXED + THOUGHTS)
def test_the_letter_in_a_box(text: str, right: str, verdict: bool) -> None:
    assert LetterGrader(("boxed",)).grade(text, right) is verdict


@pytest.mark.parametrize(("text", "right", "verdict"), ANSWER_LINES)
def test_the_letter_in_an_answer_line(text: str, right: str, verdict: bool) -> None:
    assert LetterGrader(("answer_line",)).grade(text, right) is verdict


@pytest.mark.parametrize(("text", "right", "verdict"), ANSWER_IS)
def test_the_letter_that_the_answer_is(text: str, right: str, verdict: bool) -> None:
    assert LetterGrader(("answer_is",)).grade(text, right) is verdict


@pytest.mark.parametrize(("text", "right", "verdict"), CORRECT_ANSWER_IS)
def test_the_letter_that_the_correct_answer_is(text: str, right: str, verdict: bool) -> None:
    assert LetterGrader(("correct_answer_is",)).grade(text, right) is verdict


@pytest.mark.parametrize(
    ("text", "forms", "right"),
    [
        ("\\boxed{A}\nAnswer: C", ("boxed", "answer_line"), "A"),
        ("\\boxed{A}\nAnswer: C", ("answer_line", "boxed"), "C"),
        ("\\boxed{42}\nAnswer: C", ("boxed", "answer_line"), "C"),
        ("The answer is C", FORMS, "C"),
        ("The correct answer is C", ("boxed", "correct_answer_is"), "C"),
    ],
)
def test_the_first_form_that_finds_something_decides(text: str, forms: tuple[Form, ...], right: str) -> None:
    assert [letter for letter in LETTERS if LetterGrader(forms).grade(text, letter)] == [right]


def test_a_form_that_finds_two_letters_decides_too() -> None:
    text = "\\boxed{A, B}\nAnswer: B"
    assert not any(LetterGrader(("boxed", "answer_line")).grade(text, letter) for letter in LETTERS)


CHOICES = ["Paris", r"$\frac{1}{2}$", "12  metres", "paris", "A"]


@pytest.mark.parametrize(
    ("box", "letter"),
    [
        (r"\frac{1}{2}", "B"),
        (r"$\frac{1}{2}$", "B"),
        ("12 Metres.", "C"),
        (r"\text{12 metres}", "C"),
        ("Paris", None),  # two choices
        ("12", None),
        ("C: Paris", "C"),
        ("A", "A"),  # the letter, not the fifth choice's text
        ("H", None),
    ],
)
def test_the_text_of_a_choice_counts_as_its_letter(box: str, letter: str | None) -> None:
    grader = LetterGrader(text_counts=True)
    found = [right for right in "ABCDE" if grader.grade(f"\\boxed{{{box}}}", {"letter": right, "choices": CHOICES})]
    assert found == ([letter] if letter else [])


def test_texts_of_choices_count_only_where_that_is_wanted() -> None:
    reference = {"letter": "C", "choices": CHOICES}
    assert LetterGrader(text_counts=True).grade(r"\boxed{12 metres}", reference) is True
    assert LetterGrader().grade(r"\boxed{12 metres}", reference) is False
    assert LetterGrader().grade(r"\boxed{C}", reference) is True
    with pytest.raises(TypeError, match="with choices"):
        LetterGrader(text_counts=True).grade(r"\boxed{C}", "C")


@pytest.mark.parametrize(
    "reference",
    [
        7,
        None,
        True,
        ["A"],
        "",
        "a",
        "K",
        "AB",
        " A",
        {},
        {"letter": "A"},
        {"letter": "D", "choices": ["x", "y"]},
        {"letter": "A", "choices": "xy"},
        {"letter": "A", "choices": [1, 2]},
        {"letter": "A", "choices": ["x"] * 11},
        {"letter": "A", "choices": ["x"], "why": "y"},
    ],
)
def test_a_reference_that_is_none_is_an_error(reference: Any) -> None:
    with pytest.raises(TypeError, match="a letter from A to J or an object"):
        LetterGrader().grade(r"\boxed{A}", reference)


@pytest.mark.parametrize(
    ("forms", "settings"),
    [((), {}), (("box",), {}), (("boxed", "boxed"), {}), (("answer_is",), {"text_counts": True})],
)
def test_forms_that_make_no_sense_are_refused(forms: Any, settings: Any) -> None:
    with pytest.raises(ValueError, match="form"):
        LetterGrader(forms, **settings)


def test_a_thought_that_the_prompt_opened_needs_its_end() -> None:
    grader = LetterGrader(opened=True)
    assert grader.grade(r"so it is \boxed{C}", "C") is False
    assert grader.grade(r"so it is D</think>\boxed{C}", "C") is True
    assert answer_behind_thought("a</think>b</think>c", opened=True) == "c"


@pytest.mark.parametrize("letter", LETTERS)
@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("boxed", r"\boxed{%s}"),
        ("answer_line", "Answer: %s"),
        ("answer_is", "the answer is (%s)"),
        ("correct_answer_is", "The correct answer is %s"),
    ],
)
def test_every_letter_is_found_and_no_other(form: Form, text: str, letter: str) -> None:
    grader = LetterGrader((form,))
    assert [right for right in LETTERS if grader.grade(text % letter, right)] == [letter]


PIECES = [
    *(
        "{",
        "}",
        "(",
        ")",
        "A",
        "B, ",
        "Answer",
        ":",
        " ",
        "\n",
        "\\",
        "$",
        "*",
        "__",
        "\ud800",
        "\u202e",
        "\ufffd",
        "Ａ",
        "~",
    ),
    *(
        r"\boxed{",
        r"\boxed",
        r"\text{",
        "answer is ",
        "The correct answer is ",
        "</think>",
        "<think>",
        "and ",
        "\u0301",
    ),
]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_at_most_one_letter_is_right_whatever_the_text(text: str) -> None:
    for forms in ((form,) for form in FORMS):
        assert sum(LetterGrader(forms).grade(text, letter) is True for letter in LETTERS) <= 1


HEAVY = ["\n", " ", "(", "{", "\\", "A, ", "\u0301\u0323", "\ufdfa", "\ud800", r"\boxed{", "Answer:\n", "Answer: A "]


@pytest.mark.parametrize("piece", HEAVY)
def test_a_megabyte_of_anything_is_graded(piece: str) -> None:
    # A rule whose time grows with the square of the length would run into the suite's time limit.
    text = (piece * (1_000_000 // len(piece) + 1))[:1_000_000]
    for hostile in (text, rf"\boxed{{{text}}}", f"Answer: {text}", f"The correct answer is{text}A"):
        assert LetterGrader(FORMS).grade(hostile, "J") is False
