"""Short names for models, data and benchmarks. The only place that knows where they are published."""

from dataclasses import dataclass
from typing import Literal

from pipo_core.errors import MissingInputError
from pipo_core.recipes.suggest import did_you_mean


@dataclass(frozen=True)
class Entry:
    """What a short name stands for.

    `repo` is the hub's repository (empty when `bundled`), `path` a file or folder in it (empty: all of it),
    `revision` a commit or branch (None: the newest).
    """

    kind: Literal["model", "data", "benchmark"]
    repo: str
    revision: str | None
    bundled: bool
    note: str
    path: str = ""


CATALOG: dict[str, Entry] = {
    "tiny-student": Entry("model", "", None, True, "bundled Qwen3.5-shaped model of the tiny world"),
    "tiny-teacher": Entry("model", "", None, True, "its more accurate teacher, bundled"),
    "qwen3.5-0.8b": Entry("model", "Qwen/Qwen3.5-0.8B", None, False, "base, tied embeddings"),
    "qwen3.5-2b": Entry("model", "Qwen/Qwen3.5-2B", None, False, "base, tied embeddings"),
    "qwen3.5-4b": Entry("model", "Qwen/Qwen3.5-4B", None, False, "base of the paper's main table"),
    "qwen3.5-9b": Entry("model", "Qwen/Qwen3.5-9B", None, False, "base and the paper's teacher"),
    "pipo-adapters": Entry("model", "AlbertTan/PIPO", None, False, "the authors' adapters", "outputs"),
    "pipo-sft-data": Entry(
        "data", "AlbertTan/PIPO", None, False, "the authors' teacher answers for SFT", "data/sft_all.jsonl"
    ),
    "pipo-opd-data": Entry(
        "data",
        "AlbertTan/PIPO",
        None,
        False,
        "questions solved in half the answers, for OPD",
        "data/rl_0.5.jsonl",
    ),
    "aime25": Entry("benchmark", "math-ai/aime25", None, False, "AIME 2025, 30 questions"),
}


def entry(name: str) -> Entry:
    """Return the catalog's entry. Raises MissingInputError, with the nearest names, when there is none."""
    if name not in CATALOG:
        raise MissingInputError(
            f"{name!r} is not in the catalog{did_you_mean(name, CATALOG)}", hint="pipo download --list"
        )
    return CATALOG[name]
