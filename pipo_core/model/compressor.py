"""The compressor folds the two token embeddings of a slot into one latent (paper, section 3.1)."""

import torch
from torch import nn
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig


class MLPCompressor(nn.Module):
    """``z = W2 · SiLU(W1 · [a; b] + b1) + b2`` with ``W1: 2H → 2H`` and ``W2: 2H → H`` (the default)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        inner = nn.Linear(2 * hidden_size, 2 * hidden_size)
        outer = nn.Linear(2 * hidden_size, hidden_size)
        self.mlp = nn.Sequential(inner, nn.SiLU(), outer)

    def forward(self, pair_embeddings: torch.Tensor) -> torch.Tensor:
        """Map pair embeddings ``[B, S, 2, H]`` to latents ``[B, S, H]``."""
        latents: torch.Tensor = self.mlp(pair_embeddings.flatten(-2))
        return latents

    @torch.no_grad()
    def start_as_sum(self) -> None:
        """Set ``W1 = I``, ``W2 = [I I]`` and zero biases: the latent starts as ``SiLU(a) + SiLU(b)``."""
        inner, outer = (layer for layer in self.mlp if isinstance(layer, nn.Linear))
        nn.init.eye_(inner.weight)
        outer.weight.copy_(_two_identities(outer.weight))
        nn.init.zeros_(inner.bias)
        nn.init.zeros_(outer.bias)


class LinearCompressor(nn.Module):
    """``z = W · [a; b] + b`` with ``W: 2H → H`` (the paper's ablation)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * hidden_size, hidden_size)

    def forward(self, pair_embeddings: torch.Tensor) -> torch.Tensor:
        """Map pair embeddings ``[B, S, 2, H]`` to latents ``[B, S, H]``."""
        latents: torch.Tensor = self.linear(pair_embeddings.flatten(-2))
        return latents

    @torch.no_grad()
    def start_as_sum(self) -> None:
        """Set ``W = [I I]`` and a zero bias: the latent starts as exactly ``a + b``."""
        self.linear.weight.copy_(_two_identities(self.linear.weight))
        nn.init.zeros_(self.linear.bias)


Compressor = MLPCompressor | LinearCompressor
COMPRESSORS: dict[str, type[MLPCompressor] | type[LinearCompressor]] = {
    "mlp": MLPCompressor,
    "linear": LinearCompressor,
}


def build_compressor(config: Qwen3_5TextConfig) -> Compressor:
    """Return the compressor that ``config.compressor_type`` names (``mlp`` where it is absent).

    Raises:
        ValueError: for a type that is neither ``mlp`` nor ``linear``.
    """
    kind = getattr(config, "compressor_type", "mlp")
    if kind not in COMPRESSORS:
        raise ValueError(f"unknown compressor_type {kind!r}: expected one of {', '.join(COMPRESSORS)}")
    return COMPRESSORS[kind](config.hidden_size)


def _two_identities(weight: torch.Tensor) -> torch.Tensor:
    """Return ``[I I]`` in the shape ``[H, 2H]`` of ``weight``."""
    identity = torch.eye(weight.shape[0], dtype=weight.dtype, device=weight.device)
    return torch.cat([identity, identity], dim=1)
