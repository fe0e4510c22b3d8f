"""Settings that several recipes share: sampling, budgets, the engine, problems."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, Tag

from pipo_core.messages import MESSAGE_KEYS, THOUGHT_KEYS
from pipo_core.recipes.base import MAX_NAME, NEUTRAL, Finding, RecipeModel, repeated

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=MAX_NAME)]


UnreadKeys = Annotated[
    list[str],
    NEUTRAL,
    Field(description="Keys of rows and messages that are left unread, such as id; other unknown keys are errors."),
]


def unread_findings(unread: list[str]) -> Iterator[Finding]:
    """Yield an error for each key of `unread` that is read."""
    for key in unread:
        if key in ("messages", "system", *MESSAGE_KEYS, *THOUGHT_KEYS):
            yield Finding(("unread",), f"{key} has a meaning and is read; remove it from this list")


class Sampling(RecipeModel):
    """How tokens are sampled; the defaults are the paper's (docs/algorithm.md)."""

    temperature: float = Field(default=1.0, ge=0, le=10, description="Softmax temperature; 0 is greedy.")
    top_p: float = Field(default=0.95, gt=0, le=1, description="Nucleus: smallest set with this mass; 1 is off.")
    top_k: int = Field(default=20, ge=0, description="Keep the k likeliest tokens; 0 is off.")
    presence_penalty: float = Field(
        default=1.5, ge=-2, le=2, description="Subtracted once from the logit of each token that is in the output."
    )
    frequency_penalty: float = Field(
        default=0.0, ge=-2, le=2, description="Subtracted from a token's logit for each time it is in the output."
    )
    repetition_penalty: float = Field(
        default=1.0,
        gt=0,
        le=10,
        description="Divides positive logits, and multiplies negative ones, of tokens in prompt or output; 1 is off.",
    )


PRESETS: Mapping[str, Sampling] = {"paper": Sampling(), "vendor": Sampling(presence_penalty=0.0)}
"""Named settings of sampling.

- paper: the paper's, which Qwen3.5's card also gives for thinking;
- vendor: what servers take from the weights' generation_config.json, which cannot hold a presence penalty.

The penalty costs kept drafts.
"""

SamplingChoice: TypeAlias = Annotated[
    Annotated[Literal["paper", "vendor"], Tag("preset")] | Annotated[Sampling, Tag("settings")],
    Discriminator(lambda value: "preset" if isinstance(value, str) else "settings"),
]
"""Settings of sampling, or the name of a preset."""


def sampling_of(choice: "Sampling | str") -> Sampling:
    """Return the settings that a choice stands for."""
    return PRESETS[choice] if isinstance(choice, str) else choice


class Budget(RecipeModel):
    """How long an answer may become; the first limit that is reached ends it."""

    tokens: int | None = Field(default=None, ge=1, description="Most tokens of an answer, PAD not counted.")
    slots: int | None = Field(
        default=None, ge=1, description="Most slots (decode steps) of an answer (the paper compares at 32K slots)."
    )

    def findings(self) -> Iterator[Finding]:
        """Give tokens, slots or both."""
        if self.tokens is None and self.slots is None:
            yield Finding(("tokens",), "give tokens, slots or both", (("slots",),))


