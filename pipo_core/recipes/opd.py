"""`kind: distill`: on-policy distillation, from an uncompressed teacher to the pair model (paper: OPD stage)."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from pipo_core.recipes.base import NEUTRAL, Finding, Loc, ModelRef, RecipeModel, rows_ref
from pipo_core.recipes.common import (
    BY_KIND,
    RemoteSettings,
    Sampling,
    SGLangSettings,
    UnreadKeys,
    unread_findings,
)
from pipo_core.recipes.sft import TrainRecipe
from pipo_core.recipes.training import TrainingRecipe


class DistillData(RecipeModel):
    """The questions that the student answers."""

    train: Annotated[str, rows_ref("train.jsonl")] = Field(
        description="JSON lines in one of the forms of data.train in kind: train, or a folder that holds train.jsonl. "
        "The question is everything up to the last user turn; an answer behind it is not used.",
        examples=["x/y"],
    )
    max_prompt: int = Field(
        default=4096, ge=1, description="Longest question in tokens, after the chat layout; longer ones are left out."
    )
    limit: int | None = Field(default=None, ge=1, description="Use only the first questions; null: all.")
    unread: UnreadKeys = Field(default_factory=list)

    def findings(self) -> Iterator[Finding]:
        """Unread keys have no meaning."""
        yield from unread_findings(self.unread)


class TrainingProcess(RecipeModel):
    """The training process itself, with the weights that it trains."""

    kind: Literal["torch"] = Field(
        default="torch", description="The kind of engine: torch answers in the training process."
    )


ServerSettings: TypeAlias = SGLangSettings | RemoteSettings
"""The engines that the student's weights are handed to before each step."""


class Rollouts(RecipeModel):
    """How the student answers before each step, with its current weights."""

    tau: Annotated[
        Annotated[float, Field(ge=0, lt=1), Tag("number")]
        | Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=1), Tag("list")],
        Discriminator(lambda value: "list" if isinstance(value, list) else "number"),
    ] = Field(
        default=0.95,
        description="Drafts whose confidence is at least this are kept; the questions take the thresholds of a list in "
        "turn (one that stands there twice is taken twice as often), and 1 keeps none. Rejected drafts are learned "
        "from, too.",
    )
    sampling: Sampling = Sampling()
    slots: int = Field(
        default=8192,
        ge=1,
        description="Most slots of an answer; a longer answer is cut off there and still learned from.",
    )
    batch: Annotated[int, NEUTRAL] = Field(
        default=16,
        ge=1,
        description="Most answers in progress at once, over all micro-batches of a step; servers have concurrency.",
    )
    engine: Annotated[
        Annotated[TrainingProcess, Tag("torch")]
        | Annotated[SGLangSettings, Tag("sglang")]
        | Annotated[RemoteSettings, Tag("remote")],
        BY_KIND,
    ] = Field(
        default=TrainingProcess(),
        description="What answers: torch in the training process, or SGLang's servers, which get the student's "
        "weights before each step ([sglang.md](sglang.md#distillation)).",
    )

    @property
    def thresholds(self) -> list[float]:
        """Return the thresholds that the questions take in turn."""
        return self.tau if isinstance(self.tau, list) else [self.tau]

    def findings(self) -> Iterator[Finding]:
        """A threshold below 1 is among those of tau: drafts are learned from."""
        if min(self.thresholds) >= 1:
            yield Finding(("tau",), "one threshold must be below 1: at 1 no draft is kept, and none would be learned")


class Divergence(RecipeModel):
    """How student and teacher are compared: reverse KL, in nats, on unfiltered softmaxes."""

    mode: Literal["topk", "topk_renormalised", "sampled", "full"] = Field(
        default="topk",
        description="topk: both models' likeliest tokens, the sampled one, and one bucket for the rest; "
        "topk_renormalised: the same without the bucket (the paper's divergence); sampled: the sampled token alone, "
        "unbiased if no filter or penalty changes the sampling; "
        "full: the whole vocabulary.",
    )
    temperature: float | None = Field(
        default=None, gt=0, le=10, description="Divides both models' logits; null: the rollouts' temperature."
    )
    top_k: int = Field(default=32, ge=1, description="topk modes only: the likeliest tokens of each model.")
    chunk: Annotated[int | None, NEUTRAL] = Field(
        default=None,
        ge=1,
        description="Positions projected to the vocabulary at once; each takes 12 bytes per vocabulary entry; null: "
        "1024, or fewer where less memory is free.",
    )


