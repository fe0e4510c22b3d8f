"""`pipo merge`: an adapter and the modules that trained in full become a standalone checkpoint.

A run of full fine-tuning is standalone already. Merging it copies it, so that a pipeline's later stages need not know
how its model was tuned.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipo_core.errors import MissingInputError
from pipo_core.files import new_folder, read_object
from pipo_core.recipes.merge import MergeRecipe
from pipo_core.reporting import Reporter, SilentReporter
from pipo_core.train.layout import ADAPTER, ADAPTER_RECORD, MODEL
from pipo_core.train.models import base_name

if TYPE_CHECKING:
    from pipo_core.model import Qwen3_5ForCausalPIPO
    from pipo_core.model.weight_files import Layout

_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_DTYPES = ("float32", "bfloat16", "float16")


def run_merge(recipe: MergeRecipe, out: Path, *, reporter: Reporter | None = None) -> dict[str, Any]:
    """Write ``out/model/``, a standalone checkpoint, and return a summary.

    A merged adapter has the base's number format, a copied model keeps its own. The arithmetic is in fp32, so that
    weights are rounded once.

    Args:
        recipe: its source is the folder of a training stage, of an adapter or of a checkpoint.
        out: the stage's folder, which exists.
        reporter: gets progress.

    Raises:
        MissingInputError: if there is no adapter, or no base.
        CheckpointError: if adapter and base do not fit each other.
    """
    whole = _whole_model(Path(recipe.source))
    if whole is not None:
        with new_folder(out / MODEL) as folder:
            shutil.copytree(whole, folder, dirs_exist_ok=True)
        return {"artifact": MODEL, "copied": True}
    adapter = _adapter_folder(Path(recipe.source))
    return _merge(_base_folder(recipe, adapter), adapter, out, reporter or SilentReporter())


def _merge(base: Path, adapter: Path, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Merge an adapter into its base and return the summary."""
    # Imported here: a whole model is copied without torch and PEFT, which take seconds to import.
    import torch

    from pipo_core.model.adapter import adapter_weight_names, load_adapted
    from pipo_core.model.frequent_tokens import DRAFT_VOCAB
    from pipo_core.model.writing import copy_tokenizer, write_weights

    layout = _layout(adapter, adapter_weight_names(adapter))
    dtype = _dtype_name(base)
    with reporter.progress("merge", 2, unit="part") as bar, new_folder(out / MODEL) as folder:
        model: Qwen3_5ForCausalPIPO = load_adapted(base, adapter).merge_and_unload()
        bar.advance()
        state = {name: tensor.to(getattr(torch, dtype)) for name, tensor in model.state_dict().items()}
        write_weights(model, folder, layout=layout, state=state, base=base_name(base) if layout == "pipo" else None)
        copy_tokenizer(adapter if (adapter / "tokenizer.json").is_file() else base, folder)
        if (adapter / DRAFT_VOCAB).is_file():
            shutil.copyfile(adapter / DRAFT_VOCAB, folder / DRAFT_VOCAB)
        bar.advance()
    return {"artifact": MODEL, "layout": layout, "base": base_name(base), "dtype": dtype}


def _whole_model(source: Path) -> Path | None:
    """Return the checkpoint that a source is or that its run trained in full; None for an adapter."""
    for folder in (source, source / MODEL):
        if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
            return folder
    return None


def _adapter_folder(source: Path) -> Path:
    """Return the folder of the adapter that a source is or that its run trained.

    Raises:
        MissingInputError: if there is none.
    """
    for folder in (source, source / ADAPTER):
        if all((folder / name).is_file() for name in _ADAPTER_FILES):
            return folder
    raise MissingInputError(f"{source} holds no adapter ({' and '.join(_ADAPTER_FILES)})")


def _base_folder(recipe: MergeRecipe, adapter: Path) -> Path:
    """Return the folder of the base that the recipe gives, or else the adapter names.

    Raises:
        MissingInputError: if it is not on this disk.
    """
    named = recipe.base or read_object(adapter / _ADAPTER_FILES[0]).get("base_model_name_or_path")
    if isinstance(named, str) and (Path(named) / "config.json").is_file():
        return Path(named)
    raise MissingInputError(f"{adapter} was trained on {named!r}, which is not on this disk", hint="give base=FOLDER")


def _layout(adapter: Path, names: set[str]) -> "Layout":
    """Return the layout for what was trained.

    Args:
        adapter: its folder; pipo's trainings record the objective there.
        names: of its weights, by which adapters of other tools are recognised.
    """
    if (adapter / ADAPTER_RECORD).is_file():
        return "pipo" if read_object(adapter / ADAPTER_RECORD).get("objective") == "pipo" else "base"
    return "pipo" if any("compressor." in name for name in names) else "base"


def _dtype_name(base: Path) -> str:
    """Return the number format of a base's weights as its configuration states it, ``float32`` if it does not."""
    config = read_object(base / "config.json")
    config = {**config, **config.get("text_config", {})}
    name = config.get("dtype") or config.get("torch_dtype")
    return name if name in _DTYPES else "float32"
