"""The teacher of a distillation: a frozen base model that reads the student's text token by token."""

from pathlib import Path

import torch

from pipo_core.model import load_checkpoint
from pipo_core.train.worker.opd_examples import without_pads


class Teacher:
    """The teacher's backbone, and its LM head on the student's device.

    Attributes:
        head: the LM head's weight, ``[V, H]``.
    """

    def __init__(
        self, folder: Path, *, dtype: torch.dtype, student_device: torch.device, device: torch.device, offload: bool
    ) -> None:
        """Load the teacher.

        Args:
            folder: a base checkpoint.
            dtype: of its weights.
            student_device: where its hidden states are needed.
            device: where its backbone runs.
            offload: keep the backbone in the CPU's memory between calls.
        """
        model = load_checkpoint(folder, dtype=dtype, device="cpu" if offload else device).requires_grad_(False)
        # The parts that only a pair model has are dropped with `model`.
        self._backbone = model.text_model.eval()
        self.head: torch.Tensor = model.lm_head.weight.detach().to(student_device)
        self._student_device = student_device
        self._device = device
        self._offload = offload

    @torch.no_grad()
    def read(self, input_ids: torch.Tensor, pads: torch.Tensor) -> torch.Tensor:
        """Return the teacher's hidden state at each position of a batch, ``[B, T, H]``, on the student's device.

        The teacher reads the text without PADs. Each position gets the state after its token, a PAD that after the
        token before it.

        Args:
            input_ids: ``[B, T]``, in slots.
            pads: ``[B, T]``, True at PADs and at padding.
        """
        text, positions = without_pads(input_ids, pads)
        if self._offload:
            self._backbone.to(self._device)
        # Sequences are padded on the right and every layer is causal, so no mask is needed.
        hidden: torch.Tensor = self._backbone(input_ids=text.to(self._device), use_cache=False).last_hidden_state
        if self._offload:
            self._backbone.to("cpu")
        hidden = hidden.to(self._student_device)
        return hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))
