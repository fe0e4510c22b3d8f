"""What the forward pass must know of each request in its batch, besides what SGLang's batch says."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from sglang.srt.utils import is_pin_memory_available

from pipo_core.sglang.asked import asked_of
from pipo_core.sglang.served import Served

UNKNOWN = -1
"""Stands for a next first token that the forward pass itself is to sample."""


@dataclass
class Rows:
    """The requests of one batch, a row each.

    Attributes:
        requests: SGLang's, by which the rows are known again in the next step.
        tau: confidence thresholds, ``[B]``.
        may_keep: rows that may keep drafts, ``[B]``: not with ``τ ≥ 1``, nor under a grammar, which is asked for one
            token a slot.
        penalties: presence, frequency and repetition penalty, ``[B, 3]``; None if no request has one.
        records: whether a request records its drafts.
        least: tokens before which no end may come, ``[B]``; None if no request has such a number.
        ends: ids that end each request, ``[B, E]``; `UNKNOWN` where a request has none. None where ``least`` is.
        next_first: first token of the slot behind the last one that is read, ``[B]``; `UNKNOWN` where it is sampled.
            None in decode steps, where all are.
        replayed: whether the backbone's pass was a recorded one.
    """

    requests: list[Any]
    tau: torch.Tensor
    may_keep: torch.Tensor
    penalties: torch.Tensor | None
    records: bool
    least: torch.Tensor | None = None
    ends: torch.Tensor | None = None
    next_first: torch.Tensor | None = None
    replayed: bool = field(default=False)


def rows_of(batch: Any, known: Rows | None, model: Served, device: Any) -> Rows:
    """Return the rows of a batch; nothing is built if the batch decodes the requests that are ``known`` already.

    Args:
        batch: SGLang's ``ScheduleBatch``.
        known: the rows of the step before.
        model: what is served.
        device: that runs the model.
    """
    # Requests compare by identity.
    rows = known if known is not None and known.requests == batch.reqs else _build(batch.reqs, model, device)
    if batch.forward_mode.is_decode():
        return replace(rows, next_first=None, replayed=False)
    following = [_next_first(batch, req, model) for req in batch.reqs]
    return replace(rows, next_first=_on_device(following, torch.int64, device), replayed=False)


def has_penalty(req: Any) -> bool:
    """Return whether a request has a penalty on repeated tokens."""
    sampling = req.sampling_params
    return bool(sampling.presence_penalty or sampling.frequency_penalty or sampling.repetition_penalty != 1)


def _build(requests: list[Any], model: Served, device: Any) -> Rows:
    asked = [asked_of(req) for req in requests]
    tau = [model.tau if one.tau is None else one.tau for one in asked]
    may_keep = [one < 1 and req.grammar is None for one, req in zip(tau, requests, strict=True)]
    least = ends = None
    if any(one.min_tokens for one in asked):
        least = _on_device([one.min_tokens for one in asked], torch.int32, device)
        sets = [_ends(req) for req in requests]
        width = max(map(len, sets))
        # Filled up with a set's own last id: two entries of a row that are one id then say the same of it.
        ends = _on_device([one + one[-1:] * (width - len(one)) for one in sets], torch.int64, device)
    penalties = None
    if any(map(has_penalty, requests)):
        settings = [req.sampling_params for req in requests]
        table = [[one.presence_penalty, one.frequency_penalty, one.repetition_penalty] for one in settings]
        penalties = _on_device(table, torch.float32, device)
    return Rows(
        list(requests),
        _on_device(tau, torch.float32, device),
        _on_device(may_keep, torch.bool, device),
        penalties,
        any(one.record_drafts for one in asked),
        least,
        ends,
    )


def _ends(req: Any) -> list[int]:
    """Return the ids that end a request, one at least, for a table needs a column."""
    sampling, tokenizer = req.sampling_params, req.tokenizer
    if sampling.ignore_eos:
        return [UNKNOWN]
    found = {*(req.eos_token_ids or ()), *(sampling.stop_token_ids or ())}
    found |= set() if tokenizer is None else {tokenizer.eos_token_id}
    return sorted(found) or [UNKNOWN]


def _next_first(batch: Any, req: Any, model: Served) -> int:
    """Return the known first token behind a piece of a prompt, or `UNKNOWN` behind its last one."""
    slots = req.full_untruncated_fill_ids
    if req is not batch.chunked_req or req.extend_end >= len(slots):
        return UNKNOWN
    return int(slots[req.extend_end]) % model.ids.vocabulary


def _on_device(values: list[Any], dtype: torch.dtype, device: Any) -> torch.Tensor:
    """Return a tensor without waiting for the device."""
    pinned = torch.tensor(values, dtype=dtype, pin_memory=is_pin_memory_available(device))
    return pinned.to(device, non_blocking=True)
