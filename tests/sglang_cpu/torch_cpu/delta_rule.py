import itertools
from typing import Any

import torch
from sglang.srt.layers.attention.linear.kernels.kernel_backend import LinearAttnKernelBase

from torch_cpu.kernels import fused_gdn_gating

Tensor = torch.Tensor
_CHUNK = 64
"""Slots between two states that SGLang may keep for its prefix cache."""


class TorchGatedDeltaRule(LinearAttnKernelBase):
    """The gated delta rule, one position after the other."""

    supports_packed_decode = False
    supports_strided_target_verify_qkv = False

    def decode(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        a: Tensor,
        b: Tensor,
        *,
        A_log: Tensor,  # noqa: N803 - called by name
        dt_bias: Tensor,
        ssm_states: Tensor,
        cache_indices: Tensor,
        query_start_loc: Tensor,
        **_: Any,
    ) -> Tensor:
        decay, rate = fused_gdn_gating(A_log, a, b, dt_bias)
        return _run(q, k, v, decay, rate, ssm_states, cache_indices, query_start_loc)[0]

    def extend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor,
        beta: Tensor,
        *,
        ssm_states: Tensor,
        cache_indices: Tensor,
        query_start_loc: Tensor,
        **_: Any,
    ) -> Any:
        output, chunks = _run(q, k, v, g, beta, ssm_states, cache_indices, query_start_loc)
        return output, None, torch.stack(chunks)[None] if chunks else None


def _run(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, rate: Tensor, states: Tensor, places: Tensor, starts: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Return the outputs, ``[1, N, heads, V]``, and the states at the starts of chunks; advance the states."""
    repeats = v.shape[2] // q.shape[2]
    queries, keys = (one[0].repeat_interleave(repeats, dim=1) for one in (q, k))
    output, chunks = torch.zeros_like(v[0]), []
    bounds = starts.tolist()
    for number, (start, end) in enumerate(itertools.pairwise(bounds)):
        place = int(places[number])
        if end <= start or place < 0:
            continue
        rows = slice(start, end)
        written, after = _recur(
            queries[rows], keys[rows], v[0, rows], decay[0, rows], rate[0, rows], states[place].float()
        )
        output[rows] = written.to(output.dtype)
        chunks += [after[row] for row in range(0, end - start, _CHUNK)]
        states[place] = after[-1].to(states.dtype)
    return output[None], chunks


def _recur(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, rate: Tensor, state: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the outputs of one sequence, ``[T, heads, V]``, and its states before each position and at the end."""
    scale = q.shape[-1] ** -0.5
    queries, keys, values = _unit(q.float()) * scale, _unit(k.float()), v.float()
    outputs, states = [], [state]
    for row in range(len(q)):
        state = state * decay[row].exp()[:, None, None]
        error = (values[row] - torch.einsum("hvk,hk->hv", state, keys[row])) * rate[row][:, None]
        state = state + error[:, :, None] * keys[row][:, None, :]
        outputs.append(torch.einsum("hvk,hk->hv", state, queries[row]))
        states.append(state)
    return torch.stack(outputs), states


def _unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + 1e-6)
