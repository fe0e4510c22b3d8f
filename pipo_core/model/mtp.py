"""The MTP block: one decoder layer that drafts the second token of a slot (paper, section 3.2)."""

import copy
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import (
    Qwen3_5DecoderLayer,
    Qwen3_5RMSNorm,
    Qwen3_5TextRotaryEmbedding,
    apply_rotary_pos_emb,
)

from pipo_core.model.stock_cache import cache_keyword


class MTPBlock(nn.Module):
    """``m_i = RMSNorm(layer(fc([RMSNorm_e(e(t_{2i+2})) ; RMSNorm_h(h_i)])))``.

    The layer is a full-attention Qwen3.5 layer, causal over all earlier slots, the prompt's too, with rotary position
    ``i`` at slot ``i``. On an uncompressed model the same block sees ``(h_t, e(t_{t+1}))`` and predicts ``t_{t+2}``.
    """

    def __init__(self, config: Qwen3_5TextConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        layer_config = copy.deepcopy(config)
        layer_config.num_hidden_layers = 1
        layer_config.layer_types = ["full_attention"]
        self.config = layer_config
        self.fc = nn.Linear(2 * hidden, hidden, bias=False)
        self.pre_fc_norm_embedding = Qwen3_5RMSNorm(hidden, eps=config.rms_norm_eps)
        self.pre_fc_norm_hidden = Qwen3_5RMSNorm(hidden, eps=config.rms_norm_eps)
        self.layers = nn.ModuleList([Qwen3_5DecoderLayer(layer_config, 0)])  # a list, as the weights are named
        self.norm = Qwen3_5RMSNorm(hidden, eps=config.rms_norm_eps)
        self.rotary_emb = Qwen3_5TextRotaryEmbedding(config)

    def forward(
        self,
        token_embeddings: torch.Tensor,
        backbone_hidden: torch.Tensor,
        *,
        position_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
    ) -> torch.Tensor:
        """Return ``m``, ``[B, S, H]``, from ``e(t_{2i+2})`` and ``h_i``, both ``[B, S, H]``.

        Args:
            token_embeddings: embeddings of each slot's next first token.
            backbone_hidden: final-normed hidden states of the same slots.
            position_ids: ``[B, S]``; slot numbers from 0 where absent.
            attention_mask: ``[B, 1, S, K]``, True where slot may see key; plainly causal where absent.
            cache: the block's own keys and values (one layer, index 0).
        """
        inputs = self.fuse(token_embeddings, backbone_hidden)
        if position_ids is None:
            position_ids = torch.arange(inputs.shape[1], device=inputs.device).expand(inputs.shape[0], -1)
        if attention_mask is None:
            attention_mask = create_causal_mask(
                config=self.config,
                inputs_embeds=inputs,
                attention_mask=None,
                position_ids=position_ids,
                **cache_keyword(cache),
            )
        hidden = self.layers[0](
            inputs,
            position_embeddings=self.rotary_emb(inputs, position_ids[None]),
            attention_mask=attention_mask,
            position_ids=position_ids,
            **cache_keyword(cache),
        )
        drafted: torch.Tensor = self.norm(hidden)
        return drafted

    def keys_and_values(
        self, token_embeddings: torch.Tensor, backbone_hidden: torch.Tensor, position_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the block caches for slots whose draft nobody needs: keys and values, ``[B, heads, S, D]``.

        Prefill uses it on every prompt slot but the last: no query, no attention, no feed-forward.
        """
        inputs = self.fuse(token_embeddings, backbone_hidden)
        layer: Any = self.layers[0]
        attention = layer.self_attn
        normed = layer.input_layernorm(inputs)
        shape = (*normed.shape[:-1], self.config.num_key_value_heads, attention.head_dim)
        keys = attention.k_norm(attention.k_proj(normed).view(shape)).transpose(1, 2)
        values = attention.v_proj(normed).view(shape).transpose(1, 2)
        cos, sin = self.rotary_emb(inputs, position_ids[None])
        _, keys = apply_rotary_pos_emb(keys, keys, cos, sin)
        return keys, values

    def fuse(self, token_embeddings: torch.Tensor, backbone_hidden: torch.Tensor) -> torch.Tensor:
        """Return the layer's input, ``[B, S, H]``, from both, ``[B, S, H]``: embedding first, hidden state second."""
        halves = [self.pre_fc_norm_embedding(token_embeddings), self.pre_fc_norm_hidden(backbone_hidden)]
        fused: torch.Tensor = self.fc(torch.cat(halves, dim=-1))
        return fused
