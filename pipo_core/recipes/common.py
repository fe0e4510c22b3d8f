"""Settings that several recipes share: sampling, budgets, the engine, problems, arms of a comparison."""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from pipo_core.recipes.base import MAX_NAME, Finding, ModelRef, RecipeModel, Seed

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=MAX_NAME)]
Method = Literal["regular", "mtp", "eagle", "pipo"]


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


class EngineSettings(RecipeModel):
    """Where and how answers are generated."""

    batch: int = Field(default=64, ge=1, description="Answers in progress at once (rows of the batch).")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N; auto takes a GPU if there is one.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto is bf16 on a GPU and fp32 on a CPU."
    )
    threads: int | None = Field(default=None, ge=1, description="CPU threads; null leaves torch's choice.")
    drafts: int = Field(default=3, ge=1, le=16, description="Drafts a step of method eagle (paper: 3).")
    prefill_chunk: int = Field(
        default=2048, ge=1, description="Prompt positions (pipo: slots) read at once; running answers step in between."
    )
    max_length: int | None = Field(
        default=None, ge=2, description="Most tokens of prompt and budget together; null: what model and memory allow."
    )
    memory_gib: float | None = Field(
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


class Problems(RecipeModel):
    """Which problems."""

    source: str = Field(
        default="tiny", description='tiny (generated arithmetic), or a jsonl of {"id", "question", "answer"}.'
    )
    split: Literal["train", "heldout"] = Field(
        default="train", description="tiny only: held-out problems can never be in training."
    )
    count: int | None = Field(default=None, ge=1, description="How many; null: all of a file.")
    seed: Seed = 0


def _share_form(value: Any) -> str:
    return "list" if isinstance(value, list) else "number"


Share = Annotated[float, Field(ge=0, le=1)]
ShareOrSweep = Annotated[
    Annotated[Share, Tag("number")]
    | Annotated[list[Share], Field(min_length=1), Tag("list")]
    | Annotated[None, Tag("none")],
    Discriminator(lambda value: "none" if value is None else _share_form(value)),
]


class Arm(RecipeModel):
    """One side of a comparison: a checkpoint and a way of decoding it."""

    name: Name = Field(description="What tables and plots call this arm.", examples=["x"])
    method: Method = Field(
        description="regular: one token a step; mtp: two, unverified; eagle: verified drafts; pipo: up to two.",
        examples=["pipo"],
    )
    ckpt: ModelRef = Field(description="A folder, catalog name, hub id or stage:NAME.", examples=["x/y"])
    tau: ShareOrSweep = Field(
        default=None,
        description="Keep drafts from this confidence on; a list is a sweep; pipo only (null: 0.95).",
    )
    acceptance: ShareOrSweep = Field(
        default=None,
        description="pipo only: keep this share of the drafts, by a coin and not by confidence; a list is a sweep.",
    )

    def findings(self) -> Iterator[Finding]:
        """Only pipo has a gate."""
        if self.tau is not None and self.method != "pipo":
            yield Finding(("tau",), f"method {self.method} has no threshold; remove it", (("method",),))
        if self.acceptance is not None and self.method != "pipo":
            yield Finding(("acceptance",), f"method {self.method} has no acceptance; remove it", (("method",),))
        if self.acceptance is not None and self.tau is not None:
            yield Finding(("acceptance",), "tau and acceptance both say which drafts are kept", (("tau",),))

    def variants(self) -> list[tuple[float | None, float | None]]:
        """Return the thresholds and fixed shares to run: one of the two, or neither where the method has no gate."""
        if self.method != "pipo":
            return [(None, None)]
        if self.acceptance is not None:
            shares = self.acceptance if isinstance(self.acceptance, list) else [self.acceptance]
            return [(None, share) for share in dict.fromkeys(shares)]
        taus = self.tau if isinstance(self.tau, list) else [0.95 if self.tau is None else self.tau]
        return [(tau, None) for tau in dict.fromkeys(taus)]


def arm_label(name: str, tau: float | None, acceptance: float | None) -> str:
    """Return what files, tables and plots call an arm's variant."""
    if acceptance is not None:
        return f"{name}@{100 * acceptance:.12g}%"
    return name if tau is None else f"{name}@{tau:.12g}"


def baseline_findings(baseline: str | None, arms: Sequence[Arm]) -> Iterator[Finding]:
    """Yield a finding if `baseline` is not the name of an arm."""
    names = [arm.name for arm in arms]
    if baseline is not None and baseline not in names:
        others = tuple(("arms", index, "name") for index in range(len(arms)))
        yield Finding(("baseline",), f"no arm is called {baseline!r}; arms: {', '.join(names)}", others)
