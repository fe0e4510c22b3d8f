r"""Grade multiple-choice questions: find the letter that a text chooses and compare it with the right one.

The form in which a benchmark asks for the letter decides where it is looked for, see `Form`. The benchmarks' own
scripts differ from each other in details, and here one set of rules holds for all forms:

- thoughts do not count, only what stands behind the last `</think>`;
- of several places of one form the last one counts, because texts correct themselves;
- a place that names several letters is an answer, and a wrong one;
- letters are capitals, except alone in a box. *A* and *I* in front of a word in small letters are words;
- Markdown, LaTeX's fonts and `$`, full-width letters and invisible marks are layout.

Nothing is guessed: MMLU-Pro's script takes any last capital, or chance, where a text has no answer. Here it is wrong.
"""

import re
import unicodedata
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

from pipo_core.grade.math import MAX_ANSWER_LENGTH, extract_boxed
from pipo_core.grade.thoughts import answer_behind_thought

Form: TypeAlias = Literal["boxed", "answer_line", "answer_is", "correct_answer_is"]
r"""Where a text states its letter:

- ``boxed``: the last ``\boxed{…}``, as in ``\boxed{A}``, ``\boxed{\text{(A)}}`` or ``\boxed{A: its text}``. Source:
  the PIPO authors' prompt for GPQA Diamond and LongBench v2 (redai-infra/PIPO, ``pipo/constants.py``: "Please show your
  final answer within \boxed{} with only the choice letter"). Their ``pipo/eval/evaluator.py`` takes the last
  ``\boxed{X}`` of the last three lines and accepts a bare capital only.
- ``answer_line``: the last line with ``Answer: X``; the letter may stand on the next line. Source: GPQA in
  openai/simple-evals (``common.py``, ``ANSWER_PATTERN_MULTICHOICE``), which takes the first match.
- ``answer_is``: the last "answer is (X)", with or without parentheses or a colon. Source: MMLU-Pro
  (TIGER-AI-Lab/MMLU-Pro, ``evaluate_from_local.py``, ``extract_answer``), which takes the first match.
- ``correct_answer_is``: the last "The correct answer is (X)", with or without parentheses. Source: LongBench v2
  (THUDM/LongBench, ``pred.py``, ``extract_answer``), which takes the first match with parentheses, else without.
"""

LETTERS = "ABCDEFGHIJ"

_FONTS = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|up)?|math(?:bf|it|rm|sf|tt|bb|cal)?|boldsymbol|bm|bf|rm|operatorname|emph"
    r"|boxed|fbox|left|right)(?![A-Za-z])"
)
_SPACES = re.compile(r"\\[ ,;:!]|\\q?quad(?![A-Za-z])|~")
_WHITE = re.compile(r"\s+")
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_INVISIBLE = dict.fromkeys((173, *range(8203, 8208), *range(8234, 8239), *range(8288, 8298), 65038, 65039, 65279))
_CHARACTERS = str.maketrans({**_FULL_WIDTH, **_INVISIBLE, **dict.fromkeys("*`${}")})

# The patterns below see text without runs of blanks, so nothing in them repeats without bound in front of a choice.
_WORD = r"(?:(?i:the )?(?i:option|choice|letter|answer) )?"
_ENDS = r"(?![\w'’]|[-–]\w| ?[=<>≤≥+^])"
_GOES_ON = r"(?:because|since|as|and|or|are)\b"
_LETTER = rf"\(?(?:[B-HJ]|[AI](?! (?!{_GOES_ON})[a-z])){_ENDS}\)?"
_SEPARATOR = r"(?: ?[,;/&] ?(?:(?:and|or) )?| (?:and|or) | ?(?=\())"
_SECOND = rf"{_SEPARATOR}{_WORD}\(?[A-J]{_ENDS}(?! (?!{_GOES_ON})[a-z])\)?"
_CHOSEN = rf"{_WORD}(?P<letter>{_LETTER})(?P<second>{_SECOND})?"
_ANSWER_LINE = re.compile(rf"\b(?i:answer) ?: ?(?:(?i:is) )?{_CHOSEN}")
_EMPTY_LINE = re.compile(r"\b(?i:answer) ?:$")
_ANSWER_IS = re.compile(rf"\b(?i:answer is) ?:? ?{_CHOSEN}")
_CORRECT_ANSWER_IS = re.compile(rf"\b(?i:the correct answer is) ?:? ?{_CHOSEN}")
_LEAD = r"(?i:(?:the )?(?:(?:final |correct )?answer|option|choice|letter)(?: is)? ?:? ?)?"
_ALONE = re.compile(rf"{_LEAD}\(?([A-Ja-j])\)?[.:]?")
_SEVERAL = re.compile(rf"{_WORD}\(?[A-J]\)?(?:{_SEPARATOR}{_WORD}\(?[A-J]\)?)+\.?")
_WITH_TEXT = re.compile(rf"{_WORD}\(?([A-J])(?:\. |\)[.:]?|:) ?(?=\S)")


