"""What every training has: which weights move, how, in what batches, on which processes."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from pipo_core.recipes.base import NEUTRAL, Finding, JobRecipe, RecipeModel, Seed

Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ALL_TARGETS: list[Target] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Tuning(RecipeModel):
    """Which weights move; compressor, confidence head, mtp.fc and MTP norms always train in full."""

    method: Literal["lora", "full"] = Field(default="lora", description="Low-rank adapters or all weights.")
    rank: int = Field(default=64, ge=1, description="LoRA r (paper: 64).")
    alpha: int = Field(default=128, ge=1, description="LoRA alpha (paper: 128).")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="LoRA dropout (paper: 0.05).")
    targets: Annotated[list[Target], Field(min_length=1)] = Field(
        default=ALL_TARGETS, description="Layers with adapters, in the backbone and the MTP layer."
    )


class Optimizer(RecipeModel):
    """AdamW and its schedule."""

    learning_rate: float = Field(default=1e-4, gt=0, lt=1, description="Peak rate (paper: 1e-4 LoRA, 1e-5 full).")
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1, description="Share of the steps that warm up (paper: 5 %).")
    schedule: Literal["cosine", "linear", "constant"] = Field(default="cosine", description="Shape after warm-up.")
    weight_decay: float = Field(default=0.1, ge=0, description="AdamW's decay (ms-swift's default).")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradients are clipped to this norm.")
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = Field(
        default=[0.9, 0.95], description="AdamW's two moments (ms-swift's defaults)."
    )


class Batch(RecipeModel):
    """Rows of one optimizer step: per_device x accumulation x processes x nodes.

    Every pass counts the same, on whichever process it runs: each of its losses is the mean over the pass's own
    labelled positions (0 where there is none), and the gradient is the mean over all passes. At per_device: 1, the
    paper's, every row weighs the same, and processes can be traded for accumulation without changing a weight.
    """

    per_device: int = Field(default=1, ge=1, description="Rows of one pass on one device.")
    accumulation: int = Field(default=1, ge=1, description="Passes whose mean gradient makes one step.")
    group_by_length: bool = Field(
        default=False,
        description="Put rows of like length into one pass: less padding. Of no use at per_device: 1.",
    )


class Save(RecipeModel):
    """Checkpoints to resume from."""

    every_steps: int = Field(default=500, ge=1, description="Optimizer steps between checkpoints.")
    keep: int = Field(default=2, ge=2, description="Newest checkpoints kept; two, so that one is always whole.")


class Launch(RecipeModel):
    """The processes that train; more than one start under torchrun."""

    processes: int = Field(default=1, ge=1, description="Processes of this node, one a GPU.")
    nodes: int = Field(
        default=1,
        ge=1,
        description="Machines that train together, each with an output folder of its own; going on needs node 0's "
        "checkpoints in all of them.",
    )
    node_rank: Annotated[int, NEUTRAL] = Field(default=0, ge=0, description="This machine's number, from 0.")
    master: Annotated[str | None, NEUTRAL] = Field(
        default=None,
        pattern=r"^[^:\s]+:[0-9]{1,5}$",
        description="host:port of node 0; needed from 2 nodes on.",
    )
    deepspeed: Literal["zero2", "zero3"] | None = Field(default=None, description="Share optimizer state over GPUs.")
    threads: Annotated[int | None, NEUTRAL] = Field(
        default=None, ge=1, description="CPU threads a process; null: torch's choice."
    )

    def findings(self) -> Iterator[Finding]:
        """Several nodes must find each other."""
        if self.nodes > 1 and self.master is None:
            yield Finding(("master",), f"{self.nodes} nodes need the host:port of node 0", (("nodes",),))
        if self.node_rank >= self.nodes:
            yield Finding(("node_rank",), f"must be below nodes ({self.nodes})", (("nodes",),))


class TrainingRecipe(JobRecipe):
    """The part that fine-tuning and distillation share."""

    kind: Any = Field(description="What sort of recipe this is.")
    seed: Seed = 0
    tuning: Tuning = Tuning()
    optimizer: Optimizer = Optimizer()
    batch: Batch = Batch()
    epochs: float | None = Field(default=None, gt=0, description="Passes over the data; or give max_steps.")
    max_steps: int | None = Field(default=None, ge=1, description="Optimizer steps; or give epochs.")
    precision: Literal["bf16", "fp32"] = Field(default="bf16", description="Number format of the weights in training.")
    gradient_checkpointing: bool = Field(default=False, description="Recompute activations: less memory, more time.")
    save: Annotated[Save, NEUTRAL] = Save()
    log_every_steps: Annotated[int, NEUTRAL] = Field(
        default=10, ge=1, description="Optimizer steps between rows of metrics.jsonl."
    )
    launch: Launch = Launch()

    def findings(self) -> Iterator[Finding]:
        """One length of training."""
        if self.epochs is not None and self.max_steps is not None:
            yield Finding(("max_steps",), "give epochs or max_steps, not both", (("epochs",),))
        if self.epochs is None and self.max_steps is None:
            yield Finding((), "give epochs or max_steps", (("epochs",), ("max_steps",)))
