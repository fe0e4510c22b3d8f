"""`pipo eval`: several arms answer the same problems with the same draws, compared at equal budgets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipo_core.chat import encode_prompt, load_tokenizer
from pipo_core.data.problems import Problem
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Completion, Engine, EngineOpener, Request, open_engine, request_seed
from pipo_core.errors import PipoError, UsageError
from pipo_core.evaluate.answers import AnswerFile
from pipo_core.evaluate.scores import Outcome, Unit, figures, outcome
from pipo_core.evaluate.suites import SUITES, Suite
from pipo_core.files import file_fingerprint, fingerprint, write_json
from pipo_core.recipes.common import Budget, arm_label
from pipo_core.recipes.evaluate import EvalRecipe
from pipo_core.reporting import Reporter, SilentReporter

RESULTS = "results.json"
ANSWERS = "answers"


@dataclass(frozen=True)
class ArmRun:
    """One row of the comparison: an arm, at one threshold if it has any."""

    name: str
    method: str
    ckpt: Path
    tau: float | None
    acceptance: float | None

    @property
    def label(self) -> str:
        """The arm's name in files, tables and plots."""
        return arm_label(self.name, self.tau, self.acceptance)

    @property
    def coin(self) -> dict[str, float]:
        """What drafts are kept by, if not by their confidence."""
        return {} if self.acceptance is None else {"acceptance": self.acceptance}


def run_eval(
    recipe: EvalRecipe,
    out: Path,
    *,
    reporter: Reporter | None = None,
    open_engine: EngineOpener = open_engine,
) -> dict[str, Any]:
    """Answer, grade and compare; return what `out/results.json` holds.

    Every answer is a line of `out/answers/<arm>[@tau].jsonl` as soon as it is complete; called again, only
    missing answers are generated. The figures of each arm (`scores.figures`) are given at the token budget
    and at the slot budget (`both_budgets`).
    Raises UsageError where the baseline is an arm with several thresholds, PipoError where an engine loses
    answers.
    """
    reporter = reporter or SilentReporter()
    runs = _runs(recipe)
    baseline = _baseline(recipe, runs)
    with SUITES[recipe.suite]() as suite:
        problems = suite.problems(recipe)
        identity = _identity(recipe, suite, problems)
        checkpoints = {ckpt: file_fingerprint(ckpt) for ckpt in {run.ckpt for run in runs}}
        answers: dict[str, list[dict[str, Any]]] = {}
        for run in runs:
            arm = {"method": run.method, "tau": run.tau, **run.coin, "checkpoint": checkpoints[run.ckpt]}
            path = out / ANSWERS / f"{run.label}.jsonl"
            with AnswerFile(path, {**arm, **identity}, reporter) as file:
                _answer(recipe, run, suite, problems, file, reporter, open_engine)
                answers[run.label] = [file.rows[_id(p, s)] for p in problems for s in range(recipe.samples)]
        undecided = suite.undecided
    if undecided:
        reporter.warn(f"answers that count as wrong because their grading took too long: {undecided}")
    results = _results(recipe, runs, baseline, problems, answers)
    write_json(out / RESULTS, results)
    return results


def both_budgets(budget: Budget) -> dict[Unit, int]:
    """Return the token and the slot budget; one that the recipe leaves out equals the other in number.

    Both are always scored, because which one is held equal decides a comparison of methods.
    """
    number = budget.tokens or budget.slots
    if number is None:
        raise ValueError("a budget has a limit")
    return {"tokens": budget.tokens or number, "slots": budget.slots or number}


def limits(budgets: Mapping[Unit, int], method: str) -> tuple[int, int]:
    """Return (most tokens, most slots) of a generation that reaches both budgets.

    N tokens take at most N slots, N slots at most N tokens (regular) or 2N (pipo).
    """
    a_slot = 2 if method == "pipo" else 1
    tokens, slots = budgets["tokens"], budgets["slots"]
    return max(tokens, a_slot * slots), max(tokens, slots)


def _runs(recipe: EvalRecipe) -> list[ArmRun]:
    runs = []
    for arm in recipe.arms:
        runs += [ArmRun(arm.name, arm.method, Path(arm.ckpt), tau, share) for tau, share in arm.variants()]
    return runs


def _baseline(recipe: EvalRecipe, runs: Sequence[ArmRun]) -> str | None:
    if recipe.baseline is None:
        return None
    labels = [run.label for run in runs if run.name == recipe.baseline]
    if len(labels) != 1:
        raise UsageError(
            f"baseline {recipe.baseline!r} stands for {len(labels)} runs ({', '.join(labels)})",
            hint="name an arm with one threshold as the baseline",
        )
    return labels[0]


