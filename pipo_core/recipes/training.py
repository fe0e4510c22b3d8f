"""Settings of every training: trained weights, optimizer, batches, checkpoints, processes."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from pipo_core.recipes.base import NEUTRAL, Finding, JobRecipe, RecipeModel, Seed, repeated

Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ALL_TARGETS: list[Target] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Tuning(RecipeModel):
    """Which weights are trained; compressor, confidence head, mtp.fc and MTP norms are in full, except by gate."""

    method: Literal["lora", "full", "gate"] = Field(
        default="lora",
        description="lora: low-rank adapters; full: all weights; gate: the confidence head alone, of a pair model "
        "that stays as it is.",
    )
    rank: int = Field(default=64, ge=1, description="LoRA r (paper: 64).")
    alpha: int = Field(default=128, ge=1, description="LoRA alpha (paper: 128).")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="LoRA dropout (paper: 0.05).")
    targets: Annotated[list[Target], Field(min_length=1)] = Field(
        default=ALL_TARGETS, description="Layers with adapters, in the backbone and the MTP layer."
    )

    def findings(self) -> Iterator[Finding]:
        """Each layer is named once."""
        yield from repeated(("targets",), self.targets, "named")

    @property
    def leaves_model(self) -> bool:
        """Return whether the training leaves a whole model; else it leaves an adapter."""
        return self.method != "lora"


class Optimizer(RecipeModel):
    """AdamW and its schedule."""

    learning_rate: float = Field(
        default=1e-4, gt=0, lt=1, description="Peak learning rate (paper: 1e-4 LoRA, 1e-5 full)."
    )
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1, description="Share of the steps with warm-up (paper: 5 %).")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="Course of the learning rate after warm-up."
    )
    weight_decay: float = Field(default=0.1, ge=0, description="AdamW's weight decay (ms-swift's default).")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradients are clipped to this norm.")
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = Field(
        default=[0.9, 0.95], description="AdamW's decay rates of the two moments (ms-swift's defaults)."
    )


class Batch(RecipeModel):
    """Examples of one optimizer step: per_device x accumulation x processes x nodes.

    Every micro-batch has the same weight, whichever process it runs on: each of its losses is the mean over its own
    labelled positions (0 if there is none), and the gradient is the mean over all micro-batches. At per_device: 1, the
    paper's, every example has the same weight, and processes can be traded for accumulation without changing a weight.
    """

    per_device: int = Field(default=1, ge=1, description="Examples of one micro-batch on one device.")
    accumulation: int = Field(
        default=1, ge=1, description="Micro-batches of a step on one device; gradients are averaged."
    )
    group_by_length: bool = Field(
        default=False,
        description="Put examples of similar length into one micro-batch, and side by side on the devices: less "
        "padding, and less waiting for the longest.",
    )


class Save(RecipeModel):
    """Checkpoints to resume from."""

    every_steps: int = Field(default=500, ge=1, description="Optimizer steps between checkpoints.")
    keep: int = Field(default=2, ge=2, description="Newest checkpoints to keep; at least 2, so one is always complete.")


class Launch(RecipeModel):
    """The processes that train; more than one start under torchrun."""

    processes: int = Field(default=1, ge=1, description="Processes of this node, one per GPU.")
    nodes: int = Field(
        default=1,
        ge=1,
        description="Machines that train together, each with its own output folder; to resume, all of them need node "
        "0's checkpoints.",
    )
    node_rank: Annotated[int, NEUTRAL] = Field(default=0, ge=0, description="This machine's number, from 0.")
    master: Annotated[str | None, NEUTRAL] = Field(
        default=None,
        pattern=r"^[^:\s]+:[0-9]{1,5}$",
        description="host:port of node 0; required for 2 nodes or more.",
    )
    deepspeed: Literal["zero2", "zero3"] | None = Field(
        default=None, description="Split over the GPUs: zero2 optimizer state and gradients, zero3 weights, too."
    )
    threads: Annotated[int | None, NEUTRAL] = Field(
        default=None, ge=1, description="CPU threads per process; null: torch's choice."
    )

    def findings(self) -> Iterator[Finding]:
        """Several nodes need a master; node_rank is below nodes."""
        if self.nodes > 1 and self.master is None:
            yield Finding(("master",), f"{self.nodes} nodes need the host:port of node 0", (("nodes",),))
        if self.node_rank >= self.nodes:
            yield Finding(("node_rank",), f"must be below nodes ({self.nodes})", (("nodes",),))


class TrainingRecipe(JobRecipe):
    """Fields that fine-tuning and distillation share."""

    kind: Any = Field(description="The kind of recipe.")
    seed: Seed = 0
    draft_vocab: int | None = Field(
        default=None,
        ge=1,
        description="pipo only: the gate learns that drafts come from this many of the most frequent tokens, as an "
        "arm's draft_vocab takes them: where another token should follow, it rejects the draft; null: from all.",
    )
    tuning: Tuning = Tuning()
    optimizer: Optimizer = Optimizer()
    batch: Batch = Batch()
    epochs: float | None = Field(default=None, gt=0, description="Epochs over the data; or give max_steps.")
    max_steps: int | None = Field(default=None, ge=1, description="Optimizer steps; or give epochs.")
    precision: Literal["bf16", "fp32"] = Field(default="bf16", description="Number format of the weights in training.")
    gradient_checkpointing: bool = Field(
        default=False, description="Recompute activations in the backward pass: less memory, more time."
    )
    save: Annotated[Save, NEUTRAL] = Save()
    log_every_steps: Annotated[int, NEUTRAL] = Field(
        default=10, ge=1, description="Optimizer steps between rows of metrics.jsonl."
    )
    launch: Launch = Launch()

    def gate_findings(self, confidence: float) -> Iterator[Finding]:
        """Yield what asks the gate to learn where its loss, of weight ``confidence``, is left out."""
        if confidence > 0:
            return
        asked = {("tuning", "method"): self.tuning.method == "gate", ("draft_vocab",): self.draft_vocab is not None}
        for key in (key for key, asks in asked.items() if asks):
            yield Finding(key, "the gate learns nothing from a loss of weight 0", (("loss", "confidence"),))

    def findings(self) -> Iterator[Finding]:
        """Give either epochs or max_steps."""
        if self.epochs is not None and self.max_steps is not None:
            yield Finding(("max_steps",), "give epochs or max_steps, not both", (("epochs",),))
        if self.epochs is None and self.max_steps is None:
            yield Finding((), "give epochs or max_steps", (("epochs",), ("max_steps",)))
