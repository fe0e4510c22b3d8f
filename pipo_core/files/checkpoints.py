"""What a checkpoint folder says of itself without its weights: is it one, is it a pair model, what is it called?"""

from pathlib import Path
from typing import Any

from pipo_core.errors import CheckpointError
from pipo_core.files import read_object


def check_model(folder: Path) -> None:
    """Raise unless a folder is a checkpoint that brings no Python code, which a library might run.

    Raises:
        CheckpointError: naming the file that is missing, or that asks for code.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is not a checkpoint: it has no config.json")
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(f"{folder} has no tokenizer.json")
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).is_file() and "auto_map" in read_object(folder / name):
            raise CheckpointError(
                f"{folder / name} asks for Python code of its own (auto_map), which pipo never runs",
                hint="use a checkpoint in a format that transformers knows",
            )


def is_pair_model(folder: Path) -> bool:
    """Return whether a checkpoint is a pair model, by its configuration.

    Raises:
        MissingInputError: if the folder is not a checkpoint.
    """
    return "compressor_type" in text_config(folder)


def base_name(folder: Path) -> str:
    """Return a model's name: the base that its configuration records, else its hub id, else its folder's name."""
    recorded = read_object(folder / "config.json").get("pipo_base")
    if isinstance(recorded, str):
        return recorded
    for part in folder.parts:
        if part.startswith("models--"):
            return part.removeprefix("models--").replace("--", "/", 1)
    return folder.name


def text_config(folder: Path) -> dict[str, Any]:
    """Return a checkpoint's text configuration, nested or flat.

    Raises:
        MissingInputError: if the folder is not a checkpoint.
    """
    config = read_object(folder / "config.json")
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, dict) else config
