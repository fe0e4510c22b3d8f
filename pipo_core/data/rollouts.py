"""Rollouts: a model answers every problem several times, and each answer is graded as it is completed.

`rollouts.jsonl` only grows: an answer is on disk as soon as it is complete, and a run that was stopped
generates what is missing. Each answer has a seed of its own, from the recipe's seed, the problem and the
sample, so what a run writes does not depend on where it was stopped or on how many rows it decodes at once.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipo_core.chat import encode_prompt, end_ids, load_tokenizer
from pipo_core.data.answers import Answer, read_index
from pipo_core.data.problems import Problem, load_problems, user_message
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Completion, EngineOpener, Request, open_engine, request_seed
from pipo_core.errors import MissingInputError, PipoError
from pipo_core.files import append_jsonl, writing
from pipo_core.recipes.rollout import RolloutRecipe
from pipo_core.reporting import Reporter, SilentReporter

ROLLOUTS = "rollouts.jsonl"
Grade = Callable[[str, str], bool]
"""Whether a text's answer equals the reference answer."""


def run_rollout(
    recipe: RolloutRecipe,
    out: Path,
    *,
    grade: Grade,
    reporter: Reporter | None = None,
    open_engine: EngineOpener = open_engine,
) -> dict[str, Any]:
    """Answer and grade every problem `recipe.samples` times into `out/rollouts.jsonl`; return the totals.

    Rows are `{problem, question, answer, level, instruction, sample, text, finish_reason, tokens, correct}`,
    in the order of completion; `text` is what the model wrote after the prompt. Answers that are there are
    kept. Raises MissingInputError for unreadable problems or two of one id, and PipoError if the engine ends
    without having answered everything.
    """
    reporter = reporter or SilentReporter()
    problems = load_problems(recipe.problems.source, recipe.problems.split, recipe.problems.count, recipe.problems.seed)
    if len({problem.id for problem in problems}) < len(problems):
        raise MissingInputError(f"{recipe.problems.source}: two problems have the same id")
    wanted = {(problem.id, sample): problem for problem in problems for sample in range(recipe.samples)}
    path = out / ROLLOUTS
    append_jsonl(path, [])  # cuts off the line that a killed run left half-written
    done = {(answer.problem, answer.sample) for answer in read_index(path)}
    missing = {key: problem for key, problem in wanted.items() if key not in done}
    failed = ""
    if missing:
        requests = list(_requests(recipe, missing))
        engine = open_engine(Path(recipe.model), recipe.method, None, recipe.engine)
        with writing(path), path.open("ab") as file, reporter.progress("rollout", len(wanted), "answer") as bar:
            bar.update(len(wanted) - len(missing))
            solved = tokens = 0
            keys = {_id(*key): key for key in missing}
            for number, completion in enumerate(engine.generate(requests), start=1):
                if completion.finish_reason == "error":
                    failed = f": {completion.error}"
                    continue
                _, sample = key = keys[completion.id]
                row = _row(completion, missing[key], sample, grade)
                # A lone surrogate, which UTF-8 cannot hold, becomes its JSON escape.
                file.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))
                file.flush()
                solved += row["correct"] and row["finish_reason"] == "stop"
                tokens += row["tokens"]
                bar.advance(1, solved=solved / number, mean_tokens=tokens / number)
    answers = {(answer.problem, answer.sample): answer for answer in read_index(path)}
    lost = [_id(*key) for key in wanted if key not in answers]
    if lost:
        raise PipoError(f"the engine gave no answer to {len(lost)} of {len(wanted)} requests, e.g. {lost[0]}{failed}")
    return _summary(problems, [answers[key] for key in wanted])


def _requests(recipe: RolloutRecipe, missing: Mapping[tuple[str, int], Problem]) -> Iterator[Request]:
    tokenizer = load_tokenizer(Path(recipe.model))
    ends = end_ids(tokenizer)
    sampling = recipe.sampling.model_dump()
    for (name, sample), problem in missing.items():
        messages = [{"role": "user", "content": user_message(problem)}]
        yield Request(
            id=_id(name, sample),
            prompt_ids=tuple(encode_prompt(tokenizer, messages)),
            sampling=SamplingParams(**sampling, seed=request_seed("rollout", recipe.seed, name, sample)),
            max_tokens=recipe.budget.tokens,
            max_slots=recipe.budget.slots,
            stop_ids=ends,
        )


def _row(completion: Completion, problem: Problem, sample: int, grade: Grade) -> dict[str, Any]:
    return {
        "problem": problem.id,
        "question": problem.question,
        "answer": problem.answer,
        "level": problem.level,
        "instruction": problem.instruction,
        "sample": sample,
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "tokens": len(completion.token_ids),
        "correct": grade(completion.text, problem.answer),
    }


def _id(problem: str, sample: int) -> str:
    return f"{problem}#{sample}"


def _summary(problems: Sequence[Problem], answers: Sequence[Answer]) -> dict[str, Any]:
    count = max(1, len(answers))
    return {
        "problems": len(problems),
        "answers": len(answers),
        "finished": sum(answer.finished for answer in answers) / count,
        "solved": sum(answer.solved for answer in answers) / count,
        "problems_solved": len({answer.problem for answer in answers if answer.solved}),
        "mean_tokens": sum(answer.tokens for answer in answers) / count,
    }
