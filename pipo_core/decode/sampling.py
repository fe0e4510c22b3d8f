"""Sampling: from logits to tokens, with noise that depends on the request and not on the batch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipo_core.decode.biases import Biases
from pipo_core.decode.draws import Cuts, draw_from_all, draw_from_likeliest
from pipo_core.decode.grammars import Grammar, Grammars
from pipo_core.decode.token_scores import StepScores, TokenScore, widest
from pipo_core.errors import UsageError


@dataclass(frozen=True)
class SamplingParams:
    """How one request's tokens are sampled. The defaults sample from the model's own distribution.

    Attributes:
        temperature: divides the logits; 0 takes the most likely token.
        top_p: smallest set of tokens whose probability reaches it; 1 keeps all.
        top_k: number of most likely tokens kept; 0 keeps all.
        presence_penalty: subtracted from the logit of every token that is in the output.
        frequency_penalty: the same, times how often it is there.
        repetition_penalty: divides (multiplies, if negative) the logit of tokens in prompt or output; 1 does nothing.
        seed: of the request's noise.
        min_p: tokens whose probability is below this share of the likeliest one's are left out; 0 keeps all.
        logit_bias: tokens and what is added to their logits, after the penalties.
        min_tokens: the ids that end the text cannot be sampled before this many tokens were written.
        logprobs: how many of the likeliest tokens are recorded beside each sampled one, with log-probabilities; None
            records nothing.
        grammar: that the output follows; None for none.

    Raises:
        UsageError: for values outside their ranges, and for ``min_tokens`` with a grammar.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    min_p: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    min_tokens: int = 0
    logprobs: int | None = None
    grammar: Grammar | None = None

    def __post_init__(self) -> None:
        rules = {
            "temperature": 0 <= self.temperature < math.inf,
            "top_p": 0 < self.top_p <= 1,
            "top_k": isinstance(self.top_k, int) and self.top_k >= 0,
            "presence_penalty": math.isfinite(self.presence_penalty),
            "frequency_penalty": math.isfinite(self.frequency_penalty),
            "repetition_penalty": 0 < self.repetition_penalty < math.inf,
            "min_p": 0 <= self.min_p <= 1,
            "logit_bias": all(math.isfinite(value) for _, value in self.logit_bias),
            "min_tokens": isinstance(self.min_tokens, int) and self.min_tokens >= 0,
            "logprobs": self.logprobs is None or self.logprobs >= 0,
        }
        for name, holds in rules.items():
            if not holds:
                raise UsageError(f"{name} = {getattr(self, name)} is out of range")
        if self.min_tokens and self.grammar is not None:
            raise UsageError("min_tokens and a grammar cannot both say when the text may end")

    @property
    def penalises(self) -> bool:
        """Whether any penalty is on."""
        return bool(self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1.0)

    def keeps_all(self, vocabulary: int) -> bool:
        """Whether every token of so many can be sampled."""
        return (self.top_k or vocabulary) >= vocabulary and self.top_p == 1.0 and self.min_p == 0.0


@dataclass
class _Counts:
    """Counts for the penalties: how often each token is in the output, and whether it is in the prompt."""

    output: torch.Tensor  # [B, V] int32
    in_prompt: torch.Tensor  # [B, V] bool

    @classmethod
    def of_prompts(cls, prompts: Sequence[Sequence[int]], vocabulary: int, device: torch.device) -> "_Counts":
        """Return the counts of sequences that have written nothing yet."""
        shape = (len(prompts), vocabulary)
        in_prompt = torch.zeros(shape, dtype=torch.bool, device=device)
        for index, prompt in enumerate(prompts):
            in_prompt[index, torch.tensor(prompt, dtype=torch.long, device=device)] = True
        return cls(torch.zeros(shape, dtype=torch.int32, device=device), in_prompt)

    def of_sequences(self, indices: torch.Tensor) -> "_Counts":
        """Return the counts of the sequences ``indices``, ``[N]``."""
        return _Counts(self.output[indices], self.in_prompt[indices])

    def of_ids(self, ids: torch.Tensor) -> "_Counts":
        """Return the counts of the tokens ``ids``, ``[N]``."""
        return _Counts(self.output[:, ids], self.in_prompt[:, ids])


