"""`kind: suite` and `kind: suites`: what a benchmark asks, where its questions are and how answers are graded, as data.

A suite needs no Python: its file says where the rows are, which columns mean what, what the model is asked and which
grader judges the answer. A group names several suites that are measured together.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, Tag

from pipo_core.recipes.base import Finding, RecipeModel, by_kind, repeated
from pipo_core.recipes.common import Budget, Name, SamplingChoice

COLUMN_NAMES: Mapping[str, str] = {
    "id": "the question's name, told apart from all others; without it, questions are numbered by row",
    "question": "the question",
    "answer": "the right answer",
    "level": "difficulty class or subject, for the table of levels",
    "tests": "code: the open tests, a list of {input, output}, or that list as JSON text",
    "hidden_tests": "code: further tests, in the same form or packed as LiveCodeBench packs them",
    "checker": "code: a program that judges an output where several are right, as Codeforces' checkers; may be empty",
    "metadata": "code: an object, or JSON text, whose func_name is the function that tests call",
    "instructions": "instructions: the ids of the verifiable instructions, a list",
    "arguments": "instructions: the arguments of each instruction, a list of objects",
}
"""Names of columns that have a meaning of their own; others are there for prompts."""


class HubSource(RecipeModel):
    """Rows in a data set of the hub; nothing of the repository is executed."""

    kind: Literal["hub"] = Field(description="The kind of source: hub is a data set of the hub.", examples=["hub"])
    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="The data set's id (owner/name).", examples=["x/y"])
    revision: str = Field(
        pattern=r"^[\w./+-]+$", description="A commit, so that the questions stay the same.", examples=["main"]
    )
    path: str = Field(
        min_length=1,
        description="The file in the repository: .jsonl, .json (a list), .parquet or .csv.",
        examples=["test.jsonl"],
    )

    @property
    def text(self) -> str:
        """Return the source in a word, as a catalog name would stand for it."""
        return f"{self.repo}@{self.revision}"


class WebSource(RecipeModel):
    """Rows in one file of the web, known by its checksum."""

    kind: Literal["web"] = Field(description="The kind of source: web is a file at an address.", examples=["web"])
    url: str = Field(pattern=r"^https://", description="The file's address.", examples=["https://x/y.csv"])
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="The file's checksum.", examples=["0" * 64])

    @property
    def text(self) -> str:
        """Return the source in a word."""
        return self.url


class FileSource(RecipeModel):
    """Rows in a file on this disk."""

    kind: Literal["file"] = Field(description="The kind of source: file is on this disk.", examples=["file"])
    path: str = Field(
        min_length=1,
        description="The file, relative to the suite's file: .jsonl, .json (a list), .parquet or .csv.",
        examples=["mine.jsonl"],
    )

    @property
    def text(self) -> str:
        """Return the source in a word."""
        return self.path


class GeneratedSource(RecipeModel):
    """Held-out questions of the tiny world, which pipo makes; seed and number are the evaluation's."""

    kind: Literal["generated"] = Field(
        description="The kind of source: pipo makes the questions.", examples=["generated"]
    )
    name: Literal["tiny", "tiny-code"] = Field(
        description="tiny: arithmetic, with columns question and answer; tiny-code: functions, with columns question, "
        "tests, hidden_tests and metadata.",
        examples=["tiny"],
    )

    @property
    def text(self) -> str:
        """Return the source in a word."""
        return self.name


SuiteSource: TypeAlias = Annotated[
    Annotated[HubSource, Tag("hub")]
    | Annotated[WebSource, Tag("web")]
    | Annotated[FileSource, Tag("file")]
    | Annotated[GeneratedSource, Tag("generated")],
    by_kind("hub, web, file, generated", "source_kind"),
]


class BoxedGrader(RecipeModel):
    r"""The last \boxed{} of the answer equals the right answer, as mathematics (math-verify)."""

    kind: Literal["boxed"] = Field(
        description=r"The kind of grader: boxed is mathematics in a \boxed{}.", examples=["boxed"]
    )


