"""Hooks where the prefix cache is asked and filled.

The MTP layer's key and value of a slot depend on the first token of the next slot. With slots alone as keys, a prefix
that goes on differently would find another continuation's values, and the gate would read them.
"""

from typing import Any

from pipo_core.sglang.served import served


def match_by_pairs(key: Any, *_: Any, **__: Any) -> Any:
    """Look a request up by keys that know the next first token."""
    model = served()
    if model is not None:
        key.token_ids = model.ids.radix_keys(key.token_ids)
    return key


def insert_by_pairs(original: Any, tree: Any, req: Any, *, up_to: int, **named: Any) -> Any:
    """Insert a request under the same keys, without its last slot: its next token is not known yet."""
    model = served()
    if model is None:
        return original(tree, req, up_to=up_to, **named)
    slots, prompt = req.full_untruncated_fill_ids, req.origin_input_ids
    known = prompt + req.output_ids
    keys = model.ids.radix_keys(known)
    req.full_untruncated_fill_ids, req.origin_input_ids = keys, keys[: len(prompt)]
    try:
        return original(tree, req, up_to=min(up_to, len(known) - 1), **named)
    finally:
        req.full_untruncated_fill_ids, req.origin_input_ids = slots, prompt
