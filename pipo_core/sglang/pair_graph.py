"""The pair phase of a decode step in CUDA graphs of its own: from sampled first tokens to drafts and their confidence.

SGLang replays the backbone's decode step from a CUDA graph and samples the first token outside of it. The pair phase
(that token's embedding, the MTP layer, the confidence head) follows as some dozens of kernels of a few microseconds
each, which take longer to launch than to run. Here it is recorded as well, once for each batch size of SGLang's own
recordings, right after the backbone's: on the same stream, in the same memory pool, and inside SGLang's capture
context, which registers the buffers of all-reduces when it ends. The projection to the vocabulary stays outside: it is
one large kernel, and recorded it would hold a row of fp32 logits for each sequence.

A recording reads what the backbone's recording of the same size reads. Tokens, positions, cache locations and
lengths lie in the runner's input buffers, and the attention metadata in the backend's. SGLang fills both before it
replays the backbone, padding included, and nothing overwrites them until the next replay. So the MTP layer is one more
layer of full attention in the same step. No GPU has run this yet. It was read in the source of SGLang 0.5.23: in
``HybridLinearAttnBackend``, which picks a backend by the layer's number, and in ``forward_decode`` and
``init_forward_metadata_out_graph`` of three backends that it picks.

- Triton reads ``kv_indptr``, ``kv_indices`` and ``num_kv_splits``, which are filled in place before each replay. Its
  partial results are in buffers that its layers use one after another.
- FlashInfer has a wrapper for each batch size, whose index buffers and plan are filled in place before each replay.
- FlashAttention 3 reads lengths, page table and scheduler metadata of the batch size, filled in place as well.

A padded row writes its key to the pool's padding location, as it does in the backbone, and nobody reads its draft.
"""

from typing import Any

import torch
from sglang.srt.model_executor.forward_context import ForwardContext, forward_context
from sglang.srt.model_executor.runner.shape_key import ShapeKey
from sglang.srt.model_executor.runner_backend.full_cuda_graph_backend import FullCudaGraphBackend

from pipo_core.errors import UsageError
from pipo_core.sglang.served import PAIR_GRAPH_VARIABLE

_VARIANT = "pipo pair phase"
"""Tells these recordings from the backbone's of the same size."""


class PairGraph:
    """Recordings of the pair phase beside those of one decode graph runner.

    Args:
        graphs: SGLang's ``DecodeCudaGraphRunner``.
        network: the pair model.

    Raises:
        UsageError: if decode steps are not replayed as one whole CUDA graph for each batch size.
    """

    def __init__(self, graphs: Any, network: Any) -> None:
        if not isinstance(graphs.backend, FullCudaGraphBackend) or graphs.enable_pdmux:
            raise UsageError(
                f"{PAIR_GRAPH_VARIABLE}=1 needs decode steps in full CUDA graphs, without --enable-pdmux",
                hint=f"set {PAIR_GRAPH_VARIABLE}=0",
            )
        self.graphs = graphs
        self._network = network
        rows, like = graphs.max_bs, network.recorded_hidden
        self._first = torch.zeros(rows, dtype=torch.long, device=like.device)
        self._drafted = like.new_zeros(rows, like.shape[1])
        self._confidence = torch.zeros(rows, dtype=torch.float32, device=like.device)

    def record(self, size: int) -> None:
        """Record the phase at a batch size, right after the backbone's pass was recorded at it.

        Until the next recording the backend holds this size's metadata, and the model its forward batch.
        """
        forward_batch = self._network.recorded_batch
        context = ForwardContext(attn_backend=self.graphs.attn_backend)

        def phase() -> None:
            with forward_context(context, forward_batch=forward_batch):
                drafted, hidden = self._network.draft(self._first[:size], forward_batch, recorded=True)
            self._drafted[:size].copy_(drafted)
            self._confidence[:size].copy_(self._network.confidence_head(hidden, drafted))

        self.graphs.backend.capture_one(_key(size), phase)

    def replay(self, first: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the phase for the batch whose backbone pass was the last one to be replayed.

        Args:
            first: sampled first tokens, ``[B]``.

        Returns:
            ``m``, ``[B, H]``, and ``c``, ``[B]``, which the next replay overwrites.
        """
        rows = len(first)
        self._first[:rows].copy_(first)  # rows behind them keep tokens of earlier steps, which are valid ids
        self.graphs.backend.replay(_key(self.graphs.bs), None)
        return self._drafted[:rows], self._confidence[:rows]


def _key(size: int) -> ShapeKey:
    return ShapeKey(size, variant_label=_VARIANT)
