"""Training sets from rollouts: which answers are kept, and which problems are held out for validation.

The paper keeps every answer that is correct and finished. Its ablation keeps the shortest of them for each problem.
The files depend on the rollouts and the recipe alone, not on the order in which answers were completed. Rollouts can be
larger than memory, so only an index of them is held.
"""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipo_core.data.answers import Answer, read_index, read_rows
from pipo_core.data.problems import Problem, load_problems, user_message
from pipo_core.errors import MissingInputError, PipoError
from pipo_core.files import new_file
from pipo_core.recipes.build import BuildRecipe
from pipo_core.recipes.common import Problems
from pipo_core.reporting import Reporter, SilentReporter

THINK_PREFIX = "<think>\n"
"""The end of the generation prompt. A rollout's text begins behind it, but an assistant's turn contains it."""


def run_build(recipe: BuildRecipe, out: Path, *, reporter: Reporter | None = None) -> dict[str, Any]:
    """Write `out/train.jsonl` and, if a share is held out, `out/validation.jsonl`; return the counts.

    Rows are `{"messages": [user, assistant]}`. The assistant's content is the template's `<think>` prefix followed by
    the answer. No problem is in both files.

    Args:
        recipe: the settings, with paths on this disk in place of names.
        out: the stage's folder, which exists.
        reporter: shows progress.

    Returns:
        Counts of problems (`questions`) and answers, and of dropped answers by reason.

    Raises:
        MissingInputError: if the rollouts cannot be read or are not graded.
        PipoError: if no answer is left to train on, or a problem has no worked solution.
    """
    reporter = reporter or SilentReporter()
    if recipe.worked is not None:
        return _build_worked(recipe, recipe.worked, out, reporter)
    source = Path(recipe.rollouts or "")
    answers = list(read_index(source).values())
    ungraded = sum(answer.correct is None for answer in answers)
    if ungraded:
        raise MissingInputError(
            f"{source}: {ungraded} of {len(answers)} answers are not graded yet", hint="let pipo rollout finish"
        )
    kept, dropped = choose(answers, recipe)
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "the file is empty"
        raise PipoError(
            f"no answer of {source} is left to train on ({reasons})",
            hint="give the rollout a larger budget or a better model, or lower minimum_solved",
        )
    held_out = choose_held_out({answer.problem for answer in kept}, recipe)
    parts = {
        "train": [answer for answer in kept if answer.problem not in held_out],
        "validation": [answer for answer in kept if answer.problem in held_out],
    }
    random.Random(recipe.seed).shuffle(parts["train"])  # noqa: S311 - an order, not a secret
    with reporter.progress("build", len(kept), "row") as bar:
        for name, part in parts.items():
            _write_part(out / f"{name}.jsonl", part, _training_rows(source, part), bar.advance)
    return {
        "questions": len({answer.problem for answer in answers}),
        "answers": len(answers),
        "kept": len(kept),
        "dropped": dict(dropped),
        "train_rows": len(parts["train"]),
        "train_questions": len({answer.problem for answer in parts["train"]}),
        "validation_rows": len(parts["validation"]),
        "validation_questions": len(held_out),
        "mean_tokens": sum(answer.tokens for answer in kept) / len(kept),
    }


def _build_worked(recipe: BuildRecipe, worked: Problems, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Write training sets from the problems' own worked solutions, as for the first training of the tiny models."""
    problems = load_problems(worked.source, worked.split, worked.count, worked.seed)
    unsolved = [problem.id for problem in problems if not problem.solution]
    if unsolved or not problems:
        raise PipoError(
            f"{worked.source}: {len(unsolved)} of {len(problems)} problems have no worked solution",
            hint="let a model answer them: pipo rollout",
        )
    held_out = choose_held_out({problem.id for problem in problems}, recipe)
    parts = {
        "train": [problem for problem in problems if problem.id not in held_out],
        "validation": [problem for problem in problems if problem.id in held_out],
    }
    with reporter.progress("build", len(problems), "row") as bar:
        for name, part in parts.items():
            rows = (_training_row(problem, problem.solution) for problem in part)
            _write_part(out / f"{name}.jsonl", part, rows, bar.advance)
    return {"questions": len(problems), **{f"{name}_rows": len(part) for name, part in parts.items()}}


def choose(answers: Iterable[Answer], recipe: BuildRecipe) -> tuple[list[Answer], Counter[str]]:
    """Return the kept answers, sorted by problem and sample, and the number of dropped ones by reason."""
    by_problem: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_problem[answer.problem].append(answer)
    kept: list[Answer] = []
    dropped: Counter[str] = Counter()
    for _, group in sorted(by_problem.items()):
        usable = []
        too_hard = sum(answer.solved for answer in group) / len(group) < recipe.minimum_solved
        for answer in sorted(group, key=lambda answer: answer.sample):
            if not answer.finished:
                dropped["unfinished"] += 1
            elif not answer.correct:
                dropped["wrong"] += 1
            elif too_hard:
                dropped["of a question below minimum_solved"] += 1
            else:
                usable.append(answer)
        if recipe.keep == "shortest_correct" and usable:
            dropped["not the shortest"] += len(usable) - 1
            usable = [min(usable, key=lambda answer: answer.tokens)]
        kept.extend(usable)
    return kept, +dropped


def choose_held_out(problems: set[str], recipe: BuildRecipe) -> set[str]:
    """Return the ids of the validation problems: the rounded share, but at least one on either side."""
    if recipe.validation_share == 0 or len(problems) < 2:
        return set()
    count = min(max(round(recipe.validation_share * len(problems)), 1), len(problems) - 1)
    # A separate generator: the share must not change the order in which the training rows are shuffled.
    rng = random.Random(f"validation {recipe.seed}")  # noqa: S311 - a split, not a secret
    return set(rng.sample(sorted(problems), count))


def _training_rows(source: Path, answers: Iterable[Answer]) -> Iterator[dict[str, Any]]:
    """Yield the training rows of the given answers, in the given order."""
    for row in read_rows(source, iter(answers)):
        problem = Problem(
            id=row["problem"],
            question=row["question"],
            answer=row["answer"],
            instruction=row.get("instruction", ""),
        )
        yield _training_row(problem, row["text"])


def _training_row(problem: Problem, text: str) -> dict[str, Any]:
    """Return the training row of an answer, ``text`` being what followed the thinking prefix."""
    return {
        "messages": [
            {"role": "user", "content": user_message(problem)},
            {"role": "assistant", "content": THINK_PREFIX + text},
        ]
    }


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