class Sampler:
    """The sampling state of the running sequences: parameters, penalty counts, and the slot that each has reached.

    Attributes:
        broken: sequences whose scores held NaN, or whose best score was infinite, ``[B]``.

    Args:
        params: of each sequence.
        prompts: for the repetition penalty.
        vocabulary: how many ids there are.
        device: where the sequences run.
        ends: ids that end each sequence, for ``min_tokens``; empty for none anywhere.
    """

    def __init__(
        self,
        params: Sequence[SamplingParams],
        prompts: Sequence[Sequence[int]],
        vocabulary: int,
        device: torch.device,
        *,
        ends: Sequence[frozenset[int]] = (),
    ) -> None:
        self._params = list(params)
        self._slots = np.zeros(len(params), dtype=np.uint64)
        self._vocabulary = vocabulary
        self._device = device
        self.broken = torch.zeros(len(params), dtype=torch.bool, device=device)
        self._counts: _Counts | None = None
        if any(p.penalises for p in params):
            self._counts = _Counts.of_prompts(prompts, vocabulary, device)
        self._biases = Biases([p.logit_bias for p in params], [p.min_tokens for p in params], ends, vocabulary, device)
        self._grammars = Grammars([p.grammar for p in params], device)
        self._scores: StepScores | None = None
        self._collect()

    def sample(
        self,
        logits: torch.Tensor,
        place: int = 0,
        indices: torch.Tensor | None = None,
        *,
        ahead: int = 0,
        vocabulary: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return one token a sequence, ``[N]``, from logits ``[N, V]``.

        Args:
            logits: of the sequences ``indices``, or of all of them.
            place: 0 for a slot's first token, 1 for its draft. Noise is keyed by (seed, slot, place), so a sequence
                gets the same tokens whatever else is in the batch, and whether or not earlier drafts were projected.
            indices: of the sequences that are sampled, ``[N]``.
            ahead: slots between the current one and the one that is sampled for.
            vocabulary: the ids that the logits are of, ``[V]``; None for all.
        """
        scores = self._biases.add_to(self._penalised(logits.float(), indices, vocabulary), indices, vocabulary)
        scores = self._grammars.mask(scores, indices, vocabulary)
        sampled = self._sample(scores, place, indices, ahead)
        sampled = sampled if vocabulary is None else vocabulary[sampled]
        if self._logprobs is not None:
            self._scores = self._scores or StepScores(len(self._params), self._logprobs)
            self._scores.add(logits, sampled, indices, vocabulary)
        return sampled

    @property
    def bound(self) -> torch.Tensor | None:
        """Which sequences' next tokens are bound by a grammar, ``[B]``; None if none is."""
        return self._grammars.bound

    def take_scores(self) -> list[list[TokenScore]] | None:
        """Return the scores of the tokens sampled since the last call, a list a sequence; None if nobody asks."""
        scores, self._scores = self._scores, None
        return None if scores is None else scores.rows()

    def _sample(self, scores: torch.Tensor, place: int, indices: torch.Tensor | None, ahead: int) -> torch.Tensor:
        """Return one index a sequence, ``[N]``, from penalised scores ``[N, V]``."""
        greedy = scores.argmax(dim=-1)
        broken = ~scores.gather(1, greedy[:, None]).squeeze(1).isfinite()  # argmax finds NaN before any number
        if indices is None:
            self.broken |= broken
        else:
            self.broken[indices] |= broken
        if self._all_greedy:
            return greedy
        settings = self._table if indices is None else self._table[indices]
        cuts = Cuts(settings[:, 0:1], settings[:, 1:2], settings[:, 2:3], settings[:, 6:7])
        noise = self.noise(place, indices, ahead)
        sampled = draw_from_all(scores, cuts.temperature, noise) if self._any_whole else greedy
        if self._widest is not None:
            widest = min(self._widest, scores.shape[1])
            whole = settings[:, 7] > 0 if self._any_whole else None
            drawn = draw_from_likeliest(scores, cuts, noise, widest, None if whole is None else ~whole)
            sampled = drawn if whole is None else torch.where(whole, sampled, drawn)
        return torch.where(cuts.temperature.squeeze(1) == 0, greedy, sampled)

    def count(self, tokens: torch.Tensor, wrote: torch.Tensor | None = None) -> None:
        """Count output tokens ``[B]`` for the penalties, of the sequences that wrote one, ``[B]``; None: of all."""
        self._biases.count(wrote)
        self._grammars.count(tokens, wrote)
        if self._counts is not None:
            indices = torch.arange(len(self._params), device=self._device)
            self._counts.output[indices, tokens] += 1 if wrote is None else wrote.int()

    def advance(self, counts: Sequence[int] | int = 1) -> None:
        """Go on by one slot, or by ``counts[b]`` slots for sequence ``b``."""
        self._slots += np.asarray(counts, dtype=np.uint64)

    def join(self, other: "Sampler") -> None:
        """Append the sequences of ``other``."""
        if self._counts is not None or other._counts is not None:
            parts = [sampler._counts or sampler._no_counts() for sampler in (self, other)]
            self._counts = _Counts(
                torch.cat([part.output for part in parts]), torch.cat([part.in_prompt for part in parts])
            )
        self._params += other._params
        self._biases.join(other._biases)
        self._grammars.join(other._grammars)
        self.broken = torch.cat([self.broken, other.broken])
        self._slots = np.concatenate([self._slots, other._slots])
        self._collect()

    def keep(self, indices: Sequence[int]) -> None:
        """Make sequence ``i`` what sequence ``indices[i]`` was and forget the others."""
        self._params = [self._params[index] for index in indices]
        self._slots = self._slots[list(indices)]
        self.broken = self.broken[list(indices)]
        self._biases.keep(indices)
        self._grammars.keep(indices)
        if self._counts is not None:
            self._counts = self._counts.of_sequences(torch.tensor(indices, dtype=torch.long, device=self._device))
        self._collect()

    def _no_counts(self) -> "_Counts":
        """Return empty counts for sequences that have no penalties but run beside sequences that have."""
        return _Counts.of_prompts([()] * len(self._params), self._vocabulary, self._device)

    def _collect(self) -> None:
        """Gather the sequences' parameters into tensors; called when sequences change, not every step."""
        params = self._params
        sampled = [p for p in params if p.temperature > 0]
        widths = [
            min(p.top_k or self._vocabulary, self._vocabulary) for p in sampled if not p.keeps_all(self._vocabulary)
        ]
        self._all_greedy = not sampled
        self._any_whole = len(widths) < len(sampled)
        self._logprobs = widest([p.logprobs for p in params])
        self._widest = max(widths, default=None)
        self._repetition = any(p.repetition_penalty != 1.0 for p in params)
        self._frequency = any(p.frequency_penalty for p in params)
        table = [
            (
                p.temperature,
                p.top_p,
                p.top_k or self._vocabulary,
                p.presence_penalty,
                p.frequency_penalty,
                p.repetition_penalty,
                p.min_p,
                p.keeps_all(self._vocabulary),
            )
            for p in params
        ]
        self._table = torch.tensor(table, dtype=torch.float32, device=self._device).reshape(-1, 8)
        self._seeds = np.array([p.seed % 2**64 for p in params], dtype=np.uint64)

    def _penalised(
        self, scores: torch.Tensor, indices: torch.Tensor | None, vocabulary: torch.Tensor | None
    ) -> torch.Tensor:
        if self._counts is None:
            return scores
        counts, settings = self._counts, self._table
        if indices is not None:
            counts, settings = counts.of_sequences(indices), settings[indices]
        if vocabulary is not None:
            counts = counts.of_ids(vocabulary)
        presence, frequency, repetition = settings[:, 3:4], settings[:, 4:5], settings[:, 5:6]
        written = counts.output > 0
        # A filter over the whole vocabulary costs as much as a layer, so those that no sequence asks for are skipped.
        if self._repetition:
            seen = written | counts.in_prompt
            scores = torch.where(seen, torch.where(scores > 0, scores / repetition, scores * repetition), scores)
        scores = scores - presence * written
        return scores - frequency * counts.output if self._frequency else scores

    def noise(self, place: int, indices: torch.Tensor | None = None, ahead: int = 0) -> torch.Tensor:
        """Return the requests' noise in [0, 1), ``[N, 1]``, of a place in a slot; see `keyed_uniform`."""
        seeds, slots = self._seeds, self._slots
        if indices is not None:
            chosen = indices.cpu().numpy()
            seeds, slots = seeds[chosen], slots[chosen]
        noise = keyed_uniform(seeds, slots + np.uint64(ahead), place)
        return torch.from_numpy(noise).to(self._device, torch.float32)[:, None]

    def spread(self, rate: float, steps: Sequence[int] | None = None) -> torch.Tensor:
        """Return how many things each sequence's current step takes if ``rate`` a step are taken on average, ``[B]``.

        Step ``i`` takes ``⌊u + (i+1)·rate⌋ − ⌊u + i·rate⌋``, where ``u`` in [0, 1) is the request's noise. So any ``n``
        steps in a row take ``n·rate``, up to rounding: systematic sampling, which needs no long texts to come close
        to the rate.

        Args:
            rate: taken a step.
            steps: the number of each sequence's step, from 0; None where every step is a slot.
        """
        start = keyed_uniform(self._seeds, np.zeros_like(self._slots), place=2)
        numbers = self._slots.astype(np.float64) if steps is None else np.asarray(steps, dtype=np.float64)
        reached = [np.floor(start + (numbers + more) * rate) for more in (0, 1)]
        return torch.from_numpy((reached[1] - reached[0]).astype(np.int64)).to(self._device)


def keyed_uniform(seeds: np.ndarray, slots: np.ndarray, place: int) -> np.ndarray:
    """Return numbers in [0, 1), float64 with 24 random bits, that depend on (seed, slot, place) alone.

    A counter-based generator: the splitmix64 finaliser over the three keys (Steele, Lea, Flood, 2014).
    24 bits are what a float32 below 1 can hold.
    """
    with np.errstate(over="ignore"):
        state = _mix(seeds + np.uint64(0x9E3779B97F4A7C15))
        state = _mix(state ^ _mix(slots * np.uint64(2) + np.uint64(place) + np.uint64(0x632BE59BD9B4E019)))
    return np.asarray((state >> np.uint64(40)).astype(np.float64) / 2.0**24)


def _mix(value: np.ndarray) -> np.ndarray:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(value ^ (value >> np.uint64(31)))
