"""What the processes of a training tell each other outside of the gradients; a lone process tells itself."""

from typing import TypeVar

import torch

from pipo_core.errors import PipoError

T = TypeVar("T")


def is_first() -> bool:
    """Return whether this process is the one of all that speaks for them."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def from_first(value: T) -> T:
    """Return the value that the first process gives; all must call this."""
    if not torch.distributed.is_initialized():
        return value
    shared = [value]
    torch.distributed.broadcast_object_list(shared)
    return shared[0]


def fail_together(error: PipoError | None) -> None:
    """Raise if any process has an error, so that the first one, which alone reports errors, knows of it.

    Args:
        error: this process's; None if it has none.

    Raises:
        PipoError: this process's own error, or else the first one of the others.
    """
    errors = [error]
    if torch.distributed.is_initialized():
        errors = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(errors, error)
    met = error or next((one for one in errors if one is not None), None)
    if met is not None:
        raise met
