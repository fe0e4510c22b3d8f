"""What a request asks of pair decoding: fields of ``custom_params``, which every interface of SGLang passes on."""

from typing import Any, NamedTuple


class Asked(NamedTuple):
    """The fields of ``custom_params`` that are ours; others are none of our business.

    Attributes:
        tau: confidence threshold; None for the server's.
        max_slots: budget in slots; None for no such limit.
        record_slots: whether ``meta_info`` says how many tokens each slot holds.
        record_drafts: whether it has each slot's draft with its confidence, kept or not.
        min_tokens: tokens before which no end may come (`least_tokens`).
    """

    tau: float | None = None
    max_slots: int | None = None
    record_slots: bool = False
    record_drafts: bool = False
    min_tokens: int = 0


def asked_of(req: Any) -> Asked:
    """Return what one of the scheduler's requests asks; `asked_by` has checked it."""
    given = req.sampling_params.custom_params or {}
    return Asked(**{name: given[name] for name in Asked._fields if given.get(name) is not None})


def asked_by(given: Any) -> Asked:
    """Return what the ``custom_params`` of a new request ask.

    Raises:
        ValueError: naming a field whose value makes no sense.
    """
    if not isinstance(given, dict | None):
        raise ValueError("custom_params is an object")
    asked = Asked(**{name: value for name, value in (given or {}).items() if name in Asked._fields})
    tau, most, least = asked.tau, asked.max_slots, asked.min_tokens
    if tau is not None and (isinstance(tau, bool) or not isinstance(tau, int | float) or not 0 <= tau <= 1):
        raise ValueError(f"custom_params.tau is a number from 0 to 1, not {str(tau)[:40]!r}")
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise ValueError(f"custom_params.max_slots is a whole number of at least 1, not {str(most)[:40]!r}")
    if least:  # it is put here behind this check, from `min_new_tokens`
        raise ValueError("custom_params has no min_tokens; give min_new_tokens, or min_tokens, beside it")
    for name in ("record_slots", "record_drafts"):
        if not isinstance(getattr(asked, name), bool | None):
            raise ValueError(f"custom_params.{name} is true or false, not {str(getattr(asked, name))[:40]!r}")
    return asked
