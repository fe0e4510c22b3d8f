"""The gate's number is fp32 whatever the model's format."""

import torch

from pipo_core.model import Qwen3_5ForCausalPIPO
from pipo_core.model.confidence import ConfidenceHead


def test_a_bf16_gate_is_not_saturated(reference: Qwen3_5ForCausalPIPO) -> None:
    """A bf16 sigmoid is exactly 1 from a logit of 6.25 on; the gate must still tell 0.999 from 1."""
    head = ConfidenceHead(reference.config)
    with torch.no_grad():
        head.fc1.weight.fill_(0.05)
        head.fc2.weight.fill_(0.02)
    head = head.to(torch.bfloat16)
    hidden = torch.ones(3, reference.config.hidden_size, dtype=torch.bfloat16)
    for autocast in (False, True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = head(hidden, hidden)
            confidence = logits.sigmoid()
        assert logits.dtype == confidence.dtype == torch.float32
        assert (logits > 6.25).all()
        assert (confidence < 1).all()