class LetterGrader(RecipeModel):
    """The answer names the right choice's letter."""

    kind: Literal["letter"] = Field(
        description="The kind of grader: letter is the letter of a choice.", examples=["letter"]
    )
    forms: Annotated[list[Literal["boxed", "answer_line", "answer_is", "correct_answer_is"]], Field(min_length=1)] = (
        Field(
            default=["boxed"],
            description=r"Where the letter is looked for, in this order: boxed is the last \boxed{A}; "
            'answer_line a last line "Answer: A"; answer_is "the answer is (A)"; correct_answer_is "The correct answer '
            'is (A)".',
        )
    )
    text_counts: bool = Field(default=False, description="Whether a box with a choice's text counts as its letter.")

    def findings(self) -> Iterator[Finding]:
        """Each form is named once."""
        yield from repeated(("forms",), self.forms, "named")


class InstructionsGrader(RecipeModel):
    """The answer follows each of its verifiable instructions (IFEval's, strict)."""

    kind: Literal["instructions"] = Field(
        description="The kind of grader: instructions are IFEval's verifiable ones.", examples=["instructions"]
    )


class CodeGrader(RecipeModel):
    """The answer's last block of Python passes all tests, in a sandbox."""

    kind: Literal["code"] = Field(description="The kind of grader: code runs tests in a sandbox.", examples=["code"])
    seconds: float = Field(default=6.0, gt=0, le=600, description="The longest that a test may run, in seconds.")
    memory_gib: float = Field(default=2.0, gt=0, le=64, description="The most memory of a test, in GiB.")


GraderSettings: TypeAlias = Annotated[
    Annotated[BoxedGrader, Tag("boxed")]
    | Annotated[LetterGrader, Tag("letter")]
    | Annotated[InstructionsGrader, Tag("instructions")]
    | Annotated[CodeGrader, Tag("code")],
    by_kind("boxed, letter, instructions, code", "grader_kind"),
]

NEEDED_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "boxed": ("question", "answer"),
    "letter": ("question",),
    "instructions": ("question", "instructions", "arguments"),
    "code": ("question", "tests"),
}
"""The named columns that each kind of grader needs."""


class Choices(RecipeModel):
    """The choices of a question, lettered from A on."""

    columns: Annotated[list[str], Field(min_length=1)] = Field(
        description="A column for each choice, or one column that holds a list of them.", examples=[["options"]]
    )
    right: str | None = Field(
        default=None,
        description="The column with the right choice's letter, or its number from 0; null: it is the first.",
    )
    shuffle: bool = Field(
        default=False, description="Put the choices into an order drawn with the row's number (from 0) as the seed."
    )

    def findings(self) -> Iterator[Finding]:
        """Each column is named once."""
        yield from repeated(("columns",), self.columns, "named")


class Condition(RecipeModel):
    """Which rows are asked: those whose column has this value, or at least this one."""

    column: str = Field(min_length=1, description="A column of the rows.", examples=["length"])
    equals: str | int | bool | None = Field(default=None, description="Keep rows with this value.")
    at_least: str | int | None = Field(default=None, description="Keep rows with this value or a later one.")

    def findings(self) -> Iterator[Finding]:
        """Give either equals or at_least."""
        if (self.equals is None) == (self.at_least is None):
            yield Finding(("equals",), "give either equals or at_least", (("at_least",),))


class Profile(RecipeModel):
    """One way to ask the questions and to grade the answers."""

    prompt: str = Field(
        min_length=1,
        description="The user's turn, a Jinja template over the named columns; choices are a list of {letter, text}.",
        examples=["{{ question }}"],
    )
    grader: GraderSettings = Field(description="What judges the answers.", examples=[{"kind": "boxed"}])


