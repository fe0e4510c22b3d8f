"""Proves before a bench that arms which claim to be lossless are; see `pipo_core.engine.lossless`."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

from pipo_core.bench.arms import OpenArm, OpenEngine, source_of
from pipo_core.bench.prompts import make_prompt
from pipo_core.engine.lossless import PROMPTS, check_lossless, not_checked
from pipo_core.recipes.bench import BenchRecipe
from pipo_core.recipes.common import TorchSettings
from pipo_core.recipes.methods import PLAIN, Decoding
from pipo_core.reporting import Reporter

_LONGEST = 512
"""Tokens of a prompt: enough to tell a lie, and soon read on a CPU."""


def prove_arms(
    recipe: BenchRecipe, arms: Sequence[OpenArm], open_engine: OpenEngine, reporter: Reporter
) -> list[dict[str, Any]]:
    """Return what was found of each arm whose method verifies its drafts.

    An arm that takes a fixed share of its drafts is checked without the share: it runs the same passes.

    Args:
        recipe: names the arms' checkpoints.
        arms: the open arms.
        open_engine: opens regular decoding on an arm's weights.
        reporter: is told of each check.

    Raises:
        PipoError: if an arm is not lossless, or an engine fails.
    """
    found = []
    length = min([_LONGEST, *recipe.prompt_tokens])
    # The entries of a sweep run the same passes, so one of them speaks for all.
    once = {arm.name: arm for arm in reversed(arms) if arm.decoding.spec.verified}
    for arm in reversed(once.values()):
        recipe_arm = next(one for one in recipe.arms if one.name == arm.name)
        settings = recipe.engine_of(recipe_arm)
        if not isinstance(settings, TorchSettings):
            found.append(not_checked(arm.name, "a server answers for it"))
        else:
            reporter.info(f"checks that {arm.label} is lossless")
            prompts = [make_prompt(arm.engine.tokenizer, length, seed) for seed in range(PROMPTS)]
            source, settings = source_of(recipe, recipe_arm), settings.model_copy(update={"batch": PROMPTS})
            with ExitStack() as opened:
                regular = opened.enter_context(closing(open_engine(source, Decoding(PLAIN.name), settings)))
                claimed, label = arm.engine, arm.name
                if arm.decoding.acceptance is not None:
                    verifying = replace(arm.decoding, acceptance=None)
                    claimed = opened.enter_context(closing(open_engine(source, verifying, settings)))
                    label = f"{arm.name}, where it verifies its drafts"
                found.append({**check_lossless(label, claimed, regular, prompts), "label": arm.name})
    return found
