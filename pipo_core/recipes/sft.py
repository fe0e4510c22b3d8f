"""`kind: train`: supervised fine-tuning of the pair model or of the uncompressed one (paper: SFT stage)."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field

from pipo_core.recipes.base import DataRef, Finding, JobRecipe, ModelRef, RecipeModel, Seed

Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ALL_TARGETS: list[Target] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class TrainData(RecipeModel):
    """What is learned from."""

    train: DataRef = Field(
        description='JSON lines of {"messages": [...]}, or a folder that holds train.jsonl.', examples=["x/y"]
    )
    validation: DataRef | None = Field(default=None, description="The same form, held out; null: no validation.")
    max_length: int = Field(
        default=65535, ge=8, description="Longest row in tokens; longer rows are left out (paper: 65,535)."
    )
    limit: int | None = Field(default=None, ge=1, description="Use only the first rows; null: all.")
    cache: str | None = Field(
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


class Tuning(RecipeModel):
    """Which weights move; compressor, confidence head, mtp.fc and MTP norms always train in full."""

    method: Literal["lora", "full"] = Field(default="lora", description="Low-rank adapters or all weights.")
    rank: int = Field(default=64, ge=1, description="LoRA r (paper: 64).")
    alpha: int = Field(default=128, ge=1, description="LoRA alpha (paper: 128).")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="LoRA dropout (paper: 0.05).")
    targets: Annotated[list[Target], Field(min_length=1)] = Field(
        default=ALL_TARGETS, description="Layers with adapters, in the backbone and the MTP layer."
    )


class Compressor(RecipeModel):
    """The module that folds two embeddings into one latent (docs/algorithm.md)."""

    type: Literal["mlp", "linear"] = Field(default="mlp", description="Two layers with SiLU, or one matrix.")
    start: Literal["sum", "random"] = Field(default="sum", description="Start as the sum of both, or at random.")


class Loss(RecipeModel):
    """Weights of the three losses (docs/algorithm.md; the paper's are 1)."""

    mtp: float = Field(default=1.0, ge=0, description="lambda_mtp, weight of the second token's cross-entropy.")
    confidence: float = Field(default=1.0, ge=0, description="lambda_conf, weight of the gate's BCE.")
    chunk: int = Field(default=2048, ge=1, description="Positions projected to the vocabulary at once.")


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
    nodes: int = Field(default=1, ge=1, description="Machines that train together.")
    node_rank: int = Field(default=0, ge=0, description="This machine's number, from 0.")
    master: str | None = Field(
        default=None,
        pattern=r"^[^:\s]+:[0-9]{1,5}$",
        description="host:port of node 0; needed from 2 nodes on.",
    )
    deepspeed: Literal["zero2", "zero3"] | None = Field(default=None, description="Share optimizer state over GPUs.")
    threads: int | None = Field(default=None, ge=1, description="CPU threads a process; null: torch's choice.")

    def findings(self) -> Iterator[Finding]:
        """Several nodes must find each other."""
        if self.nodes > 1 and self.master is None:
            yield Finding(("master",), f"{self.nodes} nodes need the host:port of node 0", (("nodes",),))
        if self.node_rank >= self.nodes:
            yield Finding(("node_rank",), f"must be below nodes ({self.nodes})", (("nodes",),))


class TrainRecipe(JobRecipe):
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
    seed: Seed = 0
    data: TrainData = Field(description="What is learned from.", examples=[{"train": "x/y"}])
    pad_augmentation: list[PadPhase] = Field(
        default=[],
        description="Phases in order; the last ends at 1.0. Empty: no PADs in training. pipo only.",
    )
    tuning: Tuning = Tuning()
    compressor: Compressor = Compressor()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    batch: Batch = Batch()
    epochs: float | None = Field(default=None, gt=0, description="Passes over the data; or give max_steps.")
    max_steps: int | None = Field(default=None, ge=1, description="Optimizer steps; or give epochs.")
    precision: Literal["bf16", "fp32"] = Field(default="bf16", description="Number format of the weights in training.")
    gradient_checkpointing: bool = Field(default=False, description="Recompute activations: less memory, more time.")
    save: Save = Save()
    log_every_steps: int = Field(default=10, ge=1, description="Optimizer steps between rows of metrics.jsonl.")
    launch: Launch = Launch()

    def findings(self) -> Iterator[Finding]:
        """One length of training; PADs only for pairs; phases in order up to the end."""
        if self.epochs is not None and self.max_steps is not None:
            yield Finding(("max_steps",), "give epochs or max_steps, not both", (("epochs",),))
        if self.epochs is None and self.max_steps is None:
            yield Finding((), "give epochs or max_steps", (("epochs",), ("max_steps",)))
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
