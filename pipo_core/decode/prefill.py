"""Reads prompts, whole or piece by piece, for every method.

A long prompt is read ``chunk`` positions at a time, so that its activations stay small and the running sequences can
step in between. A position is a token, or for pair decoding a slot. All pieces share one stock ``DynamicCache``, so the
result does not depend on the pieces (fp32: within about 1e-4).

Sequences that start together from the same prompt, such as several answers to one question, share its reading: it is
read once, and each sequence gets a copy of its states.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from transformers.cache_utils import DynamicCache
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

from pipo_core.decode.cache import SequenceCache, prefill_states, shift_left
from pipo_core.decode.sampling import SamplingParams
from pipo_core.decode.token_scores import TokenScore, score_prompt_piece, widest
from pipo_core.model.modeling import Qwen3_5ForCausalPIPO
from pipo_core.model.slots import even_prompt, left_pad
from pipo_core.model.stock_cache import cache_keyword


@dataclass(frozen=True)
class PrefillSettings:
    """Settings of sequences that start together, one entry a sequence in each list.

    Attributes:
        sampling: how tokens are sampled.
        end_ids: token ids that end a sequence; a draft after such a first token is dropped. Empty for none.
        reserved_positions: positions of decoding for which space is set aside at once; more is made when needed.
        max_positions: positions that each sequence can reach; buffers do not grow beyond the largest. Empty for no
            limit.
        tau: confidence thresholds; None for the method's. Empty for the method's everywhere.
        prompt_scores: how many of the likeliest tokens are recorded at each token of the prompt; None scores nothing.
    """

    sampling: Sequence[SamplingParams]
    end_ids: Sequence[frozenset[int]] = field(default_factory=tuple)
    reserved_positions: int = 64
    max_positions: Sequence[int] = ()
    tau: Sequence[float | None] = ()
    prompt_scores: Sequence[int | None] = ()

    def of(self, indices: Sequence[int]) -> "PrefillSettings":
        """Return the settings of the sequences ``indices``."""
        lists = ("sampling", "end_ids", "max_positions", "tau", "prompt_scores")
        kept: dict[str, Any] = {name: [own[i] for i in indices] for name in lists if (own := getattr(self, name))}
        return replace(self, **kept)


class PromptReader:
    """Prompts that are being read: one in pieces, or several at once, left-padded.

    Args:
        model: the network.
        prompts: token ids of each sequence, equal ones read once; with ``width`` 2, odd ones get a PAD at their end.
        settings: of the sequences.
        pad_id: the PAD.
        width: tokens a position: 1, or 2 for slots.
        with_mtp: whether the MTP block's keys and values are computed too, for every position but the last, whose next
            token is not known yet.
        chunk: positions read at once; None reads all. Several different prompts are always read at once.
        block: positions of a block of the caches; see `SequenceCache`.

    Attributes:
        settings: of the sequences.
    """

    def __init__(
        self,
        model: Qwen3_5ForCausalPIPO,
        prompts: Sequence[Sequence[int]],
        settings: PrefillSettings,
        *,
        pad_id: int,
        width: Literal[1, 2] = 1,
        with_mtp: bool = False,
        chunk: int | None = None,
        block: int = 1,
    ) -> None:
        places = {prompt: place for place, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        self._rows = [places[tuple(prompt)] for prompt in prompts]  # which of the different prompts is a sequence's
        padded = [even_prompt(prompt, pad_id) for prompt in places] if width == 2 else list(places)
        self._own_lengths = [len(prompt) // width for prompt in padded]
        self._hidden = torch.empty(0)
        self._model = model
        self.settings = settings
        self._width = width
        self._with_mtp = with_mtp
        self._block = block
        self._ids, token_fills = left_pad(padded, pad_id, model.device)
        self._fills = token_fills // width
        self._padded = min(self._own_lengths) < max(self._own_lengths)
        self._read = 0
        self._chunk = chunk if chunk is not None and len(padded) == 1 else max(self._own_lengths)
        self._cache = DynamicCache(config=model.config)
        self._top = widest(settings.prompt_scores)
        self._scores: list[list[TokenScore]] | None = None if self._top is None else [[] for _ in padded]
        self._mtp_pieces: list[tuple[torch.Tensor, torch.Tensor]] = []

    @property
    def done(self) -> bool:
        """Whether all is read."""
        return self._read == max(self._own_lengths)

    @property
    def lengths(self) -> list[int]:
        """Positions of each sequence's prompt."""
        return [self._own_lengths[row] for row in self._rows]

    @property
    def hidden(self) -> torch.Tensor:
        """Final-normed hidden states of each sequence's last position, ``[B, H]``, once all is read."""
        return self._hidden[self._rows]

    @property
    def scores(self) -> list[list[TokenScore]] | None:
        """Scores of each sequence's prompt, from its second token on; None if no sequence asks for them."""
        return None if self._scores is None else [self._scores[row] for row in self._rows]

    def keep(self, indices: Sequence[int]) -> None:
        """Make sequence ``i`` what sequence ``indices[i]`` was and forget the others; what is read stays the same."""
        self._rows = [self._rows[index] for index in indices]
        self.settings = self.settings.of(indices)

    @torch.inference_mode()
    def advance(self) -> None:
        """Read the next piece."""
        model, width = self._model, self._width
        begin, end = self._read, min(self._read + self._chunk, max(self._own_lengths))
        ids = self._ids[:, begin * width : end * width]
        numbers = torch.arange(begin, end, device=ids.device)
        positions = (numbers - self._fills[:, None]).clamp(min=0)
        hidden = model.text_model(
            inputs_embeds=model.compress(ids) if width == 2 else model.embed(ids),
            attention_mask=(numbers >= self._fills[:, None]).long() if self._padded else None,
            position_ids=positions,
            use_cache=True,
            **cache_keyword(self._cache),
        ).last_hidden_state
        if self._with_mtp:
            # e(t_{2i+2}), for slots: the first token of the next position. For a piece's last position it is the next
            # piece's first token; only behind the prompt's last position there is none.
            next_first = self._ids[:, (begin + 1) * width : end * width + 1 : width]
            known = next_first.shape[1]
            self._mtp_pieces.append(
                model.mtp.keys_and_values(model.embed(next_first), hidden[:, :known], positions[:, :known])
            )
        if self._scores is not None:
            self._score(hidden, begin)
        self._hidden = hidden[:, -1]
        self._read = end

    def _score(self, hidden: torch.Tensor, begin: int) -> None:
        """Add the scores of the tokens behind the positions from ``begin`` on; ``hidden`` is ``[B, T, H]``."""
        following = self._ids[:, begin + 1 : begin + 1 + hidden.shape[1]]
        pieces = score_prompt_piece(self._model, hidden, following, self._top or 0)
        for mine, piece, fill in zip(self._scores or [], pieces, self._fills.tolist(), strict=True):
            mine += piece[max(fill - begin, 0) :]

    def read(self) -> "PromptReader":
        """Read all that is left and return this reader."""
        while not self.done:
            self.advance()
        return self

    @torch.inference_mode()
    def open_cache(self) -> SequenceCache:
        """Return the backbone's cache, filled with the prompts; the reader drops its own."""
        cache = self._empty_cache(self._model.config)
        cache.load(prefill_states(self._cache, self._fills, padded=self._padded), self.lengths, self._rows)
        self._cache = DynamicCache(config=self._model.config)
        return cache

    @torch.inference_mode()
    def open_mtp_cache(self) -> SequenceCache:
        """Return the MTP block's cache, filled with all positions but the last; the reader drops its own."""
        cache = self._empty_cache(self._model.mtp.config)
        states = [torch.cat(pieces, dim=2) for pieces in zip(*self._mtp_pieces, strict=True)]
        if self._padded:
            states = [shift_left(state, self._fills) for state in states]
        cache.load([states], [length - 1 for length in self.lengths], self._rows)
        self._mtp_pieces = []
        return cache

    def _empty_cache(self, config: Qwen3_5TextConfig) -> SequenceCache:
        """Return an empty cache with room for the prompts and the positions that are set aside."""
        return SequenceCache(
            config,
            max_sequences=len(self._rows),
            capacity=max(self._own_lengths) + self.settings.reserved_positions,
            max_positions=self.settings.max_positions,
            block=self._block,
            dtype=_computed_dtype(self._model),
            device=self._model.device,
        )


def _computed_dtype(model: Qwen3_5ForCausalPIPO) -> torch.dtype:
    """Return the number format in which the model computes; under autocast it differs from that of its weights."""
    kind = model.device.type
    if torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    dtype: torch.dtype = model.lm_head.weight.dtype
    return dtype
