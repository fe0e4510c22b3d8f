import logging
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from pipo_core.errors import MachineError
from pipo_core.grade import InstructionGrader, instructions, instructions_worker

PACKAGES = ("lm_eval", "langdetect", "immutabledict", "nltk", "punkt")
needs_checks = pytest.mark.skipif(
    any(find_spec(package) is None for package in PACKAGES), reason="needs the extra suites: lm-eval and its packages"
)

ENGLISH = "The quick brown fox jumps over the lazy dog and then sleeps in the warm afternoon sun."
GERMAN = "Der schnelle braune Fuchs springt über den faulen Hund und schläft danach in der warmen Sonne."
PROMPT = "Write a poem about foxes."
Kwargs = dict[str, Any]


def reference(*pairs: tuple[str, Kwargs], prompt: str = PROMPT) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "instruction_id_list": [name for name, _ in pairs],
        "kwargs": [given for _, given in pairs],
    }


# Instruction, its arguments, text, verdict. At least one right and one wrong text for each of the 25 instructions.
PAIRS: list[tuple[str, Kwargs, str, bool]] = [
    ("keywords:existence", {"keywords": ["fox", "dog"]}, ENGLISH, True),
    ("keywords:existence", {"keywords": ["fox", "cat"]}, ENGLISH, False),
    ("keywords:existence", {"keywords": ["FOX"]}, ENGLISH, True),
    ("keywords:frequency", {"keyword": "fox", "frequency": 2, "relation": "at least"}, "A fox. A Fox.", True),
    ("keywords:frequency", {"keyword": "fox", "frequency": 2, "relation": "at least"}, "A fox.", False),
    ("keywords:frequency", {"keyword": "fox", "frequency": 2, "relation": "less than"}, "A fox.", True),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, ENGLISH, True),
    ("keywords:forbidden_words", {"forbidden_words": ["dog"]}, ENGLISH, False),
    ("keywords:forbidden_words", {"forbidden_words": ["do"]}, "The dog is no word do-nothing likes.", False),
    ("keywords:forbidden_words", {"forbidden_words": ["do"]}, "The dog.", True),
    ("keywords:letter_frequency", {"letter": "q", "let_frequency": 1, "let_relation": "at least"}, ENGLISH, True),
    ("keywords:letter_frequency", {"letter": "q", "let_frequency": 2, "let_relation": "at least"}, ENGLISH, False),
    ("keywords:letter_frequency", {"letter": "q", "let_frequency": 2, "let_relation": "less than"}, "QUICK", True),
    ("language:response_language", {"language": "de"}, GERMAN, True),
    ("language:response_language", {"language": "de"}, ENGLISH, False),
    ("language:response_language", {"language": "hi"}, "यह एक छोटा सा वाक्य है जो हिन्दी में लिखा गया है।", True),
    ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "less than"}, "One. Two.", True),
    ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "at least"}, "One. Two.", False),
    # Punkt knows abbreviations; a rule at full stops would count three sentences.
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "I met Dr. Smith.", False),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "Dr. Smith came. Bye.", True),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One\n\n***\n\nTwo", True),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One\n\nTwo", False),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One\r\n***\r\nTwo", True),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 3}, "One\n***\n***\nTwo", False),
    ("length_constraints:number_words", {"num_words": 5, "relation": "at least"}, "one two three four five", True),
    ("length_constraints:number_words", {"num_words": 5, "relation": "at least"}, "one two three four", False),
    ("length_constraints:number_words", {"num_words": 5, "relation": "less than"}, "one, two; three!", True),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "fox"},
        "One thing.\n\nFox and more.",
        True,
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "fox"},
        "Fox and more.\n\nOne thing.",
        False,
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "Dear [name], at [address].", True),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "Dear [name].", False),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP.S. See you.", True),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye. See you.", False),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP. P. S. See you.", True),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n* two", True),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n* two\n* three", False),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "- one\r\n- two", True),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", True),
    ("detectable_format:constrained_response", {}, "I do not know.", False),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*one* and *two*", True),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*one* and two", False),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "* *", False),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1\nA\nSection 2\nB",
        True,
    ),
    ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2}, "Section 1\nA", False),
    ("detectable_format:json_format", {}, '```json\n{"a": [1, 2]}\n```', True),
    ("detectable_format:json_format", {}, '{"a": [1, 2}', False),
    ("detectable_format:json_format", {}, "[" * 100_000, False),
    ("detectable_format:title", {}, "<<Foxes>>\nThey run.", True),
    ("detectable_format:title", {}, "# Foxes\nThey run.", False),
    ("detectable_format:title", {}, "<< >>\nThey run.", False),
    ("combination:two_responses", {}, "One.\n******\nTwo.", True),
    ("combination:two_responses", {}, "One.\n******\nOne.", False),
    ("combination:repeat_prompt", {"prompt_to_repeat": PROMPT}, f"{PROMPT}\nA fox runs.", True),
    ("combination:repeat_prompt", {"prompt_to_repeat": PROMPT}, "A fox runs.", False),
    ("startend:end_checker", {"end_phrase": "Any other questions?"}, "Done. Any other questions?", True),
    ("startend:end_checker", {"end_phrase": "Any other questions?"}, "Any other questions? Done.", False),
    ("startend:quotation", {}, '"A fox runs."', True),
    ("startend:quotation", {}, "“A fox runs.”", False),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}, "A BIG Fox", True),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}, "BIG Fox", False),
    ("change_case:english_capital", {}, ENGLISH.upper(), True),
    ("change_case:english_capital", {}, ENGLISH, False),
    ("change_case:english_capital", {}, GERMAN.upper(), False),
    ("change_case:english_lowercase", {}, ENGLISH.lower(), True),
    ("change_case:english_lowercase", {}, ENGLISH, False),
    ("punctuation:no_comma", {}, ENGLISH, True),
    ("punctuation:no_comma", {}, "A fox, that runs.", False),
    ("punctuation:no_comma", {}, "A fox\N{FULLWIDTH COMMA} that runs.", True),
    # An empty answer follows nothing, not even what forbids something.
    ("punctuation:no_comma", {}, "", False),
    ("punctuation:no_comma", {}, " \r\n", False),
    # Thoughts do not count.
    ("punctuation:no_comma", {}, "<think>One, two, three.</think>A fox runs.", True),
    ("punctuation:no_comma", {}, "Well, well.\n</think>\n\nA fox runs.", True),
    ("punctuation:no_comma", {}, "<think>A fox runs.", False),
    ("keywords:existence", {"keywords": ["fox"]}, "<think>A fox?</think>A dog.", False),
    ("startend:quotation", {}, 'Hm.\n</think>\n\n"A fox."', True),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "fox"},
     "Hm.\n</think>\n\nFox and more.", True),
    # Hostile text.
    ("punctuation:no_comma", {}, "\ud800\udfff", True),
    ("punctuation:no_comma", {}, "\ud800,", False),
    ("keywords:existence", {"keywords": ["fox"]}, "\N{REPLACEMENT CHARACTER}fox\x00", True),
    ("keywords:existence", {"keywords": ["fox"]}, "f\N{RIGHT-TO-LEFT MARK}ox", False),
    ("keywords:existence", {"keywords": ["fox"]}, "\N{RIGHT-TO-LEFT OVERRIDE}fox", True),
    ("keywords:existence", {"keywords": ["fox"]}, "\N{FULLWIDTH LATIN SMALL LETTER F}ox", False),
    ("keywords:existence", {"keywords": ["fox"]}, "x" * 1_000_000 + "fox", True),
    ("punctuation:no_comma", {}, "x" * 1_000_000 + ",", False),
    ("length_constraints:number_words", {"num_words": 1000, "relation": "at least"}, "fox " * 250_000, True),
]  # fmt: skip


