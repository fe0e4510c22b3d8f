"""Profiles: what `pipo calibrate` measured of a pair checkpoint on a machine, and the settings that follow from it.

A profile is a JSON file with a seal, strictly checked. From it follows, for each number of requests, the fastest
setting whose accuracy is not below that of the most accurate one.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from pipo_core.errors import MissingInputError, UsageError
from pipo_core.files import read_record
from pipo_core.recipes.base import Finding, RecipeModel, unique
from pipo_core.recipes.check import show, validate
from pipo_core.recipes.methods import METHODS, MethodName

PROFILE = "profile.json"
"""Its name in the folder of a calibration."""

VERSION: Literal[2] = 2
"""Of the form of profiles; raised when an older reader would misunderstand one."""

Positive = Annotated[float, Field(gt=0)]


class Interval(RecipeModel):
    """An estimate with its 95 % interval, in shares."""

    value: float
    low: float
    high: float


class Setting(RecipeModel):
    """One way to decode, and what it gives.

    Attributes:
        label: its name.
        method: of decoding.
        tau: its threshold; None for methods without one.
        draft_vocab: size of its draft vocabulary; None for all tokens.
        drafts: drafts a step, where the method lets it be chosen.
        tokens_per_step: real tokens that a step of one request wrote, over all answers.
        answer_tokens: mean real tokens of an answer.
        accuracy: share of right answers; None if nothing was graded.
        difference: accuracy minus that of the most accurate pair setting, paired by question; None if nothing was
            graded.
    """

    label: Annotated[str, Field(min_length=1)]
    method: MethodName
    tau: Annotated[float, Field(ge=0, le=1)] | None = None
    draft_vocab: Annotated[int, Field(ge=1)] | None = None
    drafts: Annotated[int, Field(ge=1)] | None = None
    tokens_per_step: Annotated[float, Field(ge=1)]
    answer_tokens: Positive
    accuracy: Interval | None = None
    difference: Interval | None = None

    @property
    def has_gate(self) -> bool:
        """Whether it is one of the pair checkpoint's, with a threshold."""
        return "tau" in METHODS[self.method].options

    @property
    def admissible(self) -> bool:
        """Whether its accuracy was measured and is not below the most accurate setting's with certainty."""
        return self.difference is not None and self.difference.high >= 0

    def findings(self) -> Iterator[Finding]:
        """A setting has a threshold exactly if its method has a gate."""
        if self.has_gate != (self.tau is not None):
            yield Finding(("tau",), f"method {self.method} {'needs a' if self.has_gate else 'has no'} threshold")


class Cost(RecipeModel):
    """What a setting costs at one load.

    Attributes:
        label: the setting's.
        step_s: seconds of a step.
        tokens_per_second: real tokens of all requests together that are to be expected.
        right_per_second: right answers that are to be expected; None if nothing was graded.
    """

    label: Annotated[str, Field(min_length=1)]
    step_s: Positive
    tokens_per_second: Positive
    right_per_second: Annotated[float, Field(ge=0)] | None = None


class Load(RecipeModel):
    """A number of requests that decode together, and what each setting costs then.

    Attributes:
        requests: how many.
        costs: of each setting, in their order.
        best: label of the fastest admissible setting; None if nothing was graded.
        best_pairs: the same of the pair settings alone.
    """

    requests: Annotated[int, Field(ge=1)]
    costs: list[Cost]
    best: str | None = None
    best_pairs: str | None = None

    def cost(self, label: str) -> Cost:
        """Return what a setting costs."""
        return next(cost for cost in self.costs if cost.label == label)


class Checkpoint(RecipeModel):
    """A checkpoint that was measured.

    Attributes:
        folder: where it was then, for messages.
        weights: fingerprint of its weights.
        draft_tokens: fingerprint of the token ids that draft vocabularies are taken from, in their order; None if none
            was measured.
    """

    folder: str
    weights: str
    draft_tokens: str | None = None


class Machine(RecipeModel):
    """What ran the steps.

    Attributes:
        device: name of the GPU, or of the processor.
        precision: number format of the weights.
        threads: of the processor; None on a GPU.
    """

    device: str
    precision: str
    threads: Annotated[int, Field(ge=1)] | None


class Asked(RecipeModel):
    """What was asked to measure acceptance and accuracy.

    Attributes:
        what: the suite, or the file of rows.
        questions: how many.
        samples: answers to each.
    """

    what: str
    questions: Annotated[int, Field(ge=1)]
    samples: Annotated[int, Field(ge=1)]


