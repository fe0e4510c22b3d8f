"""`kind: train`: supervised fine-tuning of the pair model or of the uncompressed one (paper: SFT stage)."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field

from pipo_core.recipes.base import NEUTRAL, Finding, ModelRef, RecipeModel, rows_ref
from pipo_core.recipes.training import TrainingRecipe


class TrainData(RecipeModel):
    """What is learned from."""

    train: Annotated[str, rows_ref("train.jsonl")] = Field(
        description='JSON lines of {"messages": [...]}, or a folder that holds train.jsonl.', examples=["x/y"]
    )
    validation: Annotated[str, rows_ref("validation.jsonl")] | None = Field(
        default=None, description="The same form, held out; null: no validation."
    )
    max_length: int = Field(
        default=65535, ge=8, description="Longest row in tokens; longer rows are left out (paper: 65,535)."
    )
    limit: int | None = Field(default=None, ge=1, description="Use only the first rows; null: all.")
    cache: Annotated[str | None, NEUTRAL] = Field(
        default=None,
        description="Folder of tokenized rows, 5 bytes a token, shared by all runs with the same rows and tokenizer; "
        "null: .cache/rows beside the runs.",
    )


class PadPhase(RecipeModel):
    """One part of the PAD schedule (docs/algorithm.md)."""

    kind: Literal["split", "segment"] = Field(
        description="split: (a,b) becomes (a,PAD),(b,PAD), the paper's; segment: cut left to right, "
        "each a single token with probability rho, as rejected drafts do.",
        examples=["segment"],
    )
    rho_max: float = Field(
        ge=0, le=1, description="rho ~ U(0, rho_max) per sequence and epoch (paper: 0.25).", examples=[0.25]
    )
    all_pads: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of sequences at rho = 1, every slot a single token; segment only.",
    )
    until: float = Field(default=1.0, gt=0, le=1, description="Share of the training at which this phase ends.")

    def findings(self) -> Iterator[Finding]:
        """The paper's split has no sequences at rho = 1."""
        if self.all_pads > 0 and self.kind != "segment":
            yield Finding(("all_pads",), "only kind: segment has sequences of nothing but PADs", (("kind",),))


class Compressor(RecipeModel):
    """The module that folds two embeddings into one latent (docs/algorithm.md)."""

    type: Literal["mlp", "linear"] = Field(default="mlp", description="Two layers with SiLU, or one matrix.")
    start: Literal["sum", "random"] = Field(default="sum", description="Start as the sum of both, or at random.")


class Loss(RecipeModel):
    """Weights of the three losses (docs/algorithm.md; the paper's are 1)."""

    mtp: float = Field(default=1.0, ge=0, description="lambda_mtp, weight of the second token's cross-entropy.")
    confidence: float = Field(default=1.0, ge=0, description="lambda_conf, weight of the gate's BCE.")
    chunk: int = Field(default=2048, ge=1, description="Positions projected to the vocabulary at once.")


class TrainRecipe(TrainingRecipe):
    """Supervised fine-tuning with ms-swift."""

    kind: Literal["train"] = Field(default="train", description="What sort of recipe this is.")
    objective: Literal["pipo", "regular"] = Field(
        default="pipo", description="Train the pair model, or the uncompressed one (the fair baseline)."
    )
    model: ModelRef = Field(description="Starting checkpoint.", examples=["x/y"])
    start: Literal["weights", "random"] = Field(
        default="weights",
        description="weights: the checkpoint's; random: take only its shape and tokenizer, and learn from nothing.",
    )
    data: TrainData = Field(description="What is learned from.", examples=[{"train": "x/y"}])
    pad_augmentation: list[PadPhase] = Field(
        default=[],
        description="Phases in order; the last ends at 1.0. Empty: no PADs in training. pipo only.",
    )
    compressor: Compressor = Compressor()
    loss: Loss = Loss()

    def findings(self) -> Iterator[Finding]:
        """One length of training; PADs only for pairs; phases in order up to the end."""
        yield from super().findings()
        phases = self.pad_augmentation
        if phases and self.objective == "regular":
            yield Finding(("pad_augmentation",), "objective: regular has no pairs to pad; remove it", (("objective",),))
        for index, (before, after) in enumerate(pairwise(phases), start=1):
            if after.until <= before.until:
                before_at = ("pad_augmentation", index - 1, "until")
                at = ("pad_augmentation", index, "until")
                yield Finding(at, f"must be above the phase before it ({before.until:g})", (before_at,))
        if phases and phases[-1].until != 1.0:
            last = ("pad_augmentation", len(phases) - 1, "until")
            yield Finding(last, "the last phase must end at 1.0")
