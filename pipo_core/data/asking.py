"""Ask a model problems: the first of two steps over one file (`answers`); the second is `grading`.

Each answer has its own seed, so its text depends neither on where a run was stopped nor on how many answers are in
progress at once.
"""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from itertools import chain
from types import TracebackType
from typing import Any, NamedTuple

from pipo_core.data.answers import AnswerLog, Key
from pipo_core.data.problems import Problem
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Completion, Engine, Request, request_seed
from pipo_core.errors import PipoError
from pipo_core.files import DAMAGED, fingerprint
from pipo_core.recipes.common import Sampling
from pipo_core.reporting import Reporter

Messages = list[dict[str, str]]
_FEW_FINISHED = 0.1
"""Share of finished answers, in [0, 1]. Below it the budget or the end token is probably wrong."""

_LONGEST_COPY = 2_000
"""Characters of a question or reference that an evaluation writes beside each answer: some are megabytes."""


class WantedAnswer(NamedTuple):
    """One answer that a model shall write: a problem and the number of the sample."""

    problem: Problem
    sample: int

    @property
    def key(self) -> Key:
        """The answer's key in an `AnswerLog`."""
        return Key(self.problem.id, self.sample)


@dataclass(frozen=True)
class Asking:
    """How problems are asked.

    Attributes:
        title: the job's name in the progress; the answers' noise is keyed by it.
        seed: seed of the answers' noise.
        sampling: how tokens are sampled.
        prompt: returns the chat messages that ask a problem.
        max_tokens: budget in real tokens; None for no such limit.
        max_slots: budget in slots; None for no such limit.
        label: follows the title in the progress, such as the name of an arm.
        whole: whether long questions and references are written beside each answer, for training sets are made of
            them; else long ones are left out.
        excuse: whether a request that the engine cannot answer counts as a wrong answer; else it ends the job.
    """

    title: str
    seed: int
    sampling: Sampling
    prompt: Callable[[Problem], Messages]
    max_tokens: int | None
    max_slots: int | None
    label: str = ""
    whole: bool = True
    excuse: bool = False

    def request(self, wanted: WantedAnswer) -> Request:
        """Return the request that makes an engine write the answer."""
        seed = request_seed(self.title, self.seed, wanted.problem.id, wanted.sample)
        return Request(
            id=str(wanted.key),
            messages=tuple(self.prompt(wanted.problem)),
            sampling=SamplingParams(**self.sampling.model_dump(), seed=seed),
            max_tokens=self.max_tokens,
            max_slots=self.max_slots,
        )

    def fingerprints(self, wanted: WantedAnswer) -> tuple[str, str]:
        """Return a fingerprint of prompt, sampling and budget, and the one of older versions.

        Those had the reference answer in it, too; now verdicts have one of their own (`judged_by`).
        """
        request = self.request(wanted)
        asked = [request.messages, asdict(request.sampling), [request.max_tokens, request.max_slots]]
        return fingerprint(asked), fingerprint([*asked, wanted.problem.answer])


class LazyEngine(AbstractContextManager["LazyEngine"]):
    """An engine that is opened when the first answer is asked for, and closed with the context.

    Attributes:
        session: names what one engine answered from its opening to its end, in the answers' lines.
    """

    def __init__(self, opened: Callable[[], Engine]) -> None:
        """Open by calling ``opened``."""
        self._opened = opened
        self._engine: Engine | None = None
        self._began = 0.0
        self.session = secrets.token_hex(4)

    def get(self) -> Engine:
        """Return the engine."""
        if self._engine is None:
            self._engine = self._opened()
            self._began = time.monotonic()
        return self._engine

    def seconds(self) -> float:
        """Return how long the engine has been open."""
        return time.monotonic() - self._began

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the engine if it was opened."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()


def asked_otherwise(log: AnswerLog, wanted: Sequence[WantedAnswer], asking: Asking) -> list[Key]:
    """Return the keys of answers in a log that were given to another prompt, sampling or budget."""
    found = []
    for answer in wanted:
        known = log.answers.get(answer.key)
        if known is not None and known.asked not in (None, *asking.fingerprints(answer)):
            found.append(answer.key)
    return found


def wanted_answers(problems: Sequence[Problem], samples: int) -> list[WantedAnswer]:
    """Return the wanted answers: ``samples`` of every problem."""
    return [WantedAnswer(problem, sample) for problem in problems for sample in range(samples)]


