from typing import Any

import torch
from sglang.srt.plugins.hook_registry import HookRegistry, HookType

from torch_cpu import kernels

_OPS = "sglang.kernels.ops."
_STAND_INS = {
    f"{_OPS}attention.triton_gdn_fused_proj.fused_qkvzba_split_reshape_cat_contiguous": kernels.split_projections,
    f"{_OPS}mamba.causal_conv1d_triton.causal_conv1d_fn": kernels.causal_conv1d_fn,
    f"{_OPS}mamba.causal_conv1d_triton.causal_conv1d_update": kernels.causal_conv1d_update,
    f"{_OPS}attention.linear.fused_gdn_gating.fused_gdn_gating": kernels.fused_gdn_gating,
    f"{_OPS}attention.fla.layernorm_gated.layernorm_fn": kernels.layernorm_fn,
    f"{_OPS}elementwise.elementwise.fused_sigmoid_mul": kernels.fused_sigmoid_mul,
    f"{_OPS}mamba.mamba_state_scatter_triton.track_mamba_states_all_layers": kernels.track_states_all_layers,
    f"{_OPS}mamba.mamba_state_scatter_triton.track_mamba_states_if_needed": kernels.track_states,
    "sglang.srt.models.utils.fused_qk_gemma_rmsnorm": kernels.fused_qk_gemma_rmsnorm,
    "sglang.srt.models.utils.fused_qk_gemma_rmsnorm_with_gate": kernels.fused_qk_gemma_rmsnorm_with_gate,
}
_DELTA_RULE = "sglang.srt.layers.attention.linear.kernels.gdn_triton.TritonGDNKernel"


def register() -> None:
    """Put the stand-ins in the kernels' places."""
    if torch.cuda.is_available():
        return
    torch.Tensor.pin_memory = _as_it_is  # type: ignore[assignment, method-assign] # SGLang pins whatever the platform says
    for target, function in _STAND_INS.items():
        HookRegistry.register(target, function, HookType.REPLACE)
    from torch_cpu.delta_rule import TorchGatedDeltaRule

    HookRegistry.register(_DELTA_RULE, TorchGatedDeltaRule, HookType.REPLACE)


def _as_it_is(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return tensor
