"""What this process serves. Hooks let every call pass while it is no pair model."""

import math
import os
from dataclasses import dataclass
from typing import Any

from pipo_core.errors import UsageError
from pipo_core.recipes.methods import DEFAULT_TAU
from pipo_core.sglang.pair_ids import PairIds

TAU_VARIABLE = "PIPO_TAU"
"""Environment variable with the confidence threshold of requests that name none."""
PAIR_GRAPH_VARIABLE = "PIPO_PAIR_GRAPH"
"""Environment variable that says whether decode steps replay their pair phase from a CUDA graph, too: 0 or 1."""


@dataclass(frozen=True)
class Served:
    """A pair model.

    Attributes:
        ids: of slots, over its vocabulary.
        pad_id: the token that takes a rejected draft's place.
        tau: confidence threshold of requests that name none.
        pair_graph: whether the pair phase is recorded beside SGLang's decode graphs.
    """

    ids: PairIds
    pad_id: int
    tau: float
    pair_graph: bool


_served: Served | None = None


def served() -> Served | None:
    """Return the pair model of this process; None before one is loaded, and in a server of any other model."""
    return _served


def serve_pairs(config: Any) -> Served:
    """Make a pair model what this process serves.

    Args:
        config: the model's configuration.

    Raises:
        UsageError: if it names no PAD token, or an environment variable has a value that makes no sense.
    """
    global _served
    if config.pad_token_id is None:
        raise UsageError("the checkpoint's config.json names no pad_token_id")
    ids, pad_id = PairIds(int(config.vocab_size)), int(config.pad_token_id)
    _served = Served(ids, pad_id, default_tau(), wants_pair_graph())
    return _served


def default_tau() -> float:
    """Return the confidence threshold of requests that name none.

    Raises:
        UsageError: if ``PIPO_TAU`` is not a number from 0 to 1.
    """
    text = os.environ.get(TAU_VARIABLE, "")
    try:
        tau = float(text or DEFAULT_TAU)
    except ValueError:
        tau = math.nan
    if not 0 <= tau <= 1:
        raise UsageError(f"{TAU_VARIABLE} = {text!r} is not a number from 0 to 1")
    return tau


def wants_pair_graph() -> bool:
    """Return whether the pair phase is recorded; it is not by default, since no GPU has run it yet.

    Raises:
        UsageError: if ``PIPO_PAIR_GRAPH`` is neither 0 nor 1.
    """
    text = os.environ.get(PAIR_GRAPH_VARIABLE, "")
    if text not in ("", "0", "1"):
        raise UsageError(f"{PAIR_GRAPH_VARIABLE} = {text!r} is neither 0 nor 1")
    return text == "1"