def _identity(recipe: EvalRecipe, suite: Suite, problems: Sequence[Problem]) -> dict[str, Any]:
    asked = [[p.id, p.question, p.answer, suite.prompt(p)] for p in problems]
    return {
        "suite": suite.name,
        "problems": fingerprint(asked),
        "seed": recipe.seed,
        "sampling": recipe.sampling.model_dump(mode="json"),
        "budget": both_budgets(recipe.budget),
        "precision": recipe.engine.precision,
        "device": recipe.engine.device,
    }


def _id(problem: Problem, sample: int) -> str:
    return f"{problem.id}#{sample}"


def _answer(
    recipe: EvalRecipe,
    run: ArmRun,
    suite: Suite,
    problems: Sequence[Problem],
    file: AnswerFile,
    reporter: Reporter,
    open_engine: EngineOpener,
) -> None:
    """Generate and grade the answers that `file` lacks. The checkpoint is loaded only if there are any."""
    wanted = {_id(p, s): (p, s) for p in problems for s in range(recipe.samples)}
    missing = [key for key in wanted if key not in file.rows]
    if not missing:
        return
    engine = open_engine(run.ckpt, run.method, run.tau, recipe.engine, **run.coin)
    tokens = slots = right = 0
    failed = ""
    with reporter.progress(f"eval {run.label}", len(wanted), "answer") as bar:
        bar.update(len(wanted) - len(missing))
        requests = _requests(recipe, run, suite, engine, [wanted[key] for key in missing])
        for number, completion in enumerate(engine.generate(requests), start=1):
            if completion.finish_reason == "error":
                failed = f": {completion.error}"
                continue
            problem, sample = wanted[completion.id]
            ended = completion.finish_reason == "stop"
            correct = ended and suite.grade(problem, completion.text)
            file.append(_row(completion, problem, sample, correct))
            tokens += sum(completion.slot_token_counts)
            slots += completion.slots
            right += correct
            bar.advance(1, right=right / number, tokens_per_slot=tokens / max(1, slots))
    lost = [key for key in missing if key not in file.rows]
    if lost:
        raise PipoError(f"{run.label}: the engine gave no answer to {len(lost)} requests, e.g. {lost[0]}{failed}")


def _requests(
    recipe: EvalRecipe, run: ArmRun, suite: Suite, engine: Engine, pairs: Sequence[tuple[Problem, int]]
) -> Iterator[Request]:
    max_tokens, max_slots = limits(both_budgets(recipe.budget), run.method)
    sampling = recipe.sampling.model_dump()
    tokenizer = load_tokenizer(run.ckpt)
    for problem, sample in pairs:
        yield Request(
            id=_id(problem, sample),
            prompt_ids=tuple(encode_prompt(tokenizer, suite.prompt(problem))),
            sampling=SamplingParams(**sampling, seed=request_seed("eval", recipe.seed, problem.id, sample)),
            max_tokens=max_tokens,
            max_slots=max_slots,
            stop_ids=engine.end_ids,
        )


def _row(completion: Completion, problem: Problem, sample: int, correct: bool) -> dict[str, Any]:
    return {
        "id": completion.id,
        "problem": problem.id,
        "sample": sample,
        "text": completion.text,
        "tokens": len(completion.token_ids),
        "slots": completion.slots,
        "kept": completion.kept,
        "drafts": completion.drafts,
        "finish_reason": completion.finish_reason,
        "slot_token_counts": completion.slot_token_counts,
        "correct": correct,
        "ttft_s": completion.ttft_s,
        "time_s": completion.time_s,
        "answer": problem.answer,
    }


def _results(
    recipe: EvalRecipe,
    runs: Sequence[ArmRun],
    baseline: str | None,
    problems: Sequence[Problem],
    answers: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    budgets = both_budgets(recipe.budget)
    outcomes: dict[tuple[str, str], Outcome] = {
        (label, unit): outcome(rows, problems, recipe.samples, unit, limit)
        for label, rows in answers.items()
        for unit, limit in budgets.items()
    }

    def arm(run: ArmRun) -> dict[str, Any]:
        return {
            "arm": run.name,
            "label": run.label,
            "method": run.method,
            "tau": run.tau,
            **run.coin,
            "ckpt": str(run.ckpt),
            "budgets": {
                unit: figures(
                    outcomes[run.label, unit],
                    problems,
                    None if baseline in (None, run.label) else outcomes[baseline, unit],
                    recipe.seed,
                )
                for unit in budgets
            },
        }

    return {
        "kind": "eval",
        "suite": recipe.suite,
        "problems": len(problems),
        "samples": recipe.samples,
        "seed": recipe.seed,
        "sampling": recipe.sampling.model_dump(mode="json"),
        "budget": budgets,
        "baseline": baseline,
        "arms": [arm(run) for run in runs],
    }
