"""Writes what a finished training leaves: the model, or the adapter, as a checkpoint folder."""

from collections.abc import Mapping
from pathlib import Path

import torch

from pipo_core.files import new_folder, read_object, write_json
from pipo_core.model.base_print import weights_print
from pipo_core.model.writing import copy_tokenizer, write_weights
from pipo_core.train.layout import ADAPTER, ADAPTER_RECORD, MODEL
from pipo_core.train.worker.session import PairSession


def write_artifact(session: PairSession, weights: Mapping[str, torch.Tensor], out: Path, *, base: str) -> None:
    """Write ``model/``, or ``adapter/`` with the modules that trained in full, and tokenizer and chat template.

    Args:
        session: of the training, which has ended.
        weights: as `PairSession.final_weights` returned them.
        out: the stage's folder.
        base: name of the base model.
    """
    recipe = session.recipe
    source = Path(recipe.model)
    if recipe.tuning.leaves_model:
        with new_folder(out / MODEL) as folder:
            if recipe.objective == "pipo":
                write_weights(session.bare_model, folder, layout="pipo", state=weights, base=base)
            else:
                write_weights(session.bare_model, folder, layout="base", state=weights)
            copy_tokenizer(source, folder)
            session.record_token_counts(folder)
        return
    with new_folder(out / ADAPTER) as folder:
        session.model.save_pretrained(folder, state_dict=weights, selected_adapters=["default"])
        copy_tokenizer(source, folder)
        session.record_token_counts(folder)
        _sort_sets(folder / "adapter_config.json")
        record = {"objective": recipe.objective, "base": base, "base_print": weights_print(source)}
        write_json(folder / ADAPTER_RECORD, record)


def _sort_sets(config: Path) -> None:
    """Sort the lists of names in an adapter's configuration: PEFT writes sets, in an order of each process's own."""
    content = read_object(config)
    for key, value in content.items():
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            content[key] = sorted(value)
    write_json(config, content)
