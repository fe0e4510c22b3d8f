"""Grade answers: the second of two steps over one file (`answers`); the first is `asking`.

Grading begins after the engine has closed, so a slow verdict stalls no sequence.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice

from pipo_core.data.answers import AnswerLog
from pipo_core.data.asking import WantedAnswer
from pipo_core.data.problems import Reference
from pipo_core.errors import PipoError
from pipo_core.files import fingerprint
from pipo_core.reporting import Reporter
from pipo_core.text import one_line

Judge = Callable[[str, Reference], bool | None]
"""Returns whether a text is right by a reference answer; None if grading broke off."""

_MAX_TRIES = 2
"""Grading is tried this often before an answer counts as undecided."""


def judged_by(wanted: WantedAnswer) -> str:
    """Return a fingerprint of the reference that an answer is judged by."""
    return fingerprint([wanted.problem.answer])


def grade(
    log: AnswerLog,
    wanted: Sequence[WantedAnswer],
    judge: Judge,
    *,
    label: str,
    reporter: Reporter,
    workers: int = 1,
) -> None:
    """Append the verdicts that the log lacks, or that were made by another reference.

    An answer that was cut off is wrong, and the judge does not see it. If grading breaks off, it is tried once more;
    after that the answer counts as wrong and is marked as undecided.

    Args:
        log: the open log, which holds every wanted answer.
        wanted: the answers to grade.
        judge: decides whether a text is right.
        label: names the progress, behind the word "grade".
        reporter: shows progress.
        workers: answers that are judged at once.
    """
    ungraded = [answer for answer in wanted if _is_ungraded(log, answer)]
    if not ungraded:
        return
    with reporter.progress(f"grade {label}".strip(), len(wanted), "answer") as bar:
        bar.update(len(wanted) - len(ungraded))
        right = 0

        def verdict_on(answer: WantedAnswer) -> bool | None:
            if not log.answers[answer.key].finished:
                return False
            return _judge_with_retry(judge, log.row(answer.key)["text"], answer)

        for number, (answer, verdict) in enumerate(_in_turn(verdict_on, ungraded, workers), start=1):
            log.add_verdict(answer.key, correct=bool(verdict), undecided=verdict is None, judged=judged_by(answer))
            right += bool(verdict)
            bar.advance(1, right=right / number)


def _is_ungraded(log: AnswerLog, wanted: WantedAnswer) -> bool:
    answer = log.answers[wanted.key]
    return answer.correct is None or answer.judged not in (None, judged_by(wanted))


def _in_turn(
    verdict_on: Callable[[WantedAnswer], bool | None], answers: Iterable[WantedAnswer], workers: int
) -> Iterator[tuple[WantedAnswer, bool | None]]:
    """Yield answers with their verdicts as these become known, ``workers`` at once."""
    if workers == 1:
        yield from ((answer, verdict_on(answer)) for answer in answers)
        return
    rest = iter(answers)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="grade")
    running: dict[Future[bool | None], WantedAnswer] = {}
    try:
        while True:
            for answer in islice(rest, 2 * workers - len(running)):
                running[pool.submit(verdict_on, answer)] = answer
            if not running:
                return
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(done), done.result()
    finally:
        # Not waited for: whoever leaves early leaves the judge's context, too, which ends what still runs.
        pool.shutdown(wait=False, cancel_futures=True)


def _judge_with_retry(judge: Judge, text: str, answer: WantedAnswer) -> bool | None:
    """Return the verdict; None if grading broke off in every try.

    Raises:
        PipoError: what the judge raises, with the answer's name.
    """
    try:
        verdicts: Iterator[bool | None] = (judge(text, answer.problem.answer) for _ in range(_MAX_TRIES))
        return next((verdict for verdict in verdicts if verdict is not None), None)
    except PipoError:
        raise
    except Exception as error:
        raise PipoError(
            f"the grader failed on {answer.key} with reference answer {answer.problem.answer!r}: {one_line(error)}",
            hint="the answers are kept; once the grader or the reference is mended, run the same command again",
        ) from error