class LetterGrader:
    """Grades texts that choose one letter, in the forms of one benchmark."""

    def __init__(self, forms: Sequence[Form] = ("boxed",), *, text_counts: bool = False, opened: bool = False) -> None:
        """Choose where letters are looked for.

        Args:
            forms: the forms in the order in which they are tried; the first one that finds something decides.
            text_counts: whether a box with exactly the text of one choice counts as its letter; case, blanks, `$` and
                fonts may differ. Two choices with this text are no choice. References must then have `choices`.
            opened: whether the prompt has opened the thought, so that a text without `</think>` has no answer.

        Raises:
            ValueError: if there is no form, an unknown one or one twice, or if texts count but boxes do not.
        """
        unknown = [form for form in forms if form not in get_args(Form)]
        if unknown or not forms or len(set(forms)) < len(forms):
            raise ValueError(f"forms must be distinct ones of {', '.join(get_args(Form))}, not {list(forms)}")
        if text_counts and "boxed" not in forms:
            raise ValueError("the text of a choice counts in a box only, so the forms must have boxed")
        self._forms, self._text_counts, self._opened = tuple(forms), text_counts, opened

    def grade(self, text: str, answer: object) -> bool | None:
        """Return whether `text` chooses the right letter; the time is linear in the length of the text.

        Args:
            text: what a model wrote.
            answer: the right letter, A to J, or ``{"letter": "C", "choices": ["…", …]}``; a letter beyond the choices
                is wrong.

        Returns:
            The verdict; never None.

        Raises:
            TypeError: if the reference answer is neither.
        """
        right, choices = _parse_reference(answer)
        if self._text_counts and choices is None:
            raise TypeError("the texts of choices count, so the reference answer must be an object with choices")
        said = answer_behind_thought(text, opened=self._opened)
        if said is None:
            return False
        found = extract_letter(said, self._forms, choices if self._text_counts else ())
        return found == right  # the right letter is one of the choices, so a letter beyond them is wrong


def extract_letter(text: str, forms: Sequence[Form], choices: Sequence[str] | None = None) -> str | None:
    """Return the letter that `text` chooses; an empty text if a form names several, None if no form finds any.

    Args:
        text: what a model answered, without thoughts.
        forms: the forms in the order in which they are tried.
        choices: texts that count as their letters in a box.
    """
    plain: str | None = None
    for form in forms:
        if form == "boxed":
            found = _find_boxed(text, choices or ())
        elif form == "answer_line":
            found = _find_answer_line(text)
        else:
            plain = _without_layout(text) if plain is None else plain
            found = _last_choice(_ANSWER_IS if form == "answer_is" else _CORRECT_ANSWER_IS, plain)
        if found is not None:
            return found
    return None


def _find_boxed(text: str, choices: Sequence[str]) -> str | None:
    """Return the letter in the last box; an empty text for several letters or choices, None for anything else."""
    content = extract_boxed(text)
    if content is None or len(content) > MAX_ANSWER_LENGTH:
        return None
    plain = _without_layout(unicodedata.normalize("NFKC", content))
    if alone := _ALONE.fullmatch(plain):
        return alone[1].upper()
    same = [letter for letter, choice in zip(LETTERS, choices, strict=False) if _key(choice) == _key(content)]
    if same:
        return same[0] if len(same) == 1 else ""
    if _SEVERAL.fullmatch(plain):
        return ""
    with_text = _WITH_TEXT.match(plain)
    return with_text[1] if with_text else None


def _find_answer_line(text: str) -> str | None:
    """Return the letter of the last `Answer: X`; an empty text if it names several."""
    following = ""
    for raw in reversed(text.splitlines()):
        line = _without_layout(raw)
        if not line:
            continue
        found = _last_choice(_ANSWER_LINE, line)
        if found is not None:
            return found
        if _EMPTY_LINE.search(line) and (alone := _ALONE.fullmatch(following)) and alone[1].isupper():
            return alone[1]
        following = line if len(line) <= MAX_ANSWER_LENGTH else ""
    return None


def _last_choice(pattern: re.Pattern[str], text: str) -> str | None:
    """Return the letter of the last match; an empty text if it goes on with a second letter."""
    last = deque(pattern.finditer(text), maxlen=1)
    if not last:
        return None
    return "" if last[0]["second"] else last[0]["letter"].strip("()")


def _without_layout(text: str) -> str:
    r"""Return the text on one line without emphasis, `$`, fonts, braces and invisible marks; `\(X\)` becomes `(X)`."""
    text = _SPACES.sub(" ", _FONTS.sub("", text)).translate(_CHARACTERS)
    for layout in ("__", "\\"):
        text = text.replace(layout, "")
    return _WHITE.sub(" ", text).strip()


def _key(text: str) -> str:
    """Return what two spellings of a choice's text have in common."""
    text = unicodedata.normalize("NFKC", text) if len(text) <= MAX_ANSWER_LENGTH else text
    text = _WHITE.sub(" ", text.translate(_INVISIBLE).replace("$", "")).strip()
    inner = _FONTS.match(text)
    if inner and text.endswith("}") and text.startswith("{", inner.end()) and text.count("{") == 1:
        text = text[inner.end() + 1 : -1].strip()
    return text.removesuffix(".").strip().casefold()


def _parse_reference(answer: object) -> tuple[str, list[str] | None]:
    """Return the right letter and the choices, None if the reference does not have them.

    Raises:
        TypeError: if it is not a reference for letters.
    """
    letter: Any = answer.get("letter") if isinstance(answer, Mapping) else answer
    choices: Any = answer.get("choices") if isinstance(answer, Mapping) else None
    if isinstance(letter, str) and len(letter) == 1 and letter in LETTERS:
        if not isinstance(answer, Mapping):
            return letter, None
        texts = isinstance(choices, list) and all(isinstance(choice, str) for choice in choices)
        if texts and LETTERS.index(letter) < len(choices) <= len(LETTERS) and set(answer) == {"letter", "choices"}:
            return letter, choices
    raise TypeError(
        f"the reference answer must be a letter from A to J or an object with letter and choices, not {answer!r:.200}"
    )
