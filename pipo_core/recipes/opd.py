"""`kind: distill`: on-policy distillation, from an uncompressed teacher to the pair model (paper: OPD stage)."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from pipo_core.recipes.base import NEUTRAL, Finding, Loc, ModelRef, RecipeModel, rows_ref
from pipo_core.recipes.common import Sampling
from pipo_core.recipes.sft import TrainRecipe
from pipo_core.recipes.training import TrainingRecipe


class DistillData(RecipeModel):
    """The questions that the student answers."""

    train: Annotated[str, rows_ref("train.jsonl")] = Field(
        description='JSON lines of {"messages": [...]}, or a folder that holds train.jsonl. What stands up to the last '
        "user turn is the question; an answer behind it is not used.",
        examples=["x/y"],
    )
    max_prompt: int = Field(
        default=4096, ge=1, description="Longest question in tokens, as laid out; longer ones are left out."
    )
    limit: int | None = Field(default=None, ge=1, description="Use only the first rows; null: all.")


class Rollouts(RecipeModel):
    """How the student answers before each step, with the weights that it has then."""

    tau: float = Field(
        default=0.95,
        ge=0,
        lt=1,
        description="Drafts from this confidence on are kept. Rejected ones are drawn too, and learned from.",
    )
    sampling: Sampling = Sampling()
    slots: int = Field(
        default=8192,
        ge=1,
        description="Most slots of an answer; one that reaches them is learned from so far.",
    )
    batch: Annotated[int, NEUTRAL] = Field(
        default=16, ge=1, description="Answers in progress at once; all passes of a step are answered together."
    )


class Divergence(RecipeModel):
    """How student and teacher are compared: reverse KL, in nats, on unfiltered softmaxes."""

    mode: Literal["topk", "topk_renormalised", "sampled", "full"] = Field(
        default="topk",
        description="topk: both models' likeliest tokens, the drawn one, and one bucket for the rest; "
        "topk_renormalised: the same without the bucket (the paper's); sampled: the drawn token alone, unbiased "
        "where nothing filters or penalises draws; "
        "full: the whole vocabulary.",
    )
    temperature: float | None = Field(
        default=None, gt=0, le=10, description="Divides both models' logits; null: the rollouts' temperature."
    )
    top_k: int = Field(default=32, ge=1, description="Likeliest tokens of each model; the topk modes only.")
    chunk: int = Field(
        default=1024, ge=1, description="Positions projected to the vocabulary at once: 12 bytes a position and token."
    )


class DistillLoss(RecipeModel):
    """Weights of the loss terms beside the first token's divergence (the paper's are 1)."""

    mtp: float = Field(default=1.0, ge=0, description="lambda_mtp, weight of the draft's divergence.")
    confidence: float = Field(
        default=1.0,
        ge=0,
        description="lambda_conf, weight of the gate's BCE against the chance that the teacher accepts the draft.",
    )


class DistillRecipe(TrainingRecipe):
    """On-policy distillation with ms-swift."""

    objective: ClassVar[Literal["pipo"]] = "pipo"

    kind: Literal["distill"] = Field(default="distill", description="What sort of recipe this is.")
    model: ModelRef = Field(description="The student: a pair model that was fine-tuned, merged.", examples=["x/y"])
    teacher: ModelRef = Field(
        description="The teacher: a base model of the same tokenizer, read uncompressed.", examples=["x/z"]
    )
    teacher_device: Annotated[str, NEUTRAL] = Field(
        default="same",
        pattern=r"^(same|cpu|cuda:[0-9]+)$",
        description="Where the teacher runs: same (as the student), cpu, or cuda:N with N from launch.processes on.",
    )
    offload: Annotated[bool, NEUTRAL] = Field(
        default=False,
        description="Keep the teacher in the CPU's memory between steps; its LM head stays.",
    )
    data: DistillData = Field(description="The questions.", examples=[{"train": "x/y"}])
    rollout: Rollouts = Rollouts()
    kl: Divergence = Divergence()
    loss: DistillLoss = DistillLoss()

    def findings(self) -> Iterator[Finding]:
        """Settings that cannot go together."""
        yield from super().findings()
        if self.rollout.sampling.temperature == 0:
            at: Loc = ("rollout", "sampling", "temperature")
            yield Finding(at, "must be above 0: the student learns from what it draws, at this temperature")
        if self.launch.deepspeed == "zero3":
            at = ("launch", "deepspeed")
            yield Finding(at, "zero3 splits the weights, which rollouts need whole; use zero2")
        if self.offload and self.teacher_device == "cpu":
            yield Finding(("offload",), "the teacher is on the CPU already", (("teacher_device",),))
        if self.teacher_device.startswith("cuda:"):
            number = int(self.teacher_device.removeprefix("cuda:"))
            if self.launch.processes * self.launch.nodes > 1 and number < self.launch.processes:
                message = f"the first {self.launch.processes} GPUs are the students'"
                yield Finding(("teacher_device",), message, (("launch", "processes"),))
            elif number == 0:
                yield Finding(("teacher_device",), "cuda:0 is the student's: say same")


AnyTraining: TypeAlias = TrainRecipe | DistillRecipe
"""What the training processes run."""
