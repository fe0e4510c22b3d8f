"""A step's second half, from the logits of first tokens to slots: `pipo_core.decode.pair` without SGLang."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from sglang.srt.layers.logits_processor import LogitsProcessorOutput
from sglang.srt.model_executor.forward_context import ForwardContext, forward_context
from sglang.srt.runtime_context import get_parallel

from pipo_core.sglang.drafts import DraftRecord
from pipo_core.sglang.least_tokens import LeastTokens
from pipo_core.sglang.pair_graph import PairGraph
from pipo_core.sglang.penalties import PenaltyCounts
from pipo_core.sglang.rows import Rows, rows_of
from pipo_core.sglang.served import Served

Sample = Callable[[Any, Any, Any], torch.Tensor]
"""SGLang's own sampling: from a runner, a logits output and a forward batch to tokens, ``[B]``."""


class SlotSampler:
    """Samples the slots of one model runner's batches.

    Both tokens of a slot go through SGLang's own sampling, so every setting of it holds for both.
    """

    def __init__(self, runner: Any, model: Served) -> None:
        self._runner = runner
        self._model = model
        self._rows: Rows | None = None
        self._counts: PenaltyCounts | None = None
        self._least = LeastTokens(runner.device)
        self._pair_graph: PairGraph | None = None

    def start(self, forward_batch: Any, batch: Any) -> None:
        """Give a forward pass the rows of its batch, and count what its new requests have read and written."""
        rows = rows_of(batch, self._rows, self._model, self._runner.device)
        forward_batch.pipo = self._rows = rows
        if forward_batch.forward_mode.is_decode():
            return
        decoding = {id(req) for req in batch.decoding_reqs or ()}
        starting = [req for req in batch.reqs if id(req) not in decoding]
        if rows.least is not None:
            self._least.start(starting, self._model.ids)
        if rows.penalties is not None:
            if self._counts is None:
                self._counts = PenaltyCounts(self._model.ids.vocabulary, self._runner.device)
            self._counts.start(starting, self._model.ids)

    def after_forward(self, forward_batch: Any, *, replayed: bool) -> None:
        """Note how the backbone ran; draft here where SGLang reads a prompt and samples nothing.

        It does so to warm the prefix cache for ``n > 1``, and takes token 0 for the next one.
        """
        forward_batch.pipo.replayed = replayed and forward_batch.forward_mode.is_decode()
        if forward_batch.is_prefill_only:
            self._draft(torch.zeros_like(forward_batch.seq_lens), forward_batch)

    def record_pair_phase(self, graphs: Any, size: int) -> None:
        """Record the pair phase at a batch size that SGLang has just recorded its decode step at.

        Args:
            graphs: SGLang's runner of decode graphs.
            size: the batch size.
        """
        if self._pair_graph is None or self._pair_graph.graphs is not graphs:
            self._pair_graph = PairGraph(graphs, self._runner.model)
        self._pair_graph.record(size)

    def sample(self, sample: Sample, logits_output: Any, forward_batch: Any) -> torch.Tensor:
        """Return a slot for each sequence, ``[B]``: first token, MTP pass, gate, second token."""
        rows: Rows = forward_batch.pipo
        places = forward_batch.req_pool_indices
        self._adjust(logits_output.next_token_logits, rows, places)
        first = sample(self._runner, logits_output, _at_place(forward_batch, 0)).long()
        self._count(first, rows, places)
        drafted, confidence = self._pair_phase(first, forward_batch)
        kept = (confidence >= rows.tau) & rows.may_keep
        wanted = _wanted(kept, rows, forward_batch)
        if wanted is not None and not wanted.numel():
            return first
        logits = self._project(drafted, wanted, forward_batch)
        self._adjust(logits, rows, places)
        output = LogitsProcessorOutput(next_token_logits=logits)
        second = sample(self._runner, output, _at_place(forward_batch, 1)).long()
        self._count(second, rows, places, kept)
        if forward_batch.return_logprob:
            _pair_logprobs(logits_output, output)
        if rows.records:
            # SGLang copies the record to the host while the next step may overwrite the confidence.
            logits_output.auxiliary_device_output = DraftRecord(second, confidence.clone())
        return self._model.ids.join(first, second, kept)

    def _adjust(self, logits: torch.Tensor, rows: Rows, places: torch.Tensor) -> None:
        """Apply penalties and least lengths to logits ``[B, V]`` in place."""
        if self._counts is not None:
            self._counts.penalise(logits, rows, places)
        self._least.hold_back(logits, rows, places)

    def _count(self, tokens: torch.Tensor, rows: Rows, places: torch.Tensor, wrote: torch.Tensor | None = None) -> None:
        """Count output tokens ``[B]``, of the rows that wrote one, ``[B]``; None: of all."""
        if self._counts is not None:
            self._counts.count(tokens, rows, places, wrote)
        self._least.count(rows, places, wrote)

    def _pair_phase(self, first: torch.Tensor, forward_batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``m``, ``[B, H]``, and ``c``, ``[B]``, of each sequence's last slot."""
        if forward_batch.pipo.replayed and self._pair_graph is not None:
            return self._pair_graph.replay(first)
        drafted, hidden = self._draft(first, forward_batch)
        confidence: torch.Tensor = self._runner.model.confidence_head(hidden, drafted)
        return drafted, confidence

    def _draft(self, first: torch.Tensor, forward_batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``m`` and ``h`` of each sequence's last slot, ``[B, H]`` each."""
        backend, replayed = self._runner.attn_backend, forward_batch.pipo.replayed
        with forward_context(ForwardContext(attn_backend=backend), forward_batch=forward_batch):
            if replayed:  # the recording's attention metadata is of a padded batch
                backend.full_attn_backend.init_forward_metadata(forward_batch)
            drafted: tuple[torch.Tensor, torch.Tensor] = self._runner.model.draft(
                first, forward_batch, recorded=replayed
            )
        return drafted

    def _project(self, drafted: torch.Tensor, wanted: torch.Tensor | None, forward_batch: Any) -> torch.Tensor:
        """Return logits of drafts, ``[B, V]``; those of drafts that nobody wants are zeros."""
        network = self._runner.model
        if wanted is None:
            every: torch.Tensor = network.project(drafted, forward_batch)
            return every
        logits = torch.zeros(len(drafted), self._model.ids.vocabulary, device=drafted.device)
        logits[wanted] = network.project(drafted[wanted], forward_batch)
        return logits


def _at_place(forward_batch: Any, place: int) -> Any:
    """Return a batch whose seeded noise is of a place in the slot; it is keyed by seed and position."""
    if forward_batch.sampling_info.sampling_seed is None:
        return forward_batch
    placed = copy.copy(forward_batch)
    placed.positions = 2 * forward_batch.positions + place
    placed.seq_lens = 2 * (forward_batch.seq_lens - 1) + place + 1
    return placed


def _wanted(kept: torch.Tensor, rows: Rows, forward_batch: Any) -> torch.Tensor | None:
    """Return the rows whose drafts are projected to the vocabulary, ``[N]``; None for all.

    Only the device knows which drafts are kept. On a CPU there is nothing to wait for. On a GPU waiting would hold up
    the step that overlap scheduling has queued behind this one, and under tensor parallel every rank must agree.
    """
    every = rows.records or forward_batch.return_logprob
    if every or kept.device.type != "cpu" or get_parallel().tp_size > 1:
        return None
    return kept.nonzero().squeeze(1)


def _pair_logprobs(first: Any, second: Any) -> None:
    """Put the log-probabilities of both tokens into one entry a slot; `text.as_tokens` takes them apart."""
    first.next_token_logprobs = torch.stack([first.next_token_logprobs, second.next_token_logprobs], dim=1)
    if first.next_token_top_logprobs_val:
        for name in ("next_token_top_logprobs_val", "next_token_top_logprobs_idx"):
            pairs = zip(getattr(first, name), getattr(second, name), strict=True)
            setattr(first, name, [torch.stack([torch.as_tensor(a), torch.as_tensor(b)]) for a, b in pairs])
