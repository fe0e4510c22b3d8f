"""Proves before an evaluation that arms which claim to be lossless are; see `pipo_core.engine.lossless`."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from pipo_core.chat import encode_prompt
from pipo_core.data.asking import wanted_answers
from pipo_core.engine import Engines
from pipo_core.engine.lossless import PROMPTS, check_lossless, not_checked
from pipo_core.engine.opening import OpenEngine
from pipo_core.errors import MissingInputError
from pipo_core.evaluate.plan import ArmRun, Plan, SuiteRun, asking_of
from pipo_core.files import read_record, write_record
from pipo_core.recipes.common import TorchSettings
from pipo_core.recipes.evaluate import EvalRecipe
from pipo_core.recipes.methods import PLAIN, Decoding
from pipo_core.reporting import Reporter

PROOFS = "lossless.json"


def prove_runs(
    recipe: EvalRecipe, plan: Plan, out: Path, reporter: Reporter, open_engine: OpenEngine | None = None
) -> None:
    """Write what was found of each arm whose method verifies its drafts into `out/lossless.json`; keep what is there.

    Args:
        recipe: the settings.
        plan: the arms, and the suites whose first questions are asked.
        out: the stage's folder.
        reporter: is told of each check.
        open_engine: opens engines; None for the default, where those of one arm share weights.

    Raises:
        PipoError: if an arm is not lossless, or an engine fails.
    """
    proofs = read_proofs(out)
    for run in plan.runs:
        if run.decoding.spec.verified and run.label not in proofs:
            proofs[run.label] = _proof(recipe, run, plan.suites, reporter, open_engine)
            write_record(out / PROOFS, proofs)


def read_proofs(out: Path) -> dict[str, Any]:
    """Return what was found, by the label of the arm; empty if the file is not there or damaged."""
    try:
        return read_record(out / PROOFS)
    except MissingInputError:
        return {}


def _proof(
    recipe: EvalRecipe, run: ArmRun, suites: Sequence[SuiteRun], reporter: Reporter, open_engine: OpenEngine | None
) -> dict[str, Any]:
    settings = recipe.engine_of(run.arm)
    if not isinstance(settings, TorchSettings) or run.arm.ckpt is None:
        return not_checked(run.label, "a server answers for it")
    reporter.info(f"checks that {run.label} is lossless")
    opened, ckpt = open_engine or Engines().open, Path(run.arm.ckpt)
    with (
        closing(opened(ckpt, run.decoding, settings)) as claimed,
        closing(opened(ckpt, Decoding(PLAIN.name), settings)) as regular,
    ):
        prompts = islice(_prompts(recipe, run, suites, claimed.tokenizer), PROMPTS)
        return check_lossless(run.label, claimed, regular, list(prompts))


def _prompts(
    recipe: EvalRecipe, run: ArmRun, suites: Sequence[SuiteRun], tokenizer: PreTrainedTokenizerBase
) -> Iterator[list[int]]:
    """Yield the prompts of the suites' first questions, of each suite in turn."""
    for number in range(PROMPTS):
        for suite in suites:
            for wanted in wanted_answers(suite.questions.problems[number : number + 1], 1):
                yield encode_prompt(tokenizer, asking_of(recipe, run, suite).request(wanted).messages)