class Profile(RecipeModel):
    """All that was measured of a pair checkpoint.

    Attributes:
        kind: tells profiles from other files.
        version: of this form.
        checkpoint: the pair model.
        regular: the uncompressed model that it was compared with; None for none.
        machine: what ran the steps.
        asked: what was asked.
        context: tokens of each request's prompt where steps were timed.
        settings: all of them; pair settings first.
        loads: by rising number of requests.
    """

    kind: Literal["profile"] = "profile"
    version: Literal[2] = VERSION
    checkpoint: Checkpoint
    regular: Checkpoint | None = None
    machine: Machine
    asked: Asked
    context: Annotated[int, Field(ge=1)]
    settings: Annotated[list[Setting], Field(min_length=1)]
    loads: Annotated[list[Load], Field(min_length=1)]

    def findings(self) -> Iterator[Finding]:
        """Labels are unique; every load has a cost for every setting, and loads rise."""
        labels = [setting.label for setting in self.settings]
        yield from unique(labels, "settings", "setting")
        before = 0
        for index, load in enumerate(self.loads):
            if [cost.label for cost in load.costs] != labels:
                yield Finding(("loads", index, "costs"), "needs the cost of each setting, in their order")
            if load.requests <= before:
                yield Finding(("loads", index, "requests"), "must be more than the load before")
            before = load.requests
            for key in ("best", "best_pairs"):
                if getattr(load, key) not in (None, *labels):
                    yield Finding(("loads", index, key), f"no setting is called {getattr(load, key)!r}")
        if not self.pairs:
            yield Finding(("settings",), "none of them has a threshold")

    @property
    def pairs(self) -> list[Setting]:
        """The pair checkpoint's settings."""
        return [setting for setting in self.settings if setting.has_gate]

    @property
    def graded(self) -> bool:
        """Whether accuracy is known."""
        return all(setting.accuracy is not None for setting in self.pairs)

    def at(self, requests: int) -> Load:
        """Return the measured load that is nearest to a number of requests, by their ratio."""
        return min(self.loads, key=lambda load: abs(math.log(load.requests / max(1, requests))))


def fastest(load: Load, settings: Sequence[Setting]) -> Setting | None:
    """Return the setting that writes the most tokens a second at a load; of equal ones the more accurate; or None."""
    return max(
        settings,
        key=lambda one: (load.cost(one.label).tokens_per_second, one.accuracy.value if one.accuracy else 0.0),
        default=None,
    )


def recommended(load: Load, settings: Sequence[Setting]) -> tuple[Setting | None, Setting | None]:
    """Return what to use at a load: the fastest of all, and the fastest of the pair settings.

    A setting whose accuracy is below that of the most accurate pair setting with certainty, or not known, is never one.
    """
    safe = [setting for setting in settings if setting.admissible]
    return fastest(load, safe), fastest(load, [setting for setting in safe if setting.has_gate])


def within(profile: Profile, min_tau: float | None = None, max_tau: float | None = None) -> list[Setting]:
    """Return the pair settings that a server may use: the admissible ones, or those within the bounds that are given.

    A bound that is not given is the lowest or highest admissible threshold; or 0 or 1 if the other lies beyond them.

    Raises:
        UsageError: if there is none.
    """
    if min_tau is not None and max_tau is not None and min_tau > max_tau:
        raise UsageError(f"--min-tau {min_tau:g} is above --max-tau {max_tau:g}")
    safe = [one for one in profile.pairs if one.admissible]
    if min_tau is None and max_tau is None:
        if not safe:
            raise UsageError(
                "the profile knows no accuracy, so no threshold follows from it",
                hint="give the lowest threshold yourself: --min-tau 0.9; or calibrate on a suite",
            )
        return safe
    known = [one.tau for one in safe if one.tau is not None]
    low = min(known, default=0.0) if min_tau is None else min_tau
    high = max(known, default=1.0) if max_tau is None else max_tau
    if low > high:  # the bound that is given lies beyond the admissible range
        low, high = (0.0, high) if min_tau is None else (low, 1.0)
    found = [one for one in profile.pairs if one.tau is not None and low <= one.tau <= high]
    if not found:
        measured = ", ".join(f"{tau:g}" for tau in sorted({one.tau for one in profile.pairs if one.tau is not None}))
        raise UsageError(f"the profile has no threshold from {low:g} to {high:g}; measured: {measured}")
    return found


def one_vocabulary(profile: Profile, settings: Sequence[Setting]) -> list[Setting]:
    """Return the settings of the draft vocabulary that is fastest over all loads, by the mean of logarithms.

    A server has one draft vocabulary from its start to its end, whatever the load.
    """
    of_each: dict[int | None, list[Setting]] = {}
    for setting in settings:
        of_each.setdefault(setting.draft_vocab, []).append(setting)

    def speed(group: Sequence[Setting]) -> float:
        best = [max(load.cost(one.label).tokens_per_second for one in group) for load in profile.loads]
        return sum(map(math.log, best))

    return max(of_each.values(), key=speed)


def read_profile(path: Path) -> Profile:
    """Return the profile in a file.

    Raises:
        MissingInputError: if it is absent, damaged, of another version, or not a profile; names what is wrong.
    """
    again = "pipo calibrate writes a new one"
    try:
        found: dict[str, Any] = read_record(path)
    except MissingInputError as error:
        raise MissingInputError(error.message, hint=again) from error
    if found.get("kind") != "profile":
        raise MissingInputError(f"{path} is not a profile", hint=f"pipo calibrate writes them, as {PROFILE}")
    if found.get("version") != VERSION:
        message = f"{path} is a profile of version {found.get('version')!r}, and this pipo reads version {VERSION}"
        raise MissingInputError(message, hint="remove it and give pipo calibrate again; answers and times are kept")
    profile, problems = validate(Profile, found)
    if profile is None:
        first, more = problems[0], len(problems) - 1
        also = f" (and {more} more)" if more else ""
        where = f"{show(first.loc)}: " if first.loc else ""
        raise MissingInputError(f"{path}: {where}{first.message}{also}", hint=again)
    return profile
