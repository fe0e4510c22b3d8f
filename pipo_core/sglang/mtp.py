"""The MTP block and the confidence head over SGLang's own layers; what they compute is in `pipo_core.model`."""

from typing import Any

import torch
from sglang.srt.layers.layer_boundary.residual import batch as residual_batch
from sglang.srt.layers.layernorm import GemmaRMSNorm
from sglang.srt.models.qwen3_5 import Qwen3_5AttentionDecoderLayer
from sglang.srt.utils import make_pp_layers
from torch import nn
from torch.nn import functional as F


class MTPBlock(nn.Module):
    """``m_i = RMSNorm(layer(fc([RMSNorm_e(e(t_{2i+2})) ; RMSNorm_h(h_i)])))`` (`pipo_core.model.mtp`).

    Its layer has the number that follows the backbone's last one, so its keys and values lie in the same pools.
    """

    def __init__(self, config: Any, quant_config: Any) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.rms_norm_eps
        self.fc = nn.Linear(2 * hidden, hidden, bias=False)
        self.pre_fc_norm_embedding = GemmaRMSNorm(hidden, eps=eps)
        self.pre_fc_norm_hidden = GemmaRMSNorm(hidden, eps=eps)
        self.norm = GemmaRMSNorm(hidden, eps=eps)

        def build(*, prefix: str, **_: int) -> nn.Module:
            layer: nn.Module = Qwen3_5AttentionDecoderLayer(
                config, config.num_hidden_layers, quant_config, prefix=f"{prefix}.self_attn"
            )
            return layer

        self.layers, _, _ = make_pp_layers(
            1,
            build,
            prefix="mtp.layers",
            stage_facts=lambda number: Qwen3_5AttentionDecoderLayer.stage_facts(config, number),
        )

    def forward(
        self, embeddings: torch.Tensor, hidden: torch.Tensor, positions: torch.Tensor, forward_batch: Any
    ) -> torch.Tensor:
        """Return ``m``, ``[N, H]``, and store the layer's keys and values.

        Args:
            embeddings: of each slot's next first token, ``[N, H]``.
            hidden: ``h`` of the same slots, ``[N, H]``.
            positions: of the slots, ``[N]`` or ``[3, N]``.
            forward_batch: SGLang's, whose attention metadata is of these slots.
        """
        fused = self.fc(torch.cat([self.pre_fc_norm_embedding(embeddings), self.pre_fc_norm_hidden(hidden)], dim=-1))
        residual_batch.start(forward_batch)
        output = self.layers[0](positions=positions, hidden_states=fused, forward_batch=forward_batch)
        drafted: torch.Tensor = residual_batch.final_norm(output, forward_batch, self.norm, skip_empty=True)
        return drafted


class ConfidenceHead(nn.Module):
    """``c_i = sigmoid(w · SiLU(F · RMSNorm([h_i ; m_i])))`` (`pipo_core.model.confidence`)."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.norm = GemmaRMSNorm(2 * hidden, eps=config.rms_norm_eps)
        self.fc1 = nn.Linear(2 * hidden, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, 1, bias=False)

    def forward(self, hidden: torch.Tensor, drafted: torch.Tensor) -> torch.Tensor:
        """Return ``c``, ``[N]`` in fp32, from ``h`` and ``m``, ``[N, H]`` each."""
        inner = F.silu(self.fc1(self.norm(torch.cat([hidden, drafted], dim=-1))))
        return torch.sigmoid(F.linear(inner.float(), self.fc2.weight.float()).squeeze(-1))
