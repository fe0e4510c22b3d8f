"""Weights on disk: the layouts, which files a checkpoint has, where each weight is, and how one is copied into place.

All layouts are safetensors, a single file or shards with an index; pickles are never read.

``pipo``
    ``model.language_model.*``, ``compressor.*``, ``mtp.*``, ``confidence_head.*``, and ``lm_head.weight`` when untied:
    the authors' checkpoints and ours.
``base``
    What ``Qwen/Qwen3.5-*`` holds: ``model.language_model.*`` and ``mtp.*``. The text configuration may be nested under
    ``text_config``; ``model.visual.*`` may be there and is dropped. Stock text-only saves (``model.layers.*``) load
    too. Loading a base gives a fresh PIPO start: the compressor sums, the confidence head is random.

`checkpoint` reads both, `writing` writes both.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open

from pipo_core.errors import CheckpointError
from pipo_core.files import read_json
from pipo_core.text import one_line

Layout = Literal["pipo", "base"]

PIPO_ARCHITECTURE = "Qwen3_5ForCausalPIPO"
BASE_ARCHITECTURE = "Qwen3_5ForCausalLM"
PAIR_PARTS = ("compressor.", "confidence_head.")
"""How the names of weights begin that only a pair model has."""

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

_BLOCK_BYTES = 64 << 20
_LENGTH_BYTES = 8
"""Of the number at the beginning of a safetensors file that says how long its header is."""
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}

FLOATS = tuple(_ITEM_BYTES)
"""Number formats, as safetensors calls them, that a weight may have; others mean nothing without a scale."""


@dataclass(frozen=True)
class WeightSource:
    """Where one weight is on disk.

    Attributes:
        file: a safetensors file.
        name: the weight's name in it.
        shape: of the weight.
        dtype: its number format as safetensors calls it, e.g. ``BF16``.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str


def locate_weights(folder: Path) -> dict[str, WeightSource]:
    """Return where every weight of a checkpoint is, under its name in memory; no weight is read.

    Args:
        folder: of the checkpoint.

    Raises:
        CheckpointError: if files are missing, damaged or pickled.
    """
    sources: dict[str, WeightSource] = {}
    for file in _weight_files(folder):
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a dictionary
                    part = opened.get_slice(name)
                    known = _name_in_memory(name)
                    if known in sources:
                        raise CheckpointError(
                            one_line(f"{file} holds {name}, which {sources[known].file.name} holds too")
                        )
                    if known is not None:
                        sources[known] = WeightSource(file, name, tuple(part.get_shape()), str(part.get_dtype()))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{file} is damaged or incomplete: {one_line(error)}", hint="download or copy the checkpoint again"
            ) from error
    return sources


def byte_ranges(file: Path) -> dict[str, tuple[int, int]]:
    """Return where the values of each weight are in a file that `locate_weights` took: the first byte, and how many.

    Reading a few bytes at a place costs no more than that; through the library's memory maps it costs pages around it.
    """
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(_LENGTH_BYTES), "little")
        header = json.loads(opened.read(length))
    begin = _LENGTH_BYTES + length
    ranges = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    return {name: (begin + first, end - first) for name, (first, end) in ranges.items()}


def _weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint: those of the index if there is one, else the single file.

    Raises:
        CheckpointError: if a file is missing or pickled, or the index is damaged or leaves the folder.
    """
    index = folder / INDEX
    if index.is_file():
        content = read_json(index)
        mapping = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(mapping, dict) or not all(isinstance(name, str) for name in mapping.values()):
            raise CheckpointError(f"{index} has no weight_map")
        names = sorted(set(mapping.values()))
        outside = [name for name in names if Path(name).name != name]
        if outside:
            raise CheckpointError(f"{index} names files outside its folder: {listed(outside)}")
        missing = [name for name in names if not _is_file(folder / name)]
        if missing:
            raise CheckpointError(f"{folder} lacks weight files that its index names: {listed(missing)}")
        return [folder / name for name in names]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise CheckpointError(
            f"{folder} holds pickled weights, which can run code when read; pipo reads safetensors only",
            hint="convert the checkpoint to safetensors where you trust it",
        )
    raise CheckpointError(f"{folder} has no {WEIGHTS}")


def _is_file(path: Path) -> bool:
    """Return whether a file is there; False, too, for a name that the file system does not take."""
    with suppress(OSError):
        return path.is_file()
    return False


def _name_in_memory(name: str) -> str | None:
    """Return the model's name of a weight on disk; None for weights that PIPO drops (the vision tower)."""
    if name.startswith(("model.visual.", "visual.")):
        return None
    if name.startswith("model.") and not name.startswith("model.language_model."):
        return "model.language_model." + name.removeprefix("model.")
    return name


def copy_weight(source: WeightSource, target: torch.Tensor) -> None:
    """Copy one weight into place, block by block.

    The file is opened anew for each block. Closing it releases the pages that were mapped for reading, which would
    otherwise count as memory beside the copy.

    Args:
        source: where it is on disk.
        target: a tensor of its shape.

    Raises:
        CheckpointError: if the file cannot be read.
    """
    try:
        for rows in _row_blocks(source):
            with safe_open(source.file, framework="pt") as opened:
                if rows is None:
                    target.copy_(opened.get_tensor(source.name))
                else:
                    target[rows].copy_(opened.get_slice(source.name)[rows])
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{source.file} could not be read: {error}") from error


def _row_blocks(source: WeightSource) -> Iterator[slice | None]:
    """Yield slices of the first dimension of about 64 MB each; one None for a weight that is smaller."""
    total = _ITEM_BYTES[source.dtype]
    for size in source.shape:
        total *= size
    if total <= _BLOCK_BYTES or not source.shape:
        yield None
        return
    step = max(1, _BLOCK_BYTES * source.shape[0] // total)
    for start in range(0, source.shape[0], step):
        yield slice(start, min(start + step, source.shape[0]))


def listed(items: list[str], limit: int = 8) -> str:
    """Return the first ``limit`` items, and how many more there are, as text."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(one_line(item) for item in items[:limit]) + more
