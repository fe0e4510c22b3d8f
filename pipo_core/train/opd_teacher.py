"""The teacher of a distillation: a frozen base model that reads the student's text uncompressed."""

from pathlib import Path

import torch

from pipo_core.model import load_checkpoint
from pipo_core.train.opd_rows import without_pads


class Teacher:
    """The teacher's backbone, wherever it runs, and its LM head beside the student.

    Args:
        folder: a base checkpoint.
        dtype: its weights' number format.
        student_device: where its answers are wanted.
        device: where its backbone runs.
        offload: keep the backbone in the CPU's memory between calls.
    """

    def __init__(
        self, folder: Path, *, dtype: torch.dtype, student_device: torch.device, device: torch.device, offload: bool
    ) -> None:
        model = load_checkpoint(folder, dtype=dtype, device="cpu" if offload else device).requires_grad_(False)
        # What only a pair model has is not kept.
        self._backbone = model.text_model.eval()
        self.head: torch.Tensor = model.lm_head.weight.detach().to(student_device)
        self._student_device = student_device
        self._device = device
        self._offload = offload

    @torch.no_grad()
    def read(self, input_ids: torch.Tensor, pads: torch.Tensor) -> torch.Tensor:
        """Return its hidden state at each place of a batch, ``[B, T, H]``, on the student's device.

        It reads the text without PADs; each place takes the state after that place's own tokens, a PAD that of the
        token before it.

        Args:
            input_ids: ``[B, T]``, in slots.
            pads: ``[B, T]``, True on PADs and on padding.
        """
        text, places = without_pads(input_ids, pads)
        if self._offload:
            self._backbone.to(self._device)
        # Rows are filled on the right and every layer is causal, so no mask is needed.
        hidden: torch.Tensor = self._backbone(input_ids=text.to(self._device), use_cache=False).last_hidden_state
        if self._offload:
            self._backbone.to("cpu")
        hidden = hidden.to(self._student_device)
        return hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[-1]))