class SuiteFile(RecipeModel):
    """A benchmark: its questions, how they are asked, and what judges the answers."""

    kind: Literal["suite"] = Field(default="suite", description="The kind of file.")
    title: str = Field(min_length=1, description="The benchmark's name.", examples=["My questions"])
    citation: str = Field(default="", description="Who made it: an article or an address.")
    licence: str = Field(default="", description="Under which licence the questions are published.")
    source: SuiteSource = Field(
        description="Where the questions are.", examples=[{"kind": "file", "path": "mine.jsonl"}]
    )
    rows: int | None = Field(
        default=None,
        ge=1,
        description="How many questions it has; it is told if a file holds another number. Null: not checked.",
    )
    where: list[Condition] = Field(default=[], description="Which rows are asked; all conditions must hold.")
    columns: dict[Name, str] = Field(
        description="Names for the file's columns; a dot goes into objects. "
        + "; ".join(f"{name}: {what}" for name, what in COLUMN_NAMES.items())
        + ". Other names are for prompts.",
        examples=[{"question": "question", "answer": "answer"}],
    )
    choices: Choices | None = Field(default=None, description="Of a question that is answered by a letter.")
    profiles: Annotated[dict[Name, Profile], Field(min_length=1)] = Field(
        description="Ways to ask and to grade, by name; the first is the usual one.",
        examples=[{"own": {"prompt": "{{ question }}", "grader": {"kind": "boxed"}}}],
    )
    samples: int = Field(default=4, ge=1, description="Answers per question.")
    sampling: SamplingChoice = Field(default="paper", description="How tokens are sampled, or a preset's name.")
    budget: Budget = Field(description="How long an answer may become.", examples=[{"tokens": 1}])

    def findings(self) -> Iterator[Finding]:
        """A grader's columns are there, letters have choices, prompts name columns, and each named column is used."""
        used: set[str] = set()
        for name, profile in self.profiles.items():
            at = ("profiles", name)
            needed = NEEDED_COLUMNS[profile.grader.kind]
            used.update(needed)
            for column in needed:
                if column not in self.columns:
                    message = f"grader {profile.grader.kind} needs a column for {column}"
                    yield Finding(("columns",), message, ((*at, "grader"),))
            if profile.grader.kind == "letter" and self.choices is None:
                yield Finding((*at, "grader"), "grader letter needs choices", (("columns",),))
            known = {*self.columns, *(["choices"] if self.choices else [])}
            names, error = prompt_names(profile.prompt)
            if error:
                yield Finding((*at, "prompt"), error)
            for unknown in sorted(names - known):
                message = f"{{{{ {unknown} }}}} names no column; there are {', '.join(sorted(known))}"
                yield Finding((*at, "prompt"), message, (("columns",),))
            used |= names
            if profile.grader.kind == "code":
                used |= {"hidden_tests", "checker", "metadata"}
        for name in self.columns:
            if name not in used | {"id", "level"}:
                yield Finding(("columns", name), "nothing reads this column: no prompt and no grader", (("profiles",),))


class SuiteGroup(RecipeModel):
    """Several suites that are measured together."""

    kind: Literal["suites"] = Field(default="suites", description="The kind of file.")
    title: str = Field(min_length=1, description="The group's name.", examples=["Mine"])
    suites: Annotated[list[str], Field(min_length=1)] = Field(
        description="Names of shipped suites, or files relative to this one.", examples=[["math"]]
    )

    def findings(self) -> Iterator[Finding]:
        """Each suite is named once."""
        yield from repeated(("suites",), self.suites, "named")


def source_file(source: SuiteSource) -> str:
    """Return the path of a source's file, relative to where it lies; empty if pipo makes the questions."""
    if isinstance(source, WebSource):
        return source.url.rpartition("/")[2]
    return "" if isinstance(source, GeneratedSource) else source.path


def prompt_names(template: str) -> tuple[set[str], str]:
    """Return the names that a prompt's template uses, and what is wrong with it, or an empty text."""
    from jinja2 import TemplateSyntaxError, meta

    environment = prompt_environment()
    try:
        return meta.find_undeclared_variables(environment.parse(template)), ""
    except TemplateSyntaxError as error:
        return set(), f"not a Jinja template: {error.message}"


def prompt_environment() -> Any:
    """Return the environment in which prompts are rendered: sandboxed, and names without a value are errors."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
