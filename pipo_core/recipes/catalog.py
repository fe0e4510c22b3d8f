"""The catalog: short names of models and data, and where they are published; benchmarks are files (`suite.py`)."""

import re
from dataclasses import dataclass
from typing import Literal

from pipo_core.errors import MissingInputError
from pipo_core.text import did_you_mean

Kind = Literal["model", "data", "benchmark"]


@dataclass(frozen=True)
class Entry:
    """What a short name stands for.

    Attributes:
        kind: model, data or benchmark.
        repo: the hub's repository; empty if bundled.
        revision: a commit or branch; None for the newest.
        bundled: whether it is part of this package.
        note: a few words for the list of names.
        path: a file or folder in the repository, or of data a pattern of the files in a folder (data/train-*.parquet);
            empty for all of it.
        then: a command that uses it.
        rows: of training data, as published; 0 if that is not known.
        tokens: the same data's tokens.
        licence: as its publisher states it; empty if that is not known here.
        citation: the work to cite; empty if that is not known here.
    """

    kind: Kind
    repo: str
    revision: str | None
    bundled: bool
    note: str
    path: str = ""
    then: str = ""
    rows: int = 0
    tokens: int = 0
    licence: str = ""
    citation: str = ""

    @property
    def folder(self) -> str:
        """Return `path` without a pattern of files: what it is in a copy that holds no other files."""
        return self.path.rpartition("/")[0] if "*" in self.path else self.path


@dataclass(frozen=True)
class Named:
    """What `NAME` or `NAME@REVISION` stands for.

    Attributes:
        text: the name as the user wrote it.
        entry: what it stands for.
        revision: a branch, tag or commit; None for the newest.
    """

    text: str
    entry: Entry
    revision: str | None

    @property
    def download_command(self) -> str:
        """Return the command that downloads it; for a hub id of data it needs `--kind data`."""
        if self.entry.kind == "benchmark":
            return f"pipo download --suite {self.text}"
        told = self.entry.kind != "model" and self.text.partition("@")[0] not in CATALOG
        return f"pipo download {self.text}{' --kind data' if told else ''}"


_BASE = "pipo train recipes/sft.yaml {} --dry-run"
_APACHE = "Apache-2.0"
_PIPO = "Pair-In, Pair-Out: Latent Multi-Token Prediction for Efficient LLMs, arXiv 2605.27255"

CATALOG: dict[str, Entry] = {
    "tiny-student": Entry(
        "model",
        "",
        None,
        True,
        "bundled Qwen3.5-shaped model of the tiny world",
        then="pipo run demo",
        licence=_APACHE,
    ),
    "tiny-teacher": Entry(
        "model", "", None, True, "its more accurate teacher, bundled", then="pipo run demo", licence=_APACHE
    ),
    "qwen3.5-0.8b": Entry(
        "model",
        "Qwen/Qwen3.5-0.8B",
        None,
        False,
        "base, tied embeddings",
        then=_BASE.format("model=qwen3.5-0.8b"),
        licence=_APACHE,
    ),
    "qwen3.5-2b": Entry(
        "model",
        "Qwen/Qwen3.5-2B",
        None,
        False,
        "base, tied embeddings",
        then=_BASE.format("model=qwen3.5-2b"),
        licence=_APACHE,
    ),
    "qwen3.5-4b": Entry(
        "model",
        "Qwen/Qwen3.5-4B",
        None,
        False,
        "base of the paper's main table",
        then=_BASE.format("model=qwen3.5-4b"),
        licence=_APACHE,
    ),
    "qwen3.5-9b": Entry(
        "model",
        "Qwen/Qwen3.5-9B",
        None,
        False,
        "base and the paper's teacher",
        then=_BASE.format("model=qwen3.5-9b"),
        licence=_APACHE,
    ),
    "pipo-adapters": Entry("model", "AlbertTan/PIPO", None, False, "the authors' adapters", "outputs", citation=_PIPO),
    "pipo-sft-data": Entry(
        "data",
        "AlbertTan/PIPO",
        None,
        False,
        "the authors' teacher answers for SFT",
        "data/sft_all.jsonl",
        _BASE.format("data.train=pipo-sft-data"),
        rows=95_969,
        citation=_PIPO,
        tokens=2_390_000_000,
    ),
    "pipo-opd-data": Entry(
        "data",
        "AlbertTan/PIPO",
        None,
        False,
        "questions solved in half the answers, for OPD",
        "data/rl_0.5.jsonl",
        "pipo distill recipes/opd.yaml --dry-run",
        citation=_PIPO,
        rows=3_350,  # at most: a tenth of the paper's 17.4 K and 16.1 K questions
    ),
    "dapo-math": Entry(
        "data",
        "open-r1/DAPO-Math-17k-Processed",
        None,
        False,
        "17.4 K questions of mathematics, without repetitions",
        "all/train-*.parquet",
        "pipo rollout math --dry-run",
        licence="Apache-2.0, of the original (BytedTsinghua-SIA/DAPO-Math-17k); this copy of it states none",
        citation="DAPO: An Open-Source LLM Reinforcement Learning System at Scale, arXiv 2503.14476",
    ),
    "codeforces": Entry(
        "data",
        "open-r1/codeforces",
        None,
        False,
        "16.1 K prompts of programming problems with tests (5 GB)",
        "verifiable-prompts/train-*.parquet",
        "pipo rollout code --dry-run",
        licence="CC-BY-4.0",
        citation="Penedo et al., CodeForces, 2025, the hub's data set open-r1/codeforces",
    ),
}

# The hub's rules for repositories (huggingface_hub's `validate_repo_id`, with an owner), and git's for branch names.
_WORD = r"[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?"
_REPO = re.compile(rf"(?=.{{3,96}}$){_WORD}/{_WORD}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9_][\w./+-]*(?<![/.])", re.ASCII)


def find_name(text: str, kind: Kind) -> Named | None:
    """Return what a name stands for, or None if it is neither a catalog name nor a hub id.

    Args:
        text: a catalog name or a hub id (owner/name), with or without `@REVISION`.
        kind: the kind that a hub id is taken for; a catalog name has its own kind.
    """
    name, at, revision = text.partition("@")
    if at and (not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision):
        return None
    known = CATALOG.get(name)
    if known is None and _REPO.fullmatch(name) and not re.search(r"\.\.|--|\.git$", name):
        then = f"pipo bench --ckpt {text}" if kind == "model" else _BASE.format(f"data.train={text}")
        known = Entry(kind, name, None, False, "", then=then)
    if known is None or (at and known.bundled):
        return None
    return Named(text, known, revision if at else known.revision)


def entry(name: str) -> Entry:
    """Return the catalog's entry of a name.

    Raises:
        MissingInputError: if there is none; the message has the nearest name.
    """
    if name not in CATALOG:
        raise MissingInputError(
            f"{name!r} is not in the catalog{did_you_mean(name, CATALOG)}", hint="pipo download --list"
        )
    return CATALOG[name]
