"""What a bench compares, opened: arms of one checkpoint share its weights, and random weights are drawn once."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.chat import load_tokenizer
from pipo_core.engine import Engine
from pipo_core.engine.open import engine_on, frequent_tokens, prepare
from pipo_core.errors import UsageError
from pipo_core.model import Qwen3_5ForCausalPIPO, load_checkpoint
from pipo_core.model.shapes import SHAPES, random_shape_model
from pipo_core.recipes.bench import BenchArm, BenchRecipe
from pipo_core.recipes.common import EngineSettings, arm_label
from pipo_core.recipes.locate import bundled_model

Opener = Callable[[BenchArm, float | None, float | None, EngineSettings], "Opened"]
"""From an arm, its threshold or fixed share of kept drafts, and settings to what runs it."""


@dataclass(frozen=True)
class Opened:
    """An arm's engine, its tokenizer, the shape of its model (None where nothing is known of it), bytes a weight."""

    engine: Engine
    tokenizer: PreTrainedTokenizerBase
    config: Qwen3_5TextConfig | None = None
    weight_bytes: int = 2


@dataclass(frozen=True)
class Runner:
    """One row of the comparison."""

    name: str
    method: str
    tau: float | None
    acceptance: float | None
    draft_vocab: int | None
    opened: Opened

    @property
    def label(self) -> str:
        """The row's name in tables and plots."""
        return arm_label(self.name, self.tau, self.acceptance)


class Models:
    """Opens arms on models that are loaded once."""

    def __init__(self, recipe: BenchRecipe) -> None:
        self._shape = recipe.random_weights
        self._loaded: dict[Path | None, Qwen3_5ForCausalPIPO] = {}

    def open(self, arm: BenchArm, tau: float | None, acceptance: float | None, settings: EngineSettings) -> Opened:
        """Return what runs an arm.

        Raises:
            UsageError: for an unknown shape.
            CheckpointError: if the folder is not a readable checkpoint, or has no draft vocabulary where one is asked.
            MachineError: if the device is not there, or the batch does not fit its memory.
        """
        device, dtype = prepare(settings)
        ckpt = None if arm.ckpt is None else Path(arm.ckpt)
        if ckpt not in self._loaded:
            if ckpt is not None:
                self._loaded[ckpt] = load_checkpoint(ckpt, dtype=dtype, device=device)
            elif self._shape is not None:
                self._loaded[ckpt] = random_shape_model(self._shape, dtype=dtype, device=device)
            else:
                raise UsageError(f"arm {arm.name} has no checkpoint")
        model = self._loaded[ckpt]
        if arm.draft_vocab is not None:
            settings = settings.model_copy(update={"draft_vocab": arm.draft_vocab})
        # Of random weights one token is as frequent as another. The tiny world's tokenizer knows few of their ids, and
        # an id that it does not know has no text.
        tokenizer = load_tokenizer(ckpt or bundled_model("tiny-student"))
        asked = settings.draft_vocab is not None and arm.method == "pipo"
        frequent: Iterable[int] = range(model.config.vocab_size) if ckpt is None else ()
        if asked and ckpt is not None and settings.draft_vocab is not None:
            frequent = frequent_tokens(ckpt, settings.draft_vocab)
        engine = engine_on(model, tokenizer, arm.method, tau, settings, by_frequency=frequent, acceptance=acceptance)
        return Opened(engine, tokenizer, model.config, dtype.itemsize)


def open_arms(recipe: BenchRecipe, settings: EngineSettings, opener: Opener | None = None) -> list[Runner]:
    """Return the rows of a bench, in the recipe's order.

    Raises:
        UsageError: if the recipe names a shape that is not known.
    """
    if recipe.random_weights is not None and recipe.random_weights not in SHAPES:
        raise UsageError(f"no shape is called {recipe.random_weights!r}", hint=f"one of {', '.join(SHAPES)}")
    opener = opener or Models(recipe).open
    return [
        Runner(arm.name, arm.method, tau, share, arm.draft_vocab, opener(arm, tau, share, settings))
        for arm in recipe.arms
        for tau, share in arm.variants()
    ]