class TorchSettings(RecipeModel):
    """The engine in this process, on PyTorch."""

    kind: Literal["torch"] = Field(default="torch", description="The kind of engine: torch runs in this process.")
    batch: Annotated[int, NEUTRAL] = Field(default=64, ge=1, description="Most sequences that run at once.")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N; auto takes a GPU if there is one.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="Number format of the weights; auto is bf16 on a GPU and fp32 on a CPU."
    )
    threads: Annotated[int | None, NEUTRAL] = Field(
        default=None, ge=1, description="CPU threads; null leaves torch's choice."
    )
    prefill_chunk: Annotated[int, NEUTRAL] = Field(
        default=2048,
        ge=1,
        description="Prompt positions (pipo: slots) read in one step; between them the running sequences advance.",
    )
    max_length: Annotated[int | None, NEUTRAL] = Field(
        default=None,
        ge=2,
        description="Most tokens of prompt and budget together; null: the most that model and memory allow.",
    )
    memory_gib: Annotated[float | None, NEUTRAL] = Field(
        default=None, gt=0, description="Memory in GiB besides the weights; null: 90 % of the free memory."
    )
    compile: bool = Field(
        default=False,
        description="Compile the steps: of one sequence on a CPU, of up to 8 on a GPU (as CUDA graphs).",
    )
    quantization: Literal["int8"] | None = Field(
        default=None,
        description="int8: store matrices in 8 bits, by torchao, for one sequence on a CPU with compile "
        "([benchmarks.md](benchmarks.md#int8)); null: as precision says.",
    )

    def findings(self) -> Iterator[Finding]:
        """The device has one of these forms; whether this machine has it is checked when the job starts.

        Quantised weights are a CPU's.
        """
        if self.quantization is not None and self.device.startswith("cuda"):
            message = "int8 is for CPUs; on a GPU serve with --engine sglang -- --quantization fp8"
            yield Finding(("quantization",), message, (("device",),))
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            yield Finding(("device",), f"unknown device {self.device!r}: give auto, cpu, cuda or cuda:N")


class SGLangSettings(RecipeModel):
    """A server of SGLang's that pipo starts for a checkpoint and ends with the job."""

    kind: Literal["sglang"] = Field(
        description="The kind of engine: sglang starts a server of SGLang's.", examples=["sglang"]
    )
    flags: list[str] = Field(
        default=[], description='Further options of SGLang\'s server, a word each: [--tp-size, "2"].'
    )
    concurrency: Annotated[int, NEUTRAL] = Field(default=256, ge=1, description="Requests in flight at once.")
    start_minutes: Annotated[float, NEUTRAL] = Field(
        default=30.0, gt=0, description="The longest that the server may take to start, in minutes."
    )


def _is_address(url: str) -> bool:
    """Return whether a text is the address of a server: http or https, a host, perhaps a port and a path."""
    try:
        parts = urlsplit(url)
        found = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
    return bool(found) and not parts.query and not parts.fragment and "@" not in parts.netloc and " " not in url


class RemoteSettings(RecipeModel):
    """Servers that run already: SGLang's, pipo's, or any with OpenAI's interface."""

    kind: Literal["remote"] = Field(
        description="The kind of engine: remote asks servers that run already.", examples=["remote"]
    )
    urls: Annotated[list[str], Field(min_length=1)] = Field(
        description="Addresses of servers of the same model, such as http://127.0.0.1:8000.",
        examples=[["http://127.0.0.1:8000"]],
    )
    served: str | None = Field(
        default=None, description="The name that the servers give the model; null: the one that they list."
    )
    api_key_env: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable that holds the API key; null: none is sent.",
    )
    concurrency: Annotated[int, NEUTRAL] = Field(
        default=64, ge=1, description="Requests in flight at once, on all servers together."
    )
    timeout_s: Annotated[float, NEUTRAL] = Field(
        default=3600.0, gt=0, description="The longest silence of a server, in seconds."
    )
    patience_s: Annotated[float, NEUTRAL] = Field(
        default=600.0, gt=0, description="How long no server may answer before the job ends, in seconds."
    )

    def findings(self) -> Iterator[Finding]:
        """The addresses are http or https, each is given once."""
        for index, url in enumerate(self.urls):
            if not _is_address(url):
                yield Finding(("urls", index), f"{url!r} is not an address such as http://127.0.0.1:8000")
        yield from repeated(("urls",), self.urls)


def _kind_of(settings: Any) -> Any:
    """Return the kind that settings name; those that name none are the torch engine's."""
    return settings.get("kind", "torch") if isinstance(settings, dict) else getattr(settings, "kind", "torch")


BY_KIND = Discriminator(
    _kind_of, custom_error_type="engine_kind", custom_error_message="kind must be one of torch, sglang, remote"
)
"""Tells the settings of engines apart."""

EngineSettings: TypeAlias = Annotated[
    Annotated[TorchSettings, Tag("torch")]
    | Annotated[SGLangSettings, Tag("sglang")]
    | Annotated[RemoteSettings, Tag("remote")],
    BY_KIND,
]
"""Settings of the engine; ``kind`` tells them apart."""
