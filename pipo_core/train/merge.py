"""`pipo merge`: adapter and the modules that trained in full become a checkpoint that stands alone.

A run that trained all weights stands alone already; merging it copies it, so that a pipeline's later stages need not
know how its model was tuned.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipo_core.errors import CheckpointError, MissingInputError
from pipo_core.files import new_folder, read_object
from pipo_core.recipes.merge import MergeRecipe
from pipo_core.recipes.sft import Compressor
from pipo_core.reporting import Reporter, SilentReporter
from pipo_core.train.layout import ADAPTER, ADAPTER_RECORD, MODEL
from pipo_core.train.models import base_name

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from pipo_core.model import Qwen3_5ForCausalPIPO
    from pipo_core.model.weight_files import Layout

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_DTYPES = ("float32", "bfloat16", "float16")


def run_merge(recipe: MergeRecipe, out: Path, *, reporter: Reporter | None = None) -> dict[str, Any]:
    """Write ``out/model/``, a standalone checkpoint, and return a summary.

    An adapter's is in the base's number format, a whole model's in its own.

    The arithmetic is in fp32 whatever the format, so that weights are rounded once.

    Args:
        recipe: its source is a train stage's folder or an adapter's.
        out: the stage's folder, which exists.
        reporter: hears of progress.

    Raises:
        MissingInputError: if there is no adapter, or no base.
        CheckpointError: if adapter and base do not fit each other.
    """
    reporter = reporter or SilentReporter()
    whole = _whole_model(Path(recipe.source))
    if whole is not None:
        with new_folder(out / MODEL) as folder:
            shutil.copytree(whole, folder, dirs_exist_ok=True)
        return {"artifact": MODEL, "copied": True}
    adapter = _adapter_folder(Path(recipe.source))
    base = _base_folder(recipe, adapter)
    names = _weight_names(adapter)
    layout = _layout(adapter, names)
    dtype = _stored_dtype(base)
    from pipo_core.model.frequent_tokens import DRAFT_VOCAB
    from pipo_core.model.writing import copy_tokenizer, write_weights

    with reporter.progress("merge", 2, unit="part") as bar, new_folder(out / MODEL) as folder:
        model: Qwen3_5ForCausalPIPO = load_adapted(base, adapter).merge_and_unload()
        bar.advance()
        state = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
        write_weights(model, folder, layout=layout, state=state, base=base_name(base) if layout == "pipo" else None)
        copy_tokenizer(adapter if (adapter / "tokenizer.json").is_file() else base, folder)
        if (adapter / DRAFT_VOCAB).is_file():
            shutil.copyfile(adapter / DRAFT_VOCAB, folder / DRAFT_VOCAB)
        bar.advance()
    return {"artifact": MODEL, "layout": layout, "base": base_name(base), "dtype": str(dtype).removeprefix("torch.")}


def load_adapted(base: Path, adapter: Path) -> "PeftModel":
    """Return the base with its adapter beside it, in fp32 and in evaluation mode; merging it changes no logits.

    Raises:
        CheckpointError: if adapter and base do not fit each other.
    """
    import torch
    from peft import PeftModel, get_peft_model_state_dict

    from pipo_core.model import load_checkpoint
    from pipo_core.model.checkpoint import start_compressor

    names = _weight_names(adapter)
    model = load_checkpoint(base, dtype=torch.float32)
    if any("compressor." in name for name in names):
        linear = any("compressor.linear." in name for name in names)
        start_compressor(model, base, Compressor(type="linear" if linear else "mlp"))
    try:
        adapted = PeftModel.from_pretrained(model, adapter, is_trainable=False)
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{adapter} does not fit {base}: {first}") from error
    # PEFT leaves what does not match as it started; a merged model must not be half an adapter.
    expected = set(get_peft_model_state_dict(adapted))
    if expected != names:
        odd = sorted(expected ^ names)
        raise CheckpointError(f"{adapter} does not fit {base}: {len(odd)} weights do not match, such as {odd[0]}")
    return adapted.eval()


def _whole_model(source: Path) -> Path | None:
    """Return the model of a run that trained all weights, or of a checkpoint; None for an adapter."""
    for folder in (source, source / MODEL):
        if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
            return folder
    return None


def _adapter_folder(source: Path) -> Path:
    for folder in (source, source / ADAPTER):
        if (folder / _CONFIG).is_file() and (folder / _WEIGHTS).is_file():
            return folder
    raise MissingInputError(f"{source} holds no adapter ({_CONFIG} and {_WEIGHTS})")


def _base_folder(recipe: MergeRecipe, adapter: Path) -> Path:
    named = recipe.base or read_object(adapter / _CONFIG).get("base_model_name_or_path")
    if isinstance(named, str) and (Path(named) / "config.json").is_file():
        return Path(named)
    raise MissingInputError(f"{adapter} was trained on {named!r}, which is not on this disk", hint="give base=FOLDER")


def _weight_names(adapter: Path) -> set[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(adapter / _WEIGHTS, framework="pt") as opened:
            return set(opened.keys())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{adapter / _WEIGHTS} is damaged or incomplete: {error}") from error


def _layout(adapter: Path, names: set[str]) -> "Layout":
    """Return the layout that fits what was trained; an adapter of other tools is told by its weights."""
    if (adapter / ADAPTER_RECORD).is_file():
        return "pipo" if read_object(adapter / ADAPTER_RECORD).get("objective") == "pipo" else "base"
    return "pipo" if any("compressor." in name for name in names) else "base"


def _stored_dtype(base: Path) -> "torch.dtype":
    """Return the number format of the base's weights as its configuration states it, fp32 if it does not."""
    import torch

    config = read_object(base / "config.json")
    config = {**config, **config.get("text_config", {})}
    name = config.get("dtype") or config.get("torch_dtype")
    dtype: torch.dtype = getattr(torch, name) if name in _DTYPES else torch.float32
    return dtype