@pytest.fixture(scope="module")
def grader() -> Iterator[InstructionGrader]:
    with InstructionGrader(deadline=60) as shared:
        yield shared


@needs_checks
@pytest.mark.parametrize(("name", "given", "text", "verdict"), PAIRS, ids=[f"{n}-{p[0]}" for n, p in enumerate(PAIRS)])
def test_an_instruction_is_followed_or_not(
    grader: InstructionGrader, name: str, given: Kwargs, text: str, verdict: bool
) -> None:
    answer = reference((name, given))
    assert grader.grade(text, answer) is verdict
    assert grader.follow(text, answer, loose=False) == [verdict]
    if verdict:
        assert grader.follow(text, answer, loose=True) == [True]


@pytest.fixture(scope="module")
def ifeval() -> Any:
    """lm-eval's own functions, in this process; `load` gives NLTK its data."""
    for package in PACKAGES:
        pytest.importorskip(package)
    instructions_worker.load()
    from importlib import import_module

    return import_module("lm_eval.tasks.ifeval.utils")


TEXTS = [
    ENGLISH, ENGLISH.upper(), GERMAN, "", "\n", f"Sure!\n{ENGLISH.lower()}\nBye.", "**P.S. [a] *b***\n* one\n- two",
    "<<T>>\n\nSection 1\n***\nSection 2, x\n******\nMy answer is no.", '"Fox"', "\ud800", "fox, dog\r\n\r\nfox",
    f"Sure.\n{PROMPT}\n* Fox [x] [y] *a* *b*", '{"a": 1}\nAny other questions?',
]  # fmt: skip


