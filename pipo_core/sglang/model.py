"""The pair model over SGLang's Qwen3.5 layers; `pipo_core.model.modeling` is the network that it must equal."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from sglang.srt.layers.logits_processor import LogitsMetadata
from sglang.srt.model_executor.runner import get_is_capture_mode
from sglang.srt.model_loader.weight_utils import default_weight_loader
from sglang.srt.models.qwen3_5_text import Qwen3_5ForCausalLM

from pipo_core.model.compressor import build_compressor
from pipo_core.sglang.mtp import ConfidenceHead, MTPBlock
from pipo_core.sglang.selfcheck import require_support
from pipo_core.sglang.served import serve_pairs

_PARTS = ("compressor", "mtp", "confidence_head")
_STACKED = {
    "q_proj": ("qkv_proj", "q"),
    "k_proj": ("qkv_proj", "k"),
    "v_proj": ("qkv_proj", "v"),
    "gate_proj": ("gate_up_proj", 0),
    "up_proj": ("gate_up_proj", 1),
}
"""Matrices on disk that are parts of one matrix here: its name, and which part."""


class Qwen3_5ForCausalPIPO(Qwen3_5ForCausalLM):
    """Backbone on latents, MTP block and confidence head; the name is the architecture of pair checkpoints.

    SGLang calls `forward` and samples a first token from what it returns. The hooked sampling then calls `draft`.

    Attributes:
        recorded_hidden: ``h`` of the decode step that was last replayed from a CUDA graph, ``[rows, H]``.
        recorded_batch: SGLang's forward batch of the decode step that was last recorded; its tensors are the
            recording's inputs.
    """

    def __init__(self, config: Any, quant_config: Any = None, prefix: str = "") -> None:
        require_support()
        super().__init__(config, quant_config, prefix)
        model = serve_pairs(config)
        self.ids, self.pad_id = model.ids, model.pad_id
        self.compressor = build_compressor(config)
        self.mtp = MTPBlock(config, quant_config)
        self.confidence_head = ConfidenceHead(config)
        self._hidden = torch.empty(0)
        self._first = torch.empty(0, dtype=torch.long)
        self.recorded_hidden = torch.empty(0)
        self.recorded_batch: Any = None

    @property
    def end_layer(self) -> int:
        """One more than the backbone's, so that the memory pools have room for the MTP layer."""
        return int(self.model.end_layer) + 1

    def prepare_before_cuda_graph_capture(self, model_runner: Any) -> None:
        """Reserve the rows that recorded decode steps leave ``h`` in.

        Python does not run when a recording is replayed, so ``h`` must lie where `draft` looks for it, whichever
        recording ran.
        """
        super().prepare_before_cuda_graph_capture(model_runner)
        shape = (model_runner.req_to_token_pool.size, self.config.hidden_size)
        self.recorded_hidden = torch.zeros(shape, dtype=model_runner.dtype, device=model_runner.device)

    @torch.no_grad()
    def forward(self, input_ids: torch.Tensor, positions: torch.Tensor, forward_batch: Any, *_: Any, **__: Any) -> Any:
        """Return SGLang's logits output of each sequence's next first token, from slots ``[N]``; keep ``h``."""
        first, second = self.ids.split(input_ids, self.pad_id)
        # One call for both tokens: under tensor parallel, one all-reduce.
        embeddings = self.model.embed_tokens(torch.stack([first, second], dim=1).flatten())
        latents = self.compressor(embeddings.view(len(first), 2, -1))
        hidden = self.model(first, self._positions(forward_batch, positions), forward_batch, latents)
        self._hidden, self._first = hidden, first
        if get_is_capture_mode() and forward_batch.forward_mode.is_decode():
            self.recorded_hidden[: len(hidden)].copy_(hidden)
            self.recorded_batch = forward_batch
        return self.logits_processor(first, hidden, self.lm_head, forward_batch)

    @torch.no_grad()
    def draft(
        self, token: torch.Tensor, forward_batch: Any, *, recorded: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``m`` and ``h`` of each sequence's last slot, ``[B, H]`` each, and cache the MTP layer's keys.

        Args:
            token: each sequence's next first token, ``[B]``, as it was just sampled.
            forward_batch: that of the `forward` just before; its attention metadata serves again.
            recorded: whether that was a decode step from a CUDA graph.
        """
        if forward_batch.forward_mode.is_decode():
            hidden = (self.recorded_hidden if recorded else self._hidden)[: len(token)]
            return self._drafted(token, hidden, forward_batch), hidden
        # A slot's next first token is the prompt's own, except at the end of what was read.
        last = torch.cumsum(forward_batch.extend_seq_lens.long(), dim=0) - 1
        known = forward_batch.pipo.next_first
        following = torch.roll(self._first, -1)
        following[last] = torch.where(known >= 0, known, token)
        hidden = self._hidden[: len(following)]
        drafted = self._drafted(following, hidden, forward_batch)[last]
        self._hidden = hidden = hidden[last]  # a long prompt's need not stay in memory
        return drafted, hidden

    def _drafted(self, tokens: torch.Tensor, hidden: torch.Tensor, forward_batch: Any) -> torch.Tensor:
        positions = self._positions(forward_batch, forward_batch.positions)
        drafted: torch.Tensor = self.mtp(self.model.embed_tokens(tokens), hidden, positions, forward_batch)
        return drafted

    def _positions(self, forward_batch: Any, positions: torch.Tensor) -> torch.Tensor:
        """Return positions in the form that the layers' rotary embedding takes."""
        found: torch.Tensor = forward_batch.mrope_positions if self.is_mrope_enabled else positions
        return found

    def project(self, drafted: torch.Tensor, forward_batch: Any) -> torch.Tensor:
        """Return logits of drafts, ``[N, V]`` in fp32, from ``m``, ``[N, H]``."""
        metadata = LogitsMetadata.from_forward_batch(forward_batch)
        logits: torch.Tensor = self.logits_processor._get_logits(  # noqa: SLF001 - the same projection, once more
            drafted, self.lm_head, metadata, use_logits_buffer=False
        )
        return logits.float()

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load weights under their names on disk, all or some of them, and return the names that were loaded."""
        own = {name: weight for name, weight in self.named_parameters() if name.partition(".")[0] in _PARTS}
        loaded: set[str] = set()

        def others() -> Iterator[tuple[str, torch.Tensor]]:
            for name, weight in weights:
                if name.partition(".")[0] in _PARTS:
                    loaded.add(_load(own, name, weight))
                else:
                    yield name.replace("model.language_model.", "model."), weight

        found: set[str] = super().load_weights(others())
        return found | loaded


def _load(own: dict[str, torch.nn.Parameter], name: str, weight: torch.Tensor) -> str:
    """Copy one weight into place, and return the name of the parameter that it is in."""
    name = name.replace(".self_attn.", ".")
    *parents, matrix, kind = name.split(".")
    target, part = _STACKED.get(matrix, (matrix, None))
    name = ".".join([*parents, target, kind])
    loader = getattr(own[name], "weight_loader", default_weight_loader)
    loader(own[name], weight, *([] if part is None else [part]))
    return name
