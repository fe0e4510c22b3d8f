"""How many users fit a card, from the shapes alone: prints the table of `docs/deploying.md`.

    python -m tools.serving_memory

A user is one request with its whole context in the cache. What SGLang keeps besides (activations, CUDA graphs, states
at the ends of cached prefixes) comes out of the rest of the card, or lowers the numbers.
"""

import sys
from collections.abc import Iterator

from pipo_core.model.shapes import SHAPES, shape_config
from pipo_core.model.sizes import model_sizes

CARD = 80e9
SHARE = 0.85
"""Of the card, for weights and caches: `--mem-fraction-static`."""
CONTEXTS = (8_192, 32_768, 131_072)


def weight_bytes(name: str, *, pairs: bool) -> float:
    """Return the bytes of a size's weights in bf16."""
    sizes = model_sizes(shape_config(name))
    own = sizes.layers + sizes.head * (1 if SHAPES[name].tied else 2)
    return 2.0 * (own + (sizes.compressor + sizes.mtp + sizes.confidence if pairs else 0))


def context_bytes(name: str, tokens: int, *, pairs: bool) -> float:
    """Return the bytes of keys, values and states that a request keeps after ``tokens`` tokens.

    A pair model has half as many positions, with those of the MTP layer besides: ``(KV + KV_mtp)·tokens/2``.
    """
    sizes = model_sizes(shape_config(name))
    return sizes.states + ((sizes.kv + sizes.kv_mtp) * tokens / 2 if pairs else sizes.kv * tokens)


def users(name: str, tokens: int, *, pairs: bool) -> int:
    """Return how many requests fit the card."""
    return int((CARD * SHARE - weight_bytes(name, pairs=pairs)) // context_bytes(name, tokens, pairs=pairs))


def table() -> str:
    """Return the table."""
    contexts = " | ".join(f"{tokens // 1024}K" for tokens in CONTEXTS)

    def rows() -> Iterator[str]:
        for name in SHAPES:
            weights = " / ".join(f"{weight_bytes(name, pairs=pairs) / 1e9:.1f}" for pairs in (False, True))
            cells = [" / ".join(f"{users(name, n, pairs=pairs):,}" for pairs in (False, True)) for n in CONTEXTS]
            yield f"| {name} | {weights} | {' | '.join(cells)} |"

    return "\n".join([f"| model | weights, GB | {contexts} |", "| --- | --- | --- | --- | --- |", *rows()])


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