class DistillLoss(RecipeModel):
    """Weights of the loss terms besides the first token's divergence (the paper's are 1)."""

    mtp: float = Field(default=1.0, ge=0, description="lambda_mtp, weight of the draft's divergence.")
    confidence: float = Field(
        default=1.0,
        ge=0,
        description="lambda_conf, weight of the gate's BCE against the chance that the teacher accepts the draft.",
    )


class DistillRecipe(TrainingRecipe):
    """On-policy distillation with ms-swift."""

    objective: ClassVar[Literal["pipo"]] = "pipo"

    kind: Literal["distill"] = Field(default="distill", description="The kind of recipe.")
    model: ModelRef = Field(description="The student: a fine-tuned and merged pair model.", examples=["x/y"])
    teacher: ModelRef | None = Field(
        default=None,
        description="The teacher: an uncompressed model with the same tokenizer. With teacher_engine it may be null.",
        examples=["x/z"],
    )
    teacher_engine: RemoteSettings | None = Field(
        default=None,
        description="Servers of the teacher, which tell its likeliest tokens ([serving.md](serving.md#a-teacher)); "
        "null: the teacher runs in the training process.",
    )
    teacher_device: Annotated[str, NEUTRAL] = Field(
        default="same",
        pattern=r"^(same|cpu|cuda:[0-9]+)$",
        description="Where the teacher runs: same (as the student), cpu, or cuda:N with N from launch.processes on.",
    )
    offload: Annotated[bool, NEUTRAL] = Field(
        default=False,
        description="Move the teacher to CPU memory between steps, except for its LM head.",
    )
    data: DistillData = Field(description="The questions.", examples=[{"train": "x/y"}])
    rollout: Rollouts = Rollouts()
    kl: Divergence = Divergence()
    loss: DistillLoss = DistillLoss()

    def findings(self) -> Iterator[Finding]:
        """Give epochs or max_steps; rollout temperature is above 0; zero3 is not possible; a GPU is not given twice.

        A server that the training starts answers on one machine only. A teacher is named, or servers of it; of these
        only topk at temperature 1 can be had.
        """
        yield from super().findings()
        yield from self.gate_findings(self.loss.confidence)
        yield from self._teacher_findings()
        if self.rollout.sampling.temperature == 0:
            at: Loc = ("rollout", "sampling", "temperature")
            yield Finding(at, "must be above 0: the student learns from tokens that it samples at this temperature")
        if self.launch.deepspeed == "zero3":
            at = ("launch", "deepspeed")
            yield Finding(at, "zero3 splits the weights, which rollouts need whole; use zero2")
        if self.rollout.engine.kind == "sglang" and self.launch.nodes > 1:
            at = ("rollout", "engine", "kind")
            message = "its server answers this machine only; start servers and give kind: remote with their urls"
            yield Finding(at, message, (("launch", "nodes"),))
        if self.offload and self.teacher_device == "cpu":
            yield Finding(("offload",), "the teacher is on the CPU already", (("teacher_device",),))
        if self.teacher_device.startswith("cuda:"):
            number = int(self.teacher_device.removeprefix("cuda:"))
            if self.launch.processes * self.launch.nodes > 1 and number < self.launch.processes:
                message = f"the first {self.launch.processes} GPUs are the students'"
                yield Finding(("teacher_device",), message, (("launch", "processes"),))
            elif number == 0:
                yield Finding(("teacher_device",), "cuda:0 is the student's: give same")

    def _teacher_findings(self) -> Iterator[Finding]:
        if self.teacher_engine is None:
            if self.teacher is None:
                yield Finding(("teacher",), "missing; give a checkpoint, or teacher_engine with servers of one")
            return
        others: tuple[Loc, ...] = (("teacher_engine",),)
        if self.kl.mode != "topk":
            message = (
                f"servers of a teacher tell its likeliest tokens, which {self.kl.mode} does not compare; give topk"
            )
            yield Finding(("kl", "mode"), message, others)
        at: Loc = ("rollout", "sampling", "temperature") if self.kl.temperature is None else ("kl", "temperature")
        if self.divergence_temperature != 1:
            yield Finding(at, "servers tell log-probabilities at temperature 1; give kl.temperature: 1", others)
        if self.teacher_device != "same":
            yield Finding(("teacher_device",), "the teacher runs on servers; remove it", others)
        if self.offload:
            yield Finding(("offload",), "the teacher runs on servers; remove it", others)

    @property
    def divergence_temperature(self) -> float:
        """Return what divides both models' logits where they are compared."""
        return self.kl.temperature or self.rollout.sampling.temperature


AnyTraining: TypeAlias = TrainRecipe | DistillRecipe
"""The recipes that training processes run."""
