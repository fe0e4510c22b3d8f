"""Settings that several recipes share: sampling, budgets, the engine, problems."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from pipo_core.recipes.base import MAX_NAME, NEUTRAL, Finding, RecipeModel, Seed, rows_ref

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=MAX_NAME)]


class Sampling(RecipeModel):
    """How tokens are drawn; the defaults are the paper's (docs/algorithm.md)."""

    temperature: float = Field(default=1.0, ge=0, le=10, description="Softmax temperature; 0 is greedy.")
    top_p: float = Field(default=0.95, gt=0, le=1, description="Nucleus: smallest set with this mass; 1 is off.")
    top_k: int = Field(default=20, ge=0, description="Keep the k likeliest tokens; 0 is off.")
    presence_penalty: float = Field(
        default=1.5, ge=-2, le=2, description="Taken once from the logit of each token already in the output."
    )
    frequency_penalty: float = Field(
        default=0.0, ge=-2, le=2, description="Taken from a token's logit for each time it is in the output."
    )
    repetition_penalty: float = Field(
        default=1.0,
        gt=0,
        le=10,
        description="Divides positive logits of tokens in prompt or output; 1 is off.",
    )


class Budget(RecipeModel):
    """How long an answer may become; with both limits, the first one reached ends it."""

    tokens: int | None = Field(default=None, ge=1, description="Most tokens of an answer, PADs not counted.")
    slots: int | None = Field(
        default=None, ge=1, description="Most decode steps of an answer (the paper compares at 32K slots)."
    )

    def findings(self) -> Iterator[Finding]:
        """At least one limit is needed."""
        if self.tokens is None and self.slots is None:
            yield Finding(("tokens",), "give tokens, slots or both", (("slots",),))


class TorchSettings(RecipeModel):
    """The engine in this process, on PyTorch."""

    kind: Literal["torch"] = Field(default="torch", description="What runs the model: torch, in this process.")
    batch: Annotated[int, NEUTRAL] = Field(default=64, ge=1, description="Answers in progress at once.")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N; auto takes a GPU if there is one.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto is bf16 on a GPU and fp32 on a CPU."
    )
    threads: Annotated[int | None, NEUTRAL] = Field(
        default=None, ge=1, description="CPU threads; null leaves torch's choice."
    )
    drafts: int = Field(default=3, ge=1, le=16, description="Drafts a step of method eagle (paper: 3).")
    prefill_chunk: Annotated[int, NEUTRAL] = Field(
        default=2048, ge=1, description="Prompt positions (pipo: slots) read at once; running answers step in between."
    )
    max_length: Annotated[int | None, NEUTRAL] = Field(
        default=None, ge=2, description="Most tokens of prompt and budget together; null: what model and memory allow."
    )
    memory_gib: Annotated[float | None, NEUTRAL] = Field(
        default=None, gt=0, description="Memory beside the weights (GiB); null: nine tenths of what is free."
    )
    compile: bool = Field(
        default=False,
        description="Compile the steps of one answer on a CPU, of up to 8 on a GPU (recorded as CUDA graphs there).",
    )
    draft_vocab: int | None = Field(
        default=None,
        ge=1,
        description="pipo: drafts come from this many of the training set's most frequent tokens; null: from all. "
        "Where another should follow, a wrong draft is kept, so it must be nearly all.",
    )

    def findings(self) -> Iterator[Finding]:
        """Devices of other kinds are unknown; whether there is one of this kind, only the machine knows."""
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            yield Finding(("device",), f"unknown device {self.device!r}: give auto, cpu, cuda or cuda:N")


EngineSettings: TypeAlias = TorchSettings
"""Where and how answers are generated; another kind of engine joins it as a union that ``kind`` tells apart."""


class Problems(RecipeModel):
    """Which problems."""

    source: Annotated[str, rows_ref("problems.jsonl", generated=frozenset({"tiny"}))] = Field(
        default="tiny", description='tiny (generated arithmetic), or a jsonl of {"id", "question", "answer"}.'
    )
    split: Literal["train", "heldout"] = Field(
        default="train", description="tiny only: held-out problems can never be in training."
    )
    count: int | None = Field(default=None, ge=1, description="How many; null: all of a file.")
    seed: Seed = 0