@needs_checks
def test_verdicts_are_those_of_lm_eval_on_whole_rows(
    grader: InstructionGrader, ifeval: Any, caplog: pytest.LogCaptureFixture
) -> None:
    # lm-eval logs texts whose language it cannot tell; pytest-xdist cannot send one with half of a character.
    caplog.set_level(logging.CRITICAL + 1, "lm_eval")
    pairs = list({name: (name, given) for name, given, _, _ in PAIRS}.values())
    assert len(pairs) == 25
    unused = {"num_words": None, "keyword": None}  # the hub's rows have every key, null where it is not used
    rows = [reference(*((name, {**unused, **given}) for name, given in pairs[start::4])) for start in range(4)]
    seen = set()
    for row in rows:
        for text in TEXTS:
            found = ifeval.process_results({"key": 0, **row}, [text])
            assert grader.follow(text, row, loose=False) == found["inst_level_strict_acc"]
            assert grader.follow(text, row, loose=True) == found["inst_level_loose_acc"]
            assert grader.grade(text, row) == found["prompt_level_strict_acc"]
            seen |= {*zip(row["instruction_id_list"], found["inst_level_strict_acc"], strict=True)}
    assert len(seen) > 40  # most of the 25 are both followed and not


@needs_checks
def test_every_instruction_has_a_right_and_a_wrong_text(ifeval: Any) -> None:
    from importlib import import_module

    known = set(import_module("lm_eval.tasks.ifeval.instructions_registry").INSTRUCTION_DICT)
    assert {(name, verdict) for name, _, _, verdict in PAIRS} == {(name, v) for name in known for v in (True, False)}


@needs_checks
def test_all_instructions_must_be_followed_and_loose_forgives_an_opening_line(grader: InstructionGrader) -> None:
    both = reference(("punctuation:no_comma", {}), ("keywords:existence", {"keywords": ["fox"]}))
    assert grader.grade("A fox runs.", both) is True
    assert grader.grade("Sure, here it is:\nA fox runs.", both) is False
    assert grader.follow("Sure, here it is:\nA fox runs.", both, loose=False) == [False, True]
    assert grader.follow("Sure, here it is:\nA fox runs.", both, loose=True) == [True, True]


