"""`pipo merge`: an adapter and the modules that trained in full become a standalone checkpoint.

A run of full fine-tuning is standalone already. Merging it copies it, so that a pipeline's later stages need not know
how its model was tuned.
"""

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipo_core.errors import CheckpointError, MissingInputError
from pipo_core.files import link_that_leaves, new_folder, read_object
from pipo_core.files.checkpoints import base_name, is_pair_model
from pipo_core.machine import missing_package
from pipo_core.recipes.merge import MergeRecipe
from pipo_core.reporting import Reporter, SilentReporter
from pipo_core.train.layout import ADAPTER, ADAPTER_RECORD, MODEL

if TYPE_CHECKING:
    from pipo_core.model import Qwen3_5ForCausalPIPO
    from pipo_core.model.weight_files import Layout

_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
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
        MachineError: if PEFT is not installed.
        CheckpointError: if adapter and base do not fit each other, the base is not the adapter's own, or a file is a
            link out of its folder.
    """
    whole = _whole_model(Path(recipe.source))
    if whole is not None:
        _refuse_links_outside(whole)
        with new_folder(out / MODEL) as folder:
            shutil.copytree(whole, folder, dirs_exist_ok=True)
        return {"artifact": MODEL, "copied": True}
    adapter = _adapter_folder(Path(recipe.source))
    base = _base_folder(recipe, adapter)
    _refuse_links_outside(adapter)
    _refuse_links_outside(base)
    reporter = reporter or SilentReporter()
    doubt = _doubt(base, adapter)
    if doubt is not None and not recipe.force:
        raise CheckpointError(doubt, hint="give the right base with --base, or --force to merge all the same")
    if doubt is not None:
        reporter.warn(f"merged all the same: {doubt}")
    return _merge(base, adapter, out, reporter)


def _merge(base: Path, adapter: Path, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Merge an adapter into its base and return the summary."""
    lack = missing_package("peft", "merging an adapter needs PEFT", "train")
    if lack is not None:
        raise lack
    # Imported here: a whole model is copied without torch and PEFT, which take seconds to import.
    import torch

    from pipo_core.model.adapter import load_adapted, read_adapter_weights
    from pipo_core.model.frequent_tokens import DRAFT_VOCAB
    from pipo_core.model.writing import copy_tokenizer, write_weights

    layout = _layout(adapter, set(read_adapter_weights(adapter)))
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


def _refuse_links_outside(folder: Path) -> None:
    """Raise if a file of a folder is a link to somewhere else: its content would become part of the new checkpoint.

    Raises:
        CheckpointError: naming the link.
    """
    link = link_that_leaves(folder)
    if link is not None:
        raise CheckpointError(
            f"{link} is a link to {link.resolve()}, outside of its folder; what is there would be copied",
            hint="if that is meant, put the file itself there",
        )


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
    named = recipe.base or _named_base(adapter)
    if named is not None and (Path(named) / "config.json").is_file():
        return Path(named)
    raise MissingInputError(f"{adapter} was trained on {named!r}, which is not on this disk", hint="give base=FOLDER")


def _doubt(base: Path, adapter: Path) -> str | None:
    """Return why a base is not the one that an adapter was trained on; None if nothing speaks against it.

    pipo's trainings record a fingerprint of the base. Other tools record its name alone. The authors' adapters also
    tell by what they train: SFT starts from a plain base and trains the MTP block's norms, OPD starts from a merged SFT
    model and does not.
    """
    record = read_object(adapter / ADAPTER_RECORD) if (adapter / ADAPTER_RECORD).is_file() else {}
    if isinstance(record.get("base_print"), str):
        from pipo_core.model.base_print import weights_print

        same = weights_print(base) == record["base_print"]
        return None if same else f"{adapter} was trained on {record.get('base')!r}, and {base} has other weights"
    named, known = _named_base(adapter), base_name(base)
    is_pair = is_pair_model(base)
    trained = read_object(adapter / _ADAPTER_FILES[0]).get("modules_to_save") or []
    if "compressor" in trained:
        wants_pair = not any("layers.0.input_layernorm" in name for name in trained)
        if wants_pair and not is_pair:
            return f"{adapter} was distilled from a merged SFT model ({named!r}), and {base} is not a pair model"
        if is_pair and not wants_pair:
            return f"{adapter} was fine-tuned from a plain base ({named!r}), and {base} is a pair model already"
    hub_names = [name for name in (named, known) if _HUB_NAME.fullmatch(name or "")]
    if len(hub_names) == 2 and not is_pair and named != known:
        return f"{adapter} was trained on {named!r}, and {base} is {known!r}"
    return None


def _named_base(adapter: Path) -> str | None:
    """Return the name of an adapter's base as its configuration has it; None if it names none."""
    named = read_object(adapter / _ADAPTER_FILES[0]).get("base_model_name_or_path")
    return named if isinstance(named, str) else None


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
