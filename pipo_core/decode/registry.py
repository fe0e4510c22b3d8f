"""Opens a decoding method by its name."""

from collections.abc import Mapping
from typing import Any

from pipo_core.decode.draft_vocab import DraftVocab
from pipo_core.decode.eagle import EagleMethod
from pipo_core.decode.method import Method
from pipo_core.decode.mtp import MTPMethod
from pipo_core.decode.pair import PairMethod
from pipo_core.decode.regular import RegularMethod
from pipo_core.errors import CheckpointError, UsageError
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO
from pipo_core.recipes.methods import METHODS, methods_with

METHOD_CLASSES: Mapping[str, type[Method[Any]]] = {
    method.spec.name: method for method in (RegularMethod, MTPMethod, EagleMethod, PairMethod)
}


def open_method(
    name: str,
    model: Qwen3_5ForCausalPIPO,
    pad_id: int,
    *,
    tau: float | None = None,
    acceptance: float | None = None,
    draft_vocab: DraftVocab | None = None,
    drafts: int | None = None,
) -> Method[Any]:
    """Return a method on a model. An option that is None keeps the method's default.

    Args:
        name: a name in `METHODS`.
        model: the network.
        pad_id: the tokenizer's PAD.
        tau: confidence threshold.
        acceptance: for measurements, the share of drafts to keep, evenly spread; None for the method to decide.
        draft_vocab: the ids that drafts come from; None for all.
        drafts: length of the chain of drafts.

    Raises:
        UsageError: for another name, or an option that the method does not have.
        CheckpointError: if parts that the method needs were not in the checkpoint and so are untrained.
    """
    if name not in METHOD_CLASSES:
        raise UsageError(f"unknown decoding method {name!r}", hint=f"use one of {', '.join(METHODS)}")
    method = METHOD_CLASSES[name]
    options = {"tau": tau, "acceptance": acceptance, "draft_vocab": draft_vocab, "drafts": drafts}
    given: dict[str, Any] = {option: value for option, value in options.items() if value is not None}
    for option in sorted(given.keys() - method.spec.options):
        raise UsageError(f"method {name} has no {option}", hint=f"{option} is an option of {methods_with(option)}")
    missing = [part for part in model.fresh_parts if part in method.spec.needs]
    if missing:
        raise CheckpointError(
            f"method {name} cannot decode this checkpoint: it has no {', '.join(missing)}",
            hint="decode it with method regular, or train these parts first: pipo train",
        )
    return method(model, pad_id, **given)
