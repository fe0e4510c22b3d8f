"""Plain PyTorch in place of the Triton kernels that SGLang runs for Qwen3.5; each has the kernel's own signature."""

from typing import Any

import torch
from torch.nn import functional as F

Tensor = torch.Tensor


def split_projections(qkvz: Tensor, ba: Tensor, key_heads: int, value_heads: int, key_dim: int, value_dim: int) -> Any:
    """Return queries, keys and values ``[N, D]``, ``z [N, heads, value_dim]``, ``b`` and ``a [N, heads]``."""
    rows, width = len(qkvz), key_heads * key_dim * 2 + value_heads * value_dim
    return (
        qkvz[:, :width].contiguous(),
        qkvz[:, width:].reshape(rows, value_heads, value_dim).contiguous(),
        ba[:, :value_heads].contiguous(),
        ba[:, value_heads:].contiguous(),
    )


def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    conv_states: Tensor,
    query_start_loc: Tensor,
    seq_lens_cpu: Any,
    cache_indices: Tensor | None = None,
    has_initial_state: Tensor | None = None,
    activation: Any = "silu",
    pad_slot_id: int = -1,
    **_: Any,
) -> Tensor:
    """Convolve prompts that lie behind one another, ``x [D, N]``, and leave each one's last inputs as its state."""
    out, start = torch.empty_like(x), 0
    for number, length in enumerate(int(one) for one in seq_lens_cpu):
        place = number if cache_indices is None else int(cache_indices[number])
        goes_on = has_initial_state is not None and bool(has_initial_state[number])
        before = _last_inputs(conv_states[place], weight, x) * goes_on
        inputs = torch.cat([before, x[:, start : start + length]], dim=1)
        out[:, start : start + length] = _convolved(inputs, weight, bias, activation)
        if place != pad_slot_id:
            conv_states[place] = inputs[:, 1 - weight.shape[1] :].to(conv_states.dtype)
        start += length
    return out


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Any = None,
    cache_seqlens: Any = None,
    conv_state_indices: Tensor | None = None,
    *_: Any,
    pad_slot_id: int = -1,
    **__: Any,
) -> Tensor:
    """Convolve one input of each sequence, ``x [B, D]``, and advance the states."""
    out = torch.empty_like(x)
    for number in range(len(x)):
        place = number if conv_state_indices is None else int(conv_state_indices[number])
        if place == pad_slot_id:
            continue
        inputs = torch.cat([_last_inputs(conv_state[place], weight, x), x[number, :, None]], dim=1)
        out[number] = _convolved(inputs, weight, bias, activation)[:, 0]
        conv_state[place] = inputs[:, 1 - weight.shape[1] :].to(conv_state.dtype)
    return out


def _last_inputs(state: Tensor, weight: Tensor, like: Tensor) -> Tensor:
    return state[:, 1 - weight.shape[1] :].to(like.dtype)


def _convolved(inputs: Tensor, weight: Tensor, bias: Tensor | None, activation: Any) -> Tensor:
    bias = None if bias is None else bias.float()
    out = F.conv1d(inputs[None].float(), weight.float()[:, None], bias, groups=len(inputs))[0]
    return (F.silu(out) if activation in ("silu", "swish", True) else out).to(inputs.dtype)


def fused_gdn_gating(
    A_log: Tensor,  # noqa: N803 - called by name
    a: Tensor,
    b: Tensor,
    dt_bias: Tensor,
    beta: float = 1.0,
    threshold: float = 20.0,
) -> tuple[Tensor, Tensor]:
    """Return the logarithm of the decay and the update's rate, ``[1, N, heads]`` each."""
    decay = -A_log.float().exp() * F.softplus(a.float() + dt_bias.float(), beta, threshold)
    return decay[None], torch.sigmoid(b.float())[None]


def layernorm_fn(
    x: Tensor, weight: Tensor, bias: Any, z: Tensor | None = None, eps: float = 1e-6, **options: Any
) -> Tensor:
    """Return the root-mean-square norm, gated by ``z``."""
    if not (options.get("is_rms_norm") and options.get("norm_before_gate", True)):
        raise NotImplementedError("another norm than Qwen3.5's")
    hidden = x.float()
    hidden = hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + eps) * weight.float()
    if z is not None:
        gate = z.reshape(hidden.shape).float()
        hidden = hidden * (torch.sigmoid(gate) if options.get("activation") == "sigmoid" else F.silu(gate))
    return hidden.to(x.dtype)


def fused_sigmoid_mul(attn_output: Tensor, gate: Tensor, inplace: bool = False, quant: bool = False) -> Tensor:
    """Return attention's output times the sigmoid of its gate."""
    return attn_output * torch.sigmoid(gate.reshape(attn_output.shape).float()).to(attn_output.dtype)


def fused_qk_gemma_rmsnorm(q: Tensor, k: Tensor, qw: Tensor, kw: Tensor, eps: float, head_dim: int) -> Any:
    """Return normed queries and keys."""
    return _gemma_norm(q.reshape(-1, head_dim), qw, eps), _gemma_norm(k.reshape(-1, head_dim), kw, eps)


def fused_qk_gemma_rmsnorm_with_gate(
    q_gate: Tensor, k: Tensor, qw: Tensor, kw: Tensor, eps: float, head_dim: int, num_heads: int
) -> Any:
    """Return normed queries and keys, and the gate that lies beside the queries."""
    both = q_gate.reshape(-1, 2 * head_dim)
    queries, keys = fused_qk_gemma_rmsnorm(both[:, :head_dim], k, qw, kw, eps, head_dim)
    return queries, keys, both[:, head_dim:].contiguous()


def _gemma_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    hidden = x.float()
    return (hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + eps) * (1 + weight.float())).to(x.dtype)


def track_states_all_layers(
    conv: Tensor, ssm: Tensor, indices: Tensor, mask: Tensor, targets: Tensor, rows: int, *_: Any, **__: Any
) -> None:
    """Copy the states of the masked sequences to where the prefix cache keeps them, in every layer."""
    chosen = mask[:rows].bool()
    source, target = indices[:rows][chosen].long(), targets[:rows][chosen].long()
    conv[:, target], ssm[:, target] = conv[:, source], ssm[:, source]


def track_states(conv: Tensor, ssm: Tensor, *rest: Any, **named: Any) -> None:
    """The same in one layer."""
    track_states_all_layers(conv[None], ssm[None], *rest, **named)
