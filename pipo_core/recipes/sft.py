"""`kind: train`: supervised fine-tuning of the pair model or of the uncompressed one (paper: SFT stage)."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field

from pipo_core.recipes.base import NEUTRAL, Finding, ModelRef, RecipeModel, rows_ref
from pipo_core.recipes.common import UnreadKeys, unread_findings
from pipo_core.recipes.training import TrainingRecipe


class TrainData(RecipeModel):
    """The training set."""

    train: Annotated[str, rows_ref("train.jsonl")] = Field(
        description="Examples: JSON lines of {\"messages\": [...]}, or in ShareGPT's or ms-swift's other forms "
        '({"conversations": [{"from", "value"}]}, {"query", "response"}); or a folder that holds train.jsonl.',
        examples=["x/y"],
    )
    validation: Annotated[str, rows_ref("validation.jsonl")] | None = Field(
        default=None, description="Held-out examples in the same form; null: no validation."
    )
    max_length: int = Field(
        default=65535, ge=8, description="Longest example in tokens; longer ones are left out (paper: 65,535)."
    )
    limit: int | None = Field(default=None, ge=1, description="Use only the first examples; null: all.")
    cache: Annotated[str | None, NEUTRAL] = Field(
        default=None,
        description="Folder of tokenized examples (5 bytes per token), shared by all runs with the same examples and "
        "tokenizer; null: .cache/rows beside the runs.",
    )
    unread: UnreadKeys = Field(default_factory=list)

    def findings(self) -> Iterator[Finding]:
        """Unread keys have no meaning."""
        yield from unread_findings(self.unread)


class PadPhase(RecipeModel):
    """One part of the PAD schedule (docs/algorithm.md)."""

    kind: Literal["split", "segment"] = Field(
        description="split: (a,b) becomes (a,PAD),(b,PAD), the paper's; segment: cut from left to right, each slot a "
        "single token with probability rho, as rejected drafts do.",
        examples=["segment"],
    )
    rho_max: float = Field(
        ge=0, le=1, description="rho ~ U(0, rho_max) per example and epoch (paper: 0.25).", examples=[0.25]
    )
    all_pads: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="segment only: share of examples with rho = 1, every slot a single token.",
    )
    until: float = Field(default=1.0, gt=0, le=1, description="Share of the training at which this phase ends.")

    def findings(self) -> Iterator[Finding]:
        """Only kind segment takes all_pads."""
        if self.all_pads > 0 and self.kind != "segment":
            yield Finding(("all_pads",), "only kind: segment has examples with a PAD in every slot", (("kind",),))


class Compressor(RecipeModel):
    """The module that turns two token embeddings into one latent (docs/algorithm.md)."""

    type: Literal["mlp", "linear"] = Field(default="mlp", description="mlp: two layers with SiLU; linear: one matrix.")
    start: Literal["sum", "random"] = Field(
        default="sum", description="Initial weights: sum adds the two embeddings; random does not."
    )


class Loss(RecipeModel):
    """Weights of the loss terms besides the first token's (docs/algorithm.md; the paper's are 1)."""

    mtp: float = Field(default=1.0, ge=0, description="lambda_mtp, weight of the second token's cross-entropy.")
    confidence: float = Field(default=1.0, ge=0, description="lambda_conf, weight of the gate's BCE.")
    chunk: Annotated[int | None, NEUTRAL] = Field(
        default=None,
        ge=1,
        description="Positions projected to the vocabulary at once; null: 2048, or fewer where less memory is free.",
    )


class TrainRecipe(TrainingRecipe):
    """Supervised fine-tuning with ms-swift."""

    kind: Literal["train"] = Field(default="train", description="The kind of recipe.")
    objective: Literal["pipo", "regular"] = Field(
        default="pipo", description="pipo: train the pair model; regular: the uncompressed one (the fair baseline)."
    )
    model: ModelRef = Field(description="Starting checkpoint.", examples=["x/y"])
    start: Literal["weights", "random"] = Field(
        default="weights",
        description="weights: the checkpoint's; random: new weights in the checkpoint's shape, with its tokenizer.",
    )
    data: TrainData = Field(description="The training set.", examples=[{"train": "x/y"}])
    pad_augmentation: list[PadPhase] = Field(
        default=[],
        description="pipo only: phases in order, the last until 1.0; empty: no PAD in training.",
    )
    prompt_shift: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="pipo only: share of the examples whose prompt is shifted by one place, with a PAD behind one of "
        "its tokens, so that prompts of even and odd length are learned equally (paper: 0).",
    )
    compressor: Compressor = Compressor()
    loss: Loss = Loss()

    def findings(self) -> Iterator[Finding]:
        """Give epochs or max_steps; what concerns pairs needs objective pipo; until rises to 1.0."""
        yield from super().findings()
        yield from self.gate_findings(self.loss.confidence)
        phases = self.pad_augmentation
        if phases and self.objective == "regular":
            yield Finding(("pad_augmentation",), "objective: regular has no slots to pad; remove it", (("objective",),))
        if self.tuning.method == "gate" and self.objective == "regular":
            yield Finding(("tuning", "method"), "objective: regular has no gate; give lora or full", (("objective",),))
        if self.draft_vocab is not None and self.objective == "regular":
            yield Finding(("draft_vocab",), "objective: regular has no gate to teach; remove it", (("objective",),))
        if self.prompt_shift and self.objective == "regular":
            yield Finding(("prompt_shift",), "objective: regular has no pairs to shift; remove it", (("objective",),))
        for index, (before, after) in enumerate(pairwise(phases), start=1):
            if after.until <= before.until:
                before_at = ("pad_augmentation", index - 1, "until")
                at = ("pad_augmentation", index, "until")
                yield Finding(at, f"must be above the until of the phase before it ({before.until:g})", (before_at,))
        if phases and phases[-1].until != 1.0:
            last = ("pad_augmentation", len(phases) - 1, "until")
            yield Finding(last, "the last phase must end at 1.0")
