"""Uncompressed text models as pipo writes them: the network is SGLang's, the names of the weights are the hub's."""

from collections.abc import Iterable

import torch
from sglang.srt.models.qwen3_5_text import Qwen3_5ForCausalLM


class HubNamedText(Qwen3_5ForCausalLM):
    """SGLang's text model, loaded from weights that are named as in the hub's multimodal checkpoints.

    A training leaves such a checkpoint: it names the text model's class and keeps the names of the base.
    """

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load weights and return the names that were loaded."""
        renamed = ((name.replace("model.language_model.", "model.", 1), weight) for name, weight in weights)
        loaded: set[str] = super().load_weights(renamed)
        return loaded