@needs_checks
def test_a_text_always_has_the_same_verdict(grader: InstructionGrader) -> None:
    # Without a seed chance decides: langdetect takes the first text for Italian or Spanish, each about half of the
    # times, and for a letter that is none lm-eval counts some other one.
    cases: list[tuple[str, list[tuple[str, Kwargs]]]] = [
        ("Hola amigo ciao", [("language:response_language", {"language": code}) for code in ("it", "es")]),
        (ENGLISH, [("keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": "at least"})] * 8),
    ]
    for text, pairs in cases:
        answer = reference(*pairs)
        first = grader.follow(text, answer, loose=False)
        assert all(grader.follow(text, answer, loose=False) == first for _ in range(20))
        with InstructionGrader(deadline=60) as other:
            assert other.follow(text, answer, loose=False) == first


@needs_checks
def test_a_text_that_takes_too_long_is_undecided_and_the_next_is_graded() -> None:
    brackets = reference(("detectable_content:number_placeholders", {"num_placeholders": 1}))
    with InstructionGrader(deadline=60) as grader:
        assert grader.grade("[a]", brackets) is True
        grader.deadline = 0.3
        assert grader.grade("[" * 1_000_000, brackets) is None  # its pattern takes the square of the length
        assert grader.follow("[" * 1_000_000, brackets, loose=True) is None
        grader.deadline = 60
        assert grader.grade("[a]", brackets) is True


@needs_checks
def test_a_thought_that_the_prompt_opened_needs_its_end() -> None:
    answer = reference(("punctuation:no_comma", {}))
    with InstructionGrader(deadline=60, opened=True) as grader:
        assert grader.grade("A fox runs.", answer) is False
        assert grader.grade("Hm.</think>A fox runs.", answer) is True


@needs_checks
@pytest.mark.parametrize(
    ("name", "given", "why"),
    [
        ("keywords:nothing", {}, "there is no instruction keywords:nothing"),
        ("keywords:existence", {}, "keywords:existence lacks keywords"),
        ("length_constraints:number_words", {"num_words": 0, "relation": "at least"}, "lacks num_words"),
        (
            "length_constraints:number_words",
            {"num_words": 3, "relation": "about"},
            "number_words: The supported relation",
        ),
        ("punctuation:no_comma", {"colour": "red"}, "no_comma: .*colour"),
    ],
)
def test_a_reference_that_cannot_be_checked_is_an_error(
    grader: InstructionGrader, name: str, given: Kwargs, why: str
) -> None:
    with pytest.raises(TypeError, match=why):
        grader.grade(ENGLISH, reference((name, given)))
    assert grader.grade(ENGLISH, reference(("punctuation:no_comma", {}))) is True


GOOD = reference(("punctuation:no_comma", {}))


@pytest.mark.parametrize(
    "answer",
    [
        "punctuation:no_comma",
        None,
        {},
        {**GOOD, "prompt": 7},
        {**GOOD, "kwargs": []},
        {**GOOD, "kwargs": [None]},
        {**GOOD, "instruction_id_list": [], "kwargs": []},
        {**GOOD, "instruction_id_list": "p"},
        {**GOOD, "instruction_id_list": [7]},
        {**GOOD, "key": 1000},
        {key: value for key, value in GOOD.items() if key != "prompt"},
    ],
)
def test_a_reference_of_another_form_is_an_error(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    monkeypatch.setattr(instructions, "_MODULES", {})
    with InstructionGrader() as grader, pytest.raises(TypeError, match="an object with prompt, instruction_id_list"):
        grader.grade("x", answer)


def test_without_its_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "_MODULES", {"json": "json", "no_such_module": "lm-eval"})
    with pytest.raises(MachineError, match="checking IFEval's instructions needs lm-eval") as caught:
        InstructionGrader()
    assert '".[suites]"' in (caught.value.hint or "")


def test_checks_that_do_not_start_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "_MODULES", {})
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with InstructionGrader() as grader, pytest.raises(MachineError, match="IFEval's checks cannot be imported"):
        grader.grade("x", GOOD)
