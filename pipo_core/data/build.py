"""Training sets from rollouts: which answers are kept, and which problems are held out for validation.

The paper keeps every answer that is correct and finished. Its ablation keeps the shortest of them for each problem. For
distillation it keeps the questions of which at least half of the answers are correct, without the answers.
The files depend on the rollouts and the recipe alone, neither on the order in which answers were completed nor on the
shards that they were made in. Rollouts can be larger than memory, so only an index of them is held.
"""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pipo_core.data.answers import Answer
from pipo_core.data.card import CARD, length_figures, overlap_figures, write_card
from pipo_core.data.overlap import BenchmarkOverlap, compare_with
from pipo_core.data.problems import Problem, load_problems, user_message
from pipo_core.data.questions import SPLIT, VALIDATION, place_of
from pipo_core.data.repetition import repetition
from pipo_core.data.sources import Sources, read_sources, source_facts
from pipo_core.errors import PipoError
from pipo_core.files import file_fingerprint, new_file
from pipo_core.recipes.build import BuildRecipe
from pipo_core.recipes.problems import Problems
from pipo_core.reporting import Reporter, SilentReporter

THINK_PREFIX = "<think>\n"
"""The end of the generation prompt. A rollout's text begins behind it, but an assistant's turn contains it."""

OUT_OF_RANGE = "of a question outside hash_range"
IN_A_BENCHMARK = "of a question of a benchmark"
TOO_HARD = "of a question below minimum_solved"

Item = TypeVar("Item")

Benchmarks = Mapping[str, Sequence[str]]
"""The questions of each benchmark by its name."""


