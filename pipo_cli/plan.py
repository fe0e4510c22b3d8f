"""The plan of a job, for `--dry-run`."""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipo_cli.hints import hint_for
from pipo_core.data.problems import gradable
from pipo_core.errors import MissingInputError, PipoError
from pipo_core.pipeline.inputs import put_inputs
from pipo_core.pipeline.outputs import minor_damage
from pipo_core.pipeline.status import ChangedError, check_stage, stage_folder
from pipo_core.recipes.arms import Arm
from pipo_core.recipes.bench import BenchRecipe
from pipo_core.recipes.calibrate import SHARES, CalibrateRecipe
from pipo_core.recipes.catalog import CATALOG
from pipo_core.recipes.common import EngineSettings, RemoteSettings, TorchSettings
from pipo_core.recipes.evaluate import USUAL_QUESTIONS, EvalRecipe, SuiteJob
from pipo_core.recipes.kinds import JobKind
from pipo_core.recipes.load import load_recipe
from pipo_core.recipes.locate import shipped_recipes
from pipo_core.recipes.opd import AnyTraining, DistillRecipe, TrainingProcess
from pipo_core.recipes.rollout import RolloutRecipe
from pipo_core.recipes.sft import TrainRecipe
from pipo_core.recipes.suite import GeneratedSource, SuiteFile
from pipo_core.recipes.suites import find_suites
from pipo_core.train.plan import longest_row

if TYPE_CHECKING:
    from pipo_core.sizing.memory import MemoryEstimate
    from pipo_core.train.token_cache import ExampleCounts


def job_plan(recipe: JobKind, root: Path, name: str | None = None, *, restart: bool = False) -> dict[str, Any]:
    """Return the plan of a job: what it would do and why, its inputs, its size, its folder, its recipe.

    A missing input is part of the plan: its ``action`` is then ``cannot start``, and its ``exit_code`` that of the
    error that the job would end with.

    Args:
        recipe: the job's recipe.
        root: the folder of all runs.
        name: the recipe as named on the command line, for hints.
        restart: as in `run_stage`.
    """
    plan: dict[str, Any] = {"kind": recipe.kind, "folder": str(stage_folder(recipe, root))}
    paths: dict[str, Path] = {}
    try:
        state = check_stage(recipe, root, restart=restart)
    except MissingInputError as error:
        hint = hint_for(error, name, recipe.kind)
        plan |= {"action": "cannot start", "reasons": [error.message], "next": hint, "inputs": {}}
        plan["exit_code"] = error.exit_code
    else:
        paths = {item.key: item.path for item in state.inputs}
        minor = [str(damage) for damage in minor_damage(state.folder, state.damaged)]
        plan |= {"action": state.action, "reasons": [*state.reasons, *minor]}
        if state.action == "refuse":
            refusal = ChangedError(state.folder, state.reasons, damaged=bool(state.damaged))
            plan |= {"action": "cannot start", "next": refusal.hint, "exit_code": refusal.exit_code}
        plan["inputs"] = {item.key: {"name": item.value, "path": str(item.path)} for item in state.inputs}
    plan["work"] = dict(_work(recipe))
    if isinstance(recipe, RolloutRecipe) and plan["action"] != "cannot start":
        inputs = {key: str(path) for key, path in paths.items()}
        try:
            resolved = RolloutRecipe.model_validate(put_inputs(recipe.model_dump(mode="json"), inputs))
            shard = (resolved.shard.index, resolved.shard.count)
            asked = len(gradable(resolved.problems, resolved.grader, shard))
            plan["work"] |= {"problems": asked, "answers": asked * resolved.samples}
        except PipoError as error:
            _cannot_start(plan, error)
    for check in _checks(recipe, paths):
        try:
            check()
        except PipoError as error:
            _cannot_start(plan, error)
    if isinstance(recipe, TrainRecipe | DistillRecipe):
        _plan_training(plan, recipe, paths)
    plan["recipe"] = recipe.model_dump(mode="json")
    return plan


def _checks(recipe: JobKind, paths: Mapping[str, Path]) -> Iterator[Callable[[], object]]:
    """Yield checks: that a shape is known, and that each engine but the torch engine can be started or reached."""
    if isinstance(recipe, BenchRecipe) and recipe.random_weights is not None:
        from pipo_core.model.shapes import shape_config

        yield partial(shape_config, recipe.random_weights)
    if isinstance(recipe, DistillRecipe) and not isinstance(recipe.rollout.engine, TrainingProcess):
        from pipo_core.engine.student_servers import check_student_servers

        yield partial(check_student_servers, recipe.rollout.engine)
    if isinstance(recipe, DistillRecipe) and recipe.teacher_engine is not None:
        yield _teacher_check(recipe, recipe.teacher_engine, paths.get("model"))
    asked: list[EngineSettings] = []
    if isinstance(recipe, BenchRecipe):
        asked = recipe.servers()
    elif isinstance(recipe, EvalRecipe):
        engines = [recipe.engine_of(arm) for arm in recipe.arms]
        asked = [one for place, one in enumerate(engines) if one not in engines[:place] and one.kind != "torch"]
    elif isinstance(recipe, RolloutRecipe) and not isinstance(recipe.engine, TorchSettings):
        asked = [recipe.engine]
    if asked:
        from pipo_core.engine import check_engine  # imported here: the other plans need no torch

        yield from (partial(check_engine, settings) for settings in asked)