def ask(
    log: AnswerLog,
    wanted: Sequence[WantedAnswer],
    asking: Asking,
    *,
    engine: LazyEngine,
    reporter: Reporter,
) -> None:
    """Append the answers that the log lacks.

    An answer is also asked for again if its fingerprint differs, for example after a problem's wording changed. The
    checkpoint and the decoding are not compared here, because one file belongs to one stage and arm.

    Args:
        log: the open log.
        wanted: the answers that the log shall hold.
        asking: prompt, sampling and budget.
        engine: answers; it is opened only if an answer is missing.
        reporter: shows progress and warnings.

    Raises:
        PipoError: if the engine ends before every request was answered; the answers that it gave are kept.
    """
    other = set(asked_otherwise(log, wanted, asking))
    missing = {str(answer.key): answer for answer in wanted if answer.key not in log.answers or answer.key in other}
    if log.damaged:
        lines = ", ".join(map(str, log.damaged[:5])) + (" …" if len(log.damaged) > 5 else "")
        reporter.warn(
            f"{log.path.name} is damaged at line {lines}: what was there is asked or graded again; "
            f"the file as it was is {log.path.name}{DAMAGED}"
        )
    if not missing:
        return
    if other:
        reporter.warn(
            f"{log.path.name}: {len(other)} answers belong to another prompt, sampling or budget; "
            "these problems are asked again"
        )
    failures: list[Completion] = []
    answering = engine.get()
    began = engine.seconds()
    name = f"{asking.title} {asking.label}".strip()
    with reporter.progress(name, len(wanted), "answer") as bar:
        bar.update(len(wanted) - len(missing))
        means = _RunningMeans()
        requests = [asking.request(answer) for answer in missing.values()]
        refused = _refusals(answering, missing, requests) if asking.excuse else {}
        accepted = [request for request in requests if request.id not in refused]
        for completion in chain(refused.values(), answering.generate(accepted)):
            if completion.finish_reason == "error":
                failures.append(completion)
                continue
            answer = missing.pop(completion.id)
            line = _answer_line(completion, answer, asking)
            log.add_answer({**line, "session": engine.session, "at_s": round(engine.seconds() - began, 3)})
            bar.advance(1, **means.count(completion))
    # Where every answer failed, the settings are wrong and not the answers.
    if asking.excuse and len(missing) < len(wanted):
        for completion in failures:
            if not completion.lost:
                answer = missing.pop(completion.id)
                log.add_answer(_answer_line(completion, answer, asking))
    if missing:
        why = f": {failures[-1].error}" if failures else ""
        raise PipoError(
            f"the engine gave no answer to {len(missing)} of {len(wanted)} requests, e.g. {next(iter(missing))}{why}"
        )
    _warn_if_few_finish(log, wanted, asking, reporter)


def _warn_if_few_finish(log: AnswerLog, wanted: Sequence[WantedAnswer], asking: Asking, reporter: Reporter) -> None:
    """Warn if hardly any answer finished: unfinished answers count as wrong, whatever the model knows."""
    finished = sum(log.answers[answer.key].finished for answer in wanted) / len(wanted)
    if finished < _FEW_FINISHED:
        name = f"{asking.title} {asking.label}".strip()
        reporter.warn(
            f"{name}: only {100 * finished:.0f} % of the answers ended by themselves; the budget is too small, "
            "or the model does not write the end token that its files name"
        )


def _refusals(engine: Engine, wanted: Mapping[str, WantedAnswer], requests: Sequence[Request]) -> dict[str, Completion]:
    """Return a failed completion for each request that the engine can never answer, such as one that is too long."""
    known: dict[str, str | None] = {}
    found: dict[str, Completion] = {}
    for request in requests:
        problem = wanted[request.id].problem.id
        if problem not in known:  # samples of a problem have the same prompt
            known[problem] = engine.refusal(request)
        refusal = known[problem]
        if refusal is not None:
            found[request.id] = Completion(request.id, finish_reason="error", error=refusal)
    return found


def _answer_line(completion: Completion, wanted: WantedAnswer, asking: Asking) -> dict[str, Any]:
    """Return the line of the log that records a completion."""
    asked_of = wanted.problem
    problem: dict[str, str | None] = {
        "question": asked_of.question,
        "level": asked_of.level,
        "instruction": asked_of.instruction,
    }
    if asked_of.prompt:
        problem["prompt"] = asked_of.prompt
    # All tests of a programming problem can have megabytes, and each answer has a line.
    problem["answer"] = asked_of.answer if isinstance(asked_of.answer, str) else None
    if not asking.whole:
        problem = {name: value for name, value in problem.items() if value and len(value) <= _LONGEST_COPY}
    failure = {"error": completion.error} if completion.finish_reason == "error" else {}
    return {
        **failure,
        "id": str(wanted.key),
        "problem": wanted.problem.id,
        "sample": wanted.sample,
        **problem,
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "prompt_tokens": completion.prompt_tokens,
        "tokens": len(completion.token_ids),
        "written": completion.tokens,
        "slots": completion.slots,
        "drafts": completion.drafts,
        "kept": completion.kept,
        "slot_token_counts": completion.slot_token_counts,
        "ttft_s": completion.ttft_s,
        "time_s": completion.time_s,
        "asked": asking.fingerprints(wanted)[0],
    }


class _RunningMeans:
    """Means over the answers that were counted so far, for the progress bar."""

    def __init__(self) -> None:
        self._answers = self._tokens = self._slots = self._finished = 0

    def count(self, completion: Completion) -> dict[str, float]:
        """Count an answer and return the means."""
        self._answers += 1
        self._tokens += completion.tokens
        self._slots += completion.slots or 0
        self._finished += completion.finish_reason == "stop"
        means = {"finished": self._finished / self._answers, "mean_tokens": self._tokens / self._answers}
        return {**means, "tokens_per_slot": self._tokens / self._slots} if self._slots else means
