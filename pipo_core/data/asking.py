"""Asking a model problems, and grading what it answered: two steps over one file (`answers`).

Each answer has a seed of its own, so what is written does not depend on where a run was stopped or on how many answers
are in progress at once. Grading begins when the engine has finished, so a slow verdict stalls no sequence.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from pipo_core.data.answers import AnswerLog, Key
from pipo_core.data.problems import Problem, Reference
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Completion, Engine, Request, request_seed
from pipo_core.errors import PipoError
from pipo_core.files import fingerprint
from pipo_core.recipes.common import Sampling
from pipo_core.reporting import Reporter

Messages = list[dict[str, str]]
Judge = Callable[[str, Reference], bool | None]
"""Whether a text solves a problem with this reference answer; None if grading broke off."""

_FEW_FINISHED = 0.1
"""Share of the answers, in [0, 1]; below it something is probably wrong with the budget or the end token."""

_TRIES = 2
"""How often grading is tried before an answer counts as undecided."""


class Question(NamedTuple):
    """One answer that is wanted."""

    problem: Problem
    sample: int

    @property
    def key(self) -> Key:
        """Which answer it is."""
        return Key(self.problem.id, self.sample)


@dataclass(frozen=True)
class Asking:
    """How questions are asked.

    Attributes:
        title: what progress calls the job, and its noise is keyed by.
        seed: of the answers' noise.
        sampling: how tokens are sampled.
        prompt: the chat messages that ask a problem.
        max_tokens: budget in real tokens; None for no such limit.
        max_slots: budget in slots; None for no such limit.
        label: what progress adds to the title.
    """

    title: str
    seed: int
    sampling: Sampling
    prompt: Callable[[Problem], Messages]
    max_tokens: int | None
    max_slots: int | None
    label: str = ""

    def request(self, question: Question) -> Request:
        """Return the engine's request for a question."""
        seed = request_seed(self.title, self.seed, question.problem.id, question.sample)
        return Request(
            id=str(question.key),
            messages=tuple(self.prompt(question.problem)),
            sampling=SamplingParams(**self.sampling.model_dump(), seed=seed),
            max_tokens=self.max_tokens,
            max_slots=self.max_slots,
        )

    def print_of(self, question: Question) -> str:
        """Return the fingerprint of what is asked: prompt, sampling, budget, and what the answer is graded against."""
        request = self.request(question)
        limits = [request.max_tokens, request.max_slots]
        return fingerprint([request.messages, asdict(request.sampling), limits, question.problem.answer])


def all_questions(problems: Sequence[Problem], samples: int) -> list[Question]:
    """Return every sample of every problem."""
    return [Question(problem, sample) for problem in problems for sample in range(samples)]


def ask(
    log: AnswerLog,
    questions: Sequence[Question],
    asking: Asking,
    *,
    open_engine: Callable[[], Engine],
    reporter: Reporter,
) -> None:
    """Append the answers that the log lacks. The engine is opened only if there are any.

    An answer to something else, such as another wording of a problem by an older version, counts as lacking. The
    checkpoint and how it decodes are not compared here: one file belongs to one stage and arm.

    Raises:
        PipoError: if the engine ends without having answered everything; what it answered is kept.
    """
    prints = {question.key: asking.print_of(question) for question in questions}
    missing = {
        str(question.key): question
        for question in questions
        if question.key not in log.answers or log.answers[question.key].asked not in (None, prints[question.key])
    }
    if not missing:
        return
    again = sum(question.key in log.answers for question in missing.values())
    if again:
        reporter.warn(
            f"{log.path.name}: {again} answers are to something else (another prompt, sampling or budget); "
            "their questions are asked again"
        )
    engine = open_engine()
    failed = ""
    try:
        name = f"{asking.title} {asking.label}".strip()
        with reporter.progress(name, len(questions), "answer") as bar:
            bar.update(len(questions) - len(missing))
            means = _Means()
            requests = [asking.request(question) for question in missing.values()]
            for completion in engine.generate(requests):
                if completion.finish_reason == "error":
                    failed = f": {completion.error}"
                    continue
                question = missing.pop(completion.id)
                log.add_answer(_row(completion, question, prints[question.key]))
                bar.advance(1, **means.including(completion))
    finally:
        engine.close()
    if missing:
        raise PipoError(
            f"the engine gave no answer to {len(missing)} of {len(questions)} requests, "
            f"e.g. {next(iter(missing))}{failed}"
        )
    _warn_if_few_finish(log, questions, asking, reporter)


def _warn_if_few_finish(log: AnswerLog, questions: Sequence[Question], asking: Asking, reporter: Reporter) -> None:
    """Say so if next to no answer ended by itself: unfinished answers are wrong, whatever the model knows."""
    finished = sum(log.answers[question.key].finished for question in questions) / len(questions)
    if finished < _FEW_FINISHED:
        name = f"{asking.title} {asking.label}".strip()
        reporter.warn(
            f"{name}: only {100 * finished:.0f} % of the answers ended by themselves; the budget is too small, "
            "or the model does not write the end token that its files name"
        )


def grade(log: AnswerLog, questions: Sequence[Question], judge: Judge, *, label: str, reporter: Reporter) -> None:
    """Append the verdicts that the log lacks. An answer that was cut off is wrong without being judged.

    Where grading breaks off it is tried once more; then the answer counts as wrong and is marked.
    """
    lacking = [question for question in questions if log.answers[question.key].correct is None]
    if not lacking:
        return
    with reporter.progress(f"grade {label}".strip(), len(questions), "answer") as bar:
        bar.update(len(questions) - len(lacking))
        right = 0
        for number, question in enumerate(lacking, start=1):
            verdict: bool | None = False
            if log.answers[question.key].finished:
                verdict = _verdict(judge, log.row(question.key)["text"], question.problem.answer)
            log.add_verdict(question.key, correct=bool(verdict), undecided=verdict is None)
            right += bool(verdict)
            bar.advance(1, right=right / number)


def _verdict(judge: Judge, text: str, reference: Reference) -> bool | None:
    verdicts: Iterator[bool | None] = (judge(text, reference) for _ in range(_TRIES))
    return next((verdict for verdict in verdicts if verdict is not None), None)


def _row(completion: Completion, question: Question, asked: str) -> Mapping[str, Any]:
    problem = {name: value for name, value in asdict(question.problem).items() if name not in ("id", "solution")}
    return {
        "id": str(question.key),
        "problem": question.problem.id,
        "sample": question.sample,
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
        "asked": asked,
    }


class _Means:
    """Means over the answers so far, for the progress bar."""

    def __init__(self) -> None:
        self._answers = self._tokens = self._slots = self._finished = 0

    def including(self, completion: Completion) -> dict[str, float]:
        """Count an answer and return the means."""
        self._answers += 1
        self._tokens += completion.tokens
        self._slots += completion.slots or 0
        self._finished += completion.finish_reason == "stop"
        means = {"finished": self._finished / self._answers, "mean_tokens": self._tokens / self._answers}
        return {**means, "tokens_per_slot": self._tokens / self._slots} if self._slots else means
