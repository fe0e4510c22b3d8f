"""The confidence head decides whether a draft is kept, in place of a verifier (paper, section 3.3)."""

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5RMSNorm


class ConfidenceHead(nn.Module):
    """``c_i = sigmoid(w · SiLU(F · RMSNorm([h_i ; m_i])))`` with ``F: 2H → H``, ``w: H → 1``, no biases."""

    def __init__(self, config: Qwen3_5TextConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.norm = Qwen3_5RMSNorm(2 * hidden, eps=config.rms_norm_eps)
        self.fc1 = nn.Linear(2 * hidden, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, 1, bias=False)

    def forward(self, backbone_hidden: torch.Tensor, mtp_hidden: torch.Tensor) -> torch.Tensor:
        """Return the logit of ``c_i`` in fp32, ``[...]``, from ``h_i`` and ``m_i``, both ``[..., H]``.

        The last steps are in fp32 because a bf16 sigmoid is exactly 1 from a logit of 6.25 on.
        """
        inner = F.silu(self.fc1(self.norm(torch.cat([backbone_hidden, mtp_hidden], dim=-1))))
        with torch.autocast(inner.device.type, enabled=False):
            return F.linear(inner.float(), self.fc2.weight.float()).squeeze(-1)