def _teacher_check(recipe: DistillRecipe, settings: RemoteSettings, student: Path | None) -> Callable[[], None]:
    """Return the check of a teacher's servers: against the student's tokens if its checkpoint is there already."""
    from pipo_core.engine import check_engine
    from pipo_core.engine.teacher_servers import check_teacher_servers

    if student is None or not student.is_dir():
        return partial(check_engine, settings)
    return partial(check_teacher_servers, settings, student, top_k=recipe.kl.top_k, longest=longest_row(recipe))


def _work(recipe: JobKind) -> Iterator[tuple[str, int | str]]:
    if isinstance(recipe, RolloutRecipe) and recipe.problems.count is not None:
        yield "answers", recipe.problems.count * recipe.samples
    elif isinstance(recipe, EvalRecipe):
        each = [_answers_of(recipe, named.suite) for named in find_suites(recipe.suite)]
        if None not in each:
            yield "answers", _decodings(recipe.arms) * sum(number or 0 for number in each)
    elif isinstance(recipe, CalibrateRecipe):
        yield from _calibration_work(recipe)
    elif isinstance(recipe, BenchRecipe):
        yield from recipe.trials_by_table().items()
        if recipe.training_tokens:
            yield "training passes", len(recipe.training_tokens) * 4 * (1 + recipe.training_trials)


def _calibration_work(recipe: CalibrateRecipe) -> Iterator[tuple[str, int | str]]:
    settings = len(recipe.pairs()) + len(recipe.uncompressed())
    if recipe.rows is not None:
        yield "answers", f"at most {settings * recipe.rows.count * (recipe.samples or 1):,}"
    else:
        each = [_answers_of(recipe, named.suite) for named in find_suites(recipe.suite or "")]
        if None not in each:
            yield "answers", settings * sum(number or 0 for number in each)
    timed = len(SHARES) * len(recipe.draft_vocab) + len(recipe.uncompressed())
    yield "timed loads", f"{len(recipe.loads.requests)} × {timed} settings × {1 + recipe.loads.trials} rounds"


def _answers_of(recipe: SuiteJob, suite: SuiteFile) -> int | None:
    """Return how many answers an arm writes to a suite; None if the suite does not say how many questions it has."""
    if recipe.problems.ids is not None:
        questions = len(recipe.problems.ids)
    elif isinstance(suite.source, GeneratedSource):
        questions = recipe.problems.count or USUAL_QUESTIONS
    elif suite.rows is None:
        return None
    else:
        questions = min(suite.rows, recipe.problems.count or suite.rows)
    return questions * (recipe.samples or suite.samples)


def _plan_training(plan: dict[str, Any], recipe: AnyTraining, paths: Mapping[str, Path]) -> None:
    """Add a training's command and size to the plan, and the reasons why it cannot start."""
    # Imported here: the other plans need no torch.
    from pipo_core.sizing.gpus import missing_gpus
    from pipo_core.sizing.memory import estimate_of
    from pipo_core.sizing.vocabulary import check_draft_vocab
    from pipo_core.train.plan import plan as plan_training

    inputs = {key: str(path) for key, path in paths.items()}
    resolved = type(recipe).model_validate(put_inputs(recipe.model_dump(mode="json"), inputs))
    try:
        training = plan_training(resolved, Path(plan["folder"]))
        check_draft_vocab(resolved)
    except PipoError as error:
        _cannot_start(plan, error)
        return
    work: dict[str, int | str] = {"command": shlex.join(training["command"]), "rows a step": training["batch_rows"]}
    if training["rows"] is not None:
        work["rows"] = training["rows"]
    tokens, longest = training["tokens"], training["longest_row"]
    if recipe.max_steps is not None:
        work["steps"] = recipe.max_steps
    elif training["steps"] is not None:
        # Too long examples are left out. How many those are is known only once they have been tokenized.
        work["steps"] = f"at most {training['steps']:,}" if tokens is None else training["steps"]
    if tokens is None:
        work["tokens a step"] = f"at most {training['batch_rows'] * longest:,}"
    else:
        work["tokens a step"] = f"about {round(training['batch_rows'] * tokens.tokens / tokens.examples):,}"
        work["tokenized rows"] = f"{_gigabytes(tokens.bytes)} GB in {training['tokenized']}"
    memory = estimate_of(resolved)
    if memory is not None:
        plan["memory"] = {**asdict(memory), "total": memory.total}
    named = resolved.model_copy(update={"data": recipe.data})  # published figures go by the name
    work |= effort_of(named, tokens)
    if training["kernels"] is not None:
        work["linear attention"] = _kernel_line(training["kernels"])
    plan["work"] = work
    if plan["action"] != "skip":
        for lack in (*training["missing"], missing_gpus(resolved)):
            if lack is not None:
                _cannot_start(plan, lack)


