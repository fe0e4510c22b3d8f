"""What the decoding methods share about rows: what a group of new rows brings, and what a step hands back."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.decode.cache import RowCache
from pipo_core.decode.graphs import PassRunner, run_plainly
from pipo_core.decode.sampling import SamplingParams
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO


@dataclass(frozen=True)
class RowSettings:
    """Settings of rows that start together.

    Attributes:
        sampling: one a row.
        pad_id: the PAD that makes prompts even.
        end_ids: token ids that end a row, one set a row; a draft after such a first token is dropped.
        room: slots of decoding for which space is set aside at once; more is made when needed.
        most: positions that each row can reach; buffers do not grow beyond the largest. Empty for no limit.
        run: how their steps run their passes.
        block: positions of a block of their caches; see `RowCache`.
    """

    sampling: Sequence[SamplingParams]
    pad_id: int
    end_ids: Sequence[frozenset[int]] = field(default_factory=tuple)
    room: int = 64
    most: Sequence[int] = ()
    run: PassRunner = run_plainly
    block: int = 1


@dataclass(frozen=True)
class Emitted:
    """What one step writes for every row: at least one token, and as many more as drafts were kept.

    Attributes:
        tokens: ``[B, W]``; row ``b`` wrote the first ``counts[b]``. Behind them stand rejected drafts where the method
            projects those, else PADs.
        counts: ``[B]``, from 1 to ``W``.
        offered: drafts that the method made for every row.
        confidence: ``c_i``, ``[B]`` fp32; None where the method has no gate or made no draft.
    """

    tokens: torch.Tensor
    counts: torch.Tensor
    offered: int = 0
    confidence: torch.Tensor | None = None

    @property
    def first(self) -> torch.Tensor:
        """First tokens, ``[B]``."""
        return self.tokens[:, 0]


def open_cache(
    model: Qwen3_5ForCausalPIPO, config: Qwen3_5TextConfig, settings: RowSettings, lengths: Sequence[int]
) -> RowCache:
    """Return an empty cache with room for the prompts and ``settings.room`` more slots."""
    return RowCache(
        config,
        max_rows=len(lengths),
        capacity=max(lengths) + settings.room,
        most=settings.most,
        block=settings.block,
        dtype=_computed_dtype(model),
        device=model.device,
    )


def _computed_dtype(model: Qwen3_5ForCausalPIPO) -> torch.dtype:
    """Return the number format in which the model computes: not its weights' where a trainer keeps those in fp32."""
    kind = model.device.type
    if torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    dtype: torch.dtype = model.lm_head.weight.dtype
    return dtype


def end_table(end_ids: Sequence[frozenset[int]], count: int, device: torch.device) -> torch.Tensor:
    """Return the rows' end ids as ``[B, E]``, filled with -1, which no token is."""
    sets = [sorted(ids) for ids in end_ids] if end_ids else [[] for _ in range(count)]
    width = max((len(ids) for ids in sets), default=0)
    return torch.tensor([ids + [-1] * (width - len(ids)) for ids in sets], dtype=torch.long, device=device).reshape(
        count, width
    )