def run_build(
    recipe: BuildRecipe, out: Path, *, benchmarks: Benchmarks | None = None, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Write `out/train.jsonl`, a data card and, if a share is held out, `out/validation.jsonl`; return the counts.

    Rows are `{"messages": [user, assistant]}`, or `{"messages": [user]}` if the recipe wants questions. The assistant's
    content is the template's `<think>` prefix followed by the answer. No question is in both files.

    Args:
        recipe: the settings, with paths on this disk in place of names.
        out: the stage's folder, which exists.
        benchmarks: questions that training questions are compared with; None if there are none to compare with.
        reporter: shows progress.

    Returns:
        Counts of problems (`questions`) and answers, of dropped answers (or questions) by reason, of rows by file; the
        lengths of answers; and the overlap with each benchmark, None if there was none to compare with.

    Raises:
        MissingInputError: if the rollouts cannot be read, are not graded, or lack a shard.
        PipoError: if nothing is left to train on, or a problem has no worked solution.
    """
    reporter = reporter or SilentReporter()
    if recipe.worked is not None:
        return _build_worked(recipe, recipe.worked, out, benchmarks, reporter)
    sources = read_sources(recipe.rollouts)
    answers = sources.answers()
    questions = _questions_of(sources, answers)
    overlaps = None if benchmarks is None else compare_with(questions, benchmarks)
    excluded = exclude(questions, overlaps, recipe)
    if recipe.rows == "questions":
        kept, dropped = choose_questions(answers, recipe, excluded)
    elif recipe.max_repetition is None:
        kept, dropped = choose(answers, recipe, excluded)
    else:
        # The texts of all answers that are left so far are read: minutes for a large set.
        with reporter.progress("look for loops", None, "answer") as bar:
            is_loop = _loop_test(sources, recipe.max_repetition, bar.advance)
            kept, dropped = choose(answers, recipe, excluded, is_loop=is_loop)
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "there is none"
        more = f" and {len(recipe.rollouts) - 1} more" if len(recipe.rollouts) > 1 else ""
        raise PipoError(
            f"no {recipe.rows.removesuffix('s')} of {recipe.rollouts[0]}{more} is left to train on ({reasons})",
            hint="give the rollout a larger budget or a better model, or lower minimum_solved",
        )
    parts = _split(kept, {answer: questions[answer.problem] for answer in kept}, recipe, reporter)
    random.Random(recipe.seed).shuffle(parts["train"])  # noqa: S311 - an order, not a secret
    with reporter.progress("build", len(kept), "row") as bar:
        for name, part in parts.items():
            _write_part(out / f"{name}.jsonl", part, _training_rows(sources, part, recipe), bar.advance)
    with_answers = recipe.rows == "answers"
    summary = {
        "questions": len(questions),
        "answers": len(answers),
        "kept": len(kept),
        "dropped": dict(dropped),
        **_part_figures({name: {answer.problem for answer in part} for name, part in parts.items()}, parts),
        **(length_figures([answer.tokens for answer in kept]) if with_answers else {}),
        "overlap": overlap_figures(overlaps),
    }
    facts = [source_facts(source, file_fingerprint(source.path)) for source in sources.parts]
    write_card(out / CARD, recipe, summary, sources=facts)
    return summary


def _questions_of(sources: Sources, answers: Iterable[Answer]) -> dict[str, str]:
    """Return the text of each problem's question by the problem's id, sorted by it."""
    first: dict[str, Answer] = {}
    for answer in answers:
        first.setdefault(answer.problem, answer)
    chosen = [first[problem] for problem in sorted(first)]
    return {answer.problem: row["question"] for answer, row in zip(chosen, sources.rows(chosen), strict=True)}


def exclude(
    questions: Mapping[str, str], overlaps: Sequence[BenchmarkOverlap] | None, recipe: BuildRecipe
) -> dict[str, str]:
    """Return the ids of questions that the recipe leaves out whatever their answers, with the reason."""
    low, high = recipe.hash_range
    excluded = {
        # Places are below 1, so a range up to 1 has all of them.
        problem: OUT_OF_RANGE
        for problem, question in questions.items()
        if not low <= place_of(question, SPLIT) < high
    }
    if recipe.drop_overlap:
        for benchmark in overlaps or ():
            excluded |= dict.fromkeys(benchmark.ids, IN_A_BENCHMARK)
    return excluded


def _loop_test(sources: Sources, limit: float, advance: Callable[[], None]) -> Callable[[Answer], bool]:
    """Return what decides whether an answer repeats itself for more than the share ``limit`` of its text."""

    def is_loop(answer: Answer) -> bool:
        advance()
        return repetition(next(sources.rows([answer]))["text"]) > limit

    return is_loop


def choose(
    answers: Iterable[Answer],
    recipe: BuildRecipe,
    excluded: Mapping[str, str] | None = None,
    *,
    is_loop: Callable[[Answer], bool] = lambda _: False,
) -> tuple[list[Answer], Counter[str]]:
    """Return the kept answers, sorted by problem and sample, and the number of dropped ones by reason.

    Args:
        answers: all of them.
        recipe: the settings.
        excluded: why questions are left out, by the problem's id.
        is_loop: whether an answer repeats itself too much; asked last, since its text must be read for it.
    """
    kept: list[Answer] = []
    dropped: Counter[str] = Counter()
    for problem, group in _by_problem(answers):
        usable = []
        too_hard = _solved_share(group) < recipe.minimum_solved
        for answer in sorted(group, key=lambda answer: answer.sample):
            if excluded and problem in excluded:
                dropped[excluded[problem]] += 1
            elif not answer.finished:
                dropped["unfinished"] += 1
            elif not answer.correct:
                dropped["wrong"] += 1
            elif too_hard:
                dropped[TOO_HARD] += 1
            elif recipe.max_tokens is not None and answer.tokens > recipe.max_tokens:
                dropped["longer than max_tokens"] += 1
            elif is_loop(answer):
                dropped["above max_repetition"] += 1
            else:
                usable.append(answer)
        if recipe.pick == "shortest" and usable:
            dropped["not the shortest"] += len(usable) - 1
            usable = [min(usable, key=lambda answer: answer.tokens)]
        kept.extend(usable)
    return kept, +dropped


def choose_questions(
    answers: Iterable[Answer], recipe: BuildRecipe, excluded: Mapping[str, str]
) -> tuple[list[Answer], Counter[str]]:
    """Return one answer of each kept question, sorted by problem, and the number of dropped questions by reason."""
    kept: list[Answer] = []
    dropped: Counter[str] = Counter()
    for problem, group in _by_problem(answers):
        if problem in excluded:
            dropped[excluded[problem].removeprefix("of a question ")] += 1
        elif _solved_share(group) < recipe.minimum_solved:
            dropped[TOO_HARD.removeprefix("of a question ")] += 1
        else:
            kept.append(min(group, key=lambda answer: answer.sample))
    return kept, dropped


def _by_problem(answers: Iterable[Answer]) -> list[tuple[str, list[Answer]]]:
    by_problem: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_problem[answer.problem].append(answer)
    return sorted(by_problem.items())


def _solved_share(group: Sequence[Answer]) -> float:
    return sum(answer.solved for answer in group) / len(group)


def is_held_out(question: str, share: float) -> bool:
    """Return whether a question belongs to the validation set: it depends on its text and the share alone."""
    return place_of(question, VALIDATION) < share


def _split(
    kept: Sequence[Item], questions: Mapping[Item, str], recipe: BuildRecipe, reporter: Reporter
) -> dict[str, list[Item]]:
    """Return the kept items by file, in their order.

    Raises:
        PipoError: if all of them are held out.
    """
    share = recipe.validation_share
    held_out = [is_held_out(questions[item], share) for item in kept]
    train = [item for item, held in zip(kept, held_out, strict=True) if not held]
    validation = [item for item, held in zip(kept, held_out, strict=True) if held]
    if not train:
        raise PipoError(
            f"validation_share: all {len(kept)} rows are held out for validation",
            hint="give a smaller validation_share",
        )
    if share and not validation:
        reporter.warn(f"validation_share: none of the questions of {len(kept)} rows is held out for validation")
    return {"train": train, "validation": validation}


def _part_figures(questions: Mapping[str, set[str]], parts: Mapping[str, Sequence[object]]) -> dict[str, int]:
    figures: dict[str, int] = {}
    for name, part in parts.items():
        figures |= {f"{name}_rows": len(part), f"{name}_questions": len(questions[name])}
    return figures


def _build_worked(
    recipe: BuildRecipe, worked: Problems, out: Path, benchmarks: Benchmarks | None, reporter: Reporter
) -> dict[str, Any]:
    """Write training sets from the problems' own worked solutions, as for the first training of the tiny models."""
    problems = load_problems(
        worked.source, worked.split, worked.count, worked.seed, form=worked, answered=worked.columns is None
    )
    unsolved = [problem.id for problem in problems if not problem.solution]
    if unsolved or not problems:
        raise PipoError(
            f"{worked.source}: {len(unsolved)} of {len(problems)} problems have no worked solution",
            hint="let a model answer them: pipo rollout",
        )
    questions = {problem.id: problem.question for problem in problems}
    overlaps = None if benchmarks is None else compare_with(questions, benchmarks)
    excluded = exclude(questions, overlaps, recipe)
    kept = [problem.id for problem in problems if problem.id not in excluded]
    dropped = Counter(reason.removeprefix("of a question ") for reason in excluded.values())
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        raise PipoError(f"no problem of {worked.source} is left to train on ({reasons})")
    parts = _split(kept, questions, recipe, reporter)
    by_id = {problem.id: problem for problem in problems}
    with reporter.progress("build", len(kept), "row") as bar:
        for name, part in parts.items():
            rows = (_training_row(by_id[problem], by_id[problem].solution) for problem in part)
            _write_part(out / f"{name}.jsonl", part, rows, bar.advance)
    summary = {
        "questions": len(problems),
        "dropped": dict(dropped),
        **_part_figures({name: set(part) for name, part in parts.items()}, parts),
        "overlap": overlap_figures(overlaps),
    }
    write_card(out / CARD, recipe, summary, sources=[])
    return summary


def _training_rows(sources: Sources, answers: Sequence[Answer], recipe: BuildRecipe) -> Iterator[dict[str, Any]]:
    """Yield the training rows of the given answers, in the given order."""
    for row in sources.rows(answers):
        problem = Problem(
            id=row["problem"],
            question=row["question"],
            answer="",
            instruction=row.get("instruction", ""),
            prompt=row.get("prompt", ""),
        )
        yield _training_row(problem, row["text"] if recipe.rows == "answers" else None)


def _training_row(problem: Problem, text: str | None) -> dict[str, Any]:
    """Return the training row of an answer, ``text`` being what followed the thinking prefix; None for no answer."""
    answer = [] if text is None else [{"role": "assistant", "content": THINK_PREFIX + text}]
    return {"messages": [{"role": "user", "content": user_message(problem)}, *answer]}


def _write_part(
    path: Path, part: Sequence[object], rows: Iterable[dict[str, Any]], advance: Callable[[], None]
) -> None:
    """Write the rows of a part one by one, since they may not fit into memory; remove the file of an empty part."""
    if not part:
        path.unlink(missing_ok=True)
        return
    with new_file(path) as file:
        for row in rows:
            # A lone surrogate, which UTF-8 cannot hold, becomes its JSON escape.
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))
            advance()