def effort_of(recipe: JobKind, tokens: "ExampleCounts | None" = None) -> dict[str, str]:
    """Return what a training takes, in words, by what is known before it starts; empty for other jobs.

    Args:
        recipe: its model and data are names or folders.
        tokens: of the tokenized examples; None takes the published figures of data with a short name.
    """
    if not isinstance(recipe, TrainRecipe | DistillRecipe):
        return {}
    recipe = recipe.model_copy(update={"model": _begins_from(recipe.model)})
    # Imported here: the other plans need no torch.
    from pipo_core.errors import PipoError
    from pipo_core.sizing.effort import PEAK_FLOPS, UTILISATION, distillation_days, training_days, training_disk
    from pipo_core.sizing.memory import config_of, estimate_of

    effort: dict[str, str] = {}
    memory = estimate_of(recipe)
    if memory is not None:
        effort["memory a process"] = _memory_line(memory, longest_row(recipe))
    try:
        config = config_of(recipe.model)
    except PipoError:  # of a shape that is not known yet
        return effort
    known = CATALOG.get(recipe.data.train.partition("@")[0])
    rows, count = (known.rows, known.tokens) if known is not None else (0, 0)
    if tokens is not None:
        rows, count = tokens.examples, tokens.tokens
    limit = recipe.data.limit
    if limit is not None and limit < rows:
        rows, count = limit, count * limit // rows
    days, bound = 0.0, "about"
    if isinstance(recipe, TrainRecipe) and count:
        days = training_days(recipe, config, count, rows)
    elif isinstance(recipe, DistillRecipe) and (rows or recipe.max_steps):
        is_here = recipe.teacher is not None and recipe.teacher_engine is None
        teacher = config_of(recipe.teacher) if recipe.teacher is not None and is_here else None
        days = distillation_days(recipe, config, teacher, rows)
        bound = f"if every answer fills its {recipe.rollout.slots:,} slots, about"
    if days:
        gpus = recipe.launch.processes * recipe.launch.nodes
        effort["time"] = (
            f"{bound} {days:.1f} GPU-days, {24 * days / gpus:.0f} h on {gpus} GPU{'s' * (gpus > 1)} of "
            f"{PEAK_FLOPS / 1e12:.0f} TFLOP/s used to {100 * UTILISATION:.0f} %, by its operations"
        )
    disk = training_disk(recipe, config, count if isinstance(recipe, TrainRecipe) else 0)
    effort["disk"] = (
        f"about {_gigabytes(disk.total)} GB (tokenized rows {_gigabytes(disk.examples)}, "
        f"checkpoints {_gigabytes(disk.checkpoints)}, the model {_gigabytes(disk.models)})"
    )
    return effort


def _begins_from(model: str) -> str:
    """Return the model that a shipped recipe starts from, for the path of its merged checkpoint if it is not there."""
    match = re.fullmatch(r"outputs/([^/]+)/merge(/model)?", model)
    if match is None or Path(model).exists():
        return model
    recipes = (load_recipe(path) for path in shipped_recipes().values() if f"run: {match[1]}\n" in path.read_text())
    return next((found.model for found in recipes if isinstance(found, TrainRecipe | DistillRecipe)), model)


def _memory_line(memory: "MemoryEstimate", tokens: int) -> str:
    """Return the estimate as text, without parts below a tenth of a gigabyte."""
    sizes = {name: _gigabytes(size) for name, size in asdict(memory).items() if name != "positions"}
    shown = ", ".join(f"{name} {size}" for name, size in sizes.items() if size != "0.0")
    return f"about {_gigabytes(memory.total)} GB at rows of {tokens:,} tokens ({shown})"


def _kernel_line(kernels: Mapping[str, bool]) -> str:
    """Return the packages that compute the linear-attention layers, and the faster ones that are not installed."""
    present = [name for name, there in kernels.items() if there]
    absent = [name for name, there in kernels.items() if not there]
    line = " and ".join(present) or "plain PyTorch, slowly"
    return (
        f'{line} (not installed: {", ".join(absent)}; in pipo\'s checkout: pip install -e ".[gpu]")' if absent else line
    )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f}"


def _cannot_start(plan: dict[str, Any], error: PipoError) -> None:
    if plan["action"] != "cannot start":
        plan |= {"action": "cannot start", "reasons": [], "exit_code": error.exit_code}
    plan["reasons"] = [*plan["reasons"], error.message]
    plan["next"] = plan.get("next") or error.hint


def _decodings(arms: Sequence[Arm]) -> int:
    return sum(len(arm.decodings()) for arm in arms)
