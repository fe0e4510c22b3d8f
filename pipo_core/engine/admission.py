"""Decides which waiting requests start: in their order, as batch size, memory and the prefill chunk allow.

Requests of one prompt that follow each other start together, because the prompt is then read once.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pipo_core.decode.cache import SequenceCache
from pipo_core.decode.method import Method
from pipo_core.engine.api import CapacityError, Request
from pipo_core.engine.memory import MemoryPlan
from pipo_core.errors import UsageError

_SHARE = 4
"""Requests start when a quarter of the batch is free: prefilling one at a time would starve the running ones."""


@dataclass
class _Load:
    """What the memory of sequences depends on, those that run and new ones: kept as each one is added.

    Attributes:
        running: sequences that run.
        longest: positions that the longest sequence may reach.
        new: sequences that are being read or start.
        widest: positions of the longest of their prompts.
        prompts: the different ones.
    """

    running: int
    longest: int
    new: int = 0
    widest: int = 0
    prompts: set[tuple[int, ...]] = field(default_factory=set)

    def add(self, request: Request, positions: int, longest: int) -> None:
        """Add a new sequence, whose prompt fills ``positions`` and which may reach ``longest``."""
        self.new += 1
        self.longest, self.widest = max(self.longest, longest), max(self.widest, positions)
        self.prompts.add(request.prompt_ids)


class Admission:
    """The queue of requests that have not started.

    Args:
        method: the decoding method.
        batch: the most sequences that run together.
        chunk: the most prompt positions that are read at once.
        max_length: the most tokens of prompt and budget together; None for the model's number of positions.
        memory: the memory that sequences may take; None for no limit.
    """

    def __init__(
        self, method: Method[Any], *, batch: int, chunk: int, max_length: int | None, memory: MemoryPlan | None
    ) -> None:
        self.waiting: deque[Request] = deque()
        self._method = method
        self._batch = batch
        self._chunk = chunk
        self._max_length = max_length
        self._made_for = int(method.model.config.max_position_embeddings)
        self._memory = memory
        self._filling = False  # more requests could have started with the last group

    @property
    def max_length(self) -> int:
        """Return the most tokens of prompt and budget together that fit for any request."""
        limit = self._max_length or self._made_for
        if self._memory is None:
            return limit
        block = self._method.block
        return min(limit, self._memory.max_positions // block * block)

    def check(self, request: Request) -> None:
        """Check that a request can run.

        Raises:
            UsageError: if an id is outside the vocabulary, no draft can be kept by a threshold of the request's, or
                the method scores no prompts.
            CapacityError: if prompt and budget can never fit.
        """
        if request.tau is not None and not self._method.takes_tau:
            raise UsageError(f"request {request.id}: the engine makes no drafts that a tau of its own could keep")
        if request.prompt_scores is not None and not self._method.scores_prompts:
            raise UsageError(f"request {request.id}: a pair model reads two tokens at once and scores no prompts")
        vocabulary = self._method.model.config.vocab_size
        if not all(0 <= token < vocabulary for token, _ in request.sampling.logit_bias):
            raise UsageError(f"request {request.id}: a token of logit_bias is outside the vocabulary of {vocabulary}")
        if not all(0 <= token < vocabulary for token in request.prompt_ids):
            raise UsageError(f"request {request.id}: a prompt id is outside the vocabulary of {vocabulary}")
        budget = request.max_positions(self._method.max_step_positions)
        if not self._can_ever_fit(request, budget):
            raise CapacityError(
                f"request {request.id}: a prompt of {len(request.prompt_ids)} tokens and a budget of {budget} "
                f"can never fit; together they may have {self.max_length}",
                hint="a shorter prompt or a smaller budget; engine.max_length and engine.memory_gib set the limit",
            )

    def is_long(self, request: Request) -> bool:
        """Return whether a prompt is read in pieces."""
        return self._positions(request) > self._chunk

    def max_positions(self, request: Request) -> int:
        """Return how many positions prompt and answer can fill in a cache."""
        return self._positions(request) + request.max_positions(self._method.max_step_positions)

    def places_for(self, request: Request) -> int:
        """Return how many requests like this one the memory has room for; the batch size if there is no limit."""
        if self._memory is None:
            return self._batch
        prompt, longest = self._held(self._positions(request)), self._held(self.max_positions(request))
        return self._memory.places(longest=longest, prompt=prompt)

    def take(
        self, running: Sequence[Request], reading: Sequence[Request], cache: SequenceCache | None
    ) -> list[Request]:
        """Remove from the queue the requests that start now, and return them.

        They have one long prompt together, or several short ones, which padded to one length have at most ``chunk``
        positions.

        Args:
            running: requests that have started.
            reading: the requests whose long prompt is being read.
            cache: the running sequences' cache, or the empty buffers of earlier ones.
        """
        free = self._batch - len(running) - len(reading)
        if not self.waiting or not (self._filling or free * _SHARE >= min(self._batch, len(self.waiting))):
            return []
        self._filling = False
        group: list[Request] = []
        prompts: set[tuple[int, ...]] = set()
        widest = 0
        load = _Load(len(running), max(map(self.max_positions, running), default=0))
        for request in reading:  # they have not joined the running ones yet
            load.add(request, self._positions(request), self.max_positions(request))
        for request in islice(self.waiting, free):
            widest = max(widest, self._positions(request))
            prompts.add(request.prompt_ids)
            load.add(request, self._positions(request), self.max_positions(request))
            if len(prompts) > 1 and len(prompts) * widest > self._chunk:
                self._filling = True  # the next group starts as soon as the running sequences have had their step
                break
            if self.is_long(request) and reading:
                break
            if not self._fits(load, cache):
                break
            group.append(request)
        for _ in group:
            self.waiting.popleft()
        return group

    def _positions(self, request: Request) -> int:
        """Return how many positions a prompt fills."""
        return -(-len(request.prompt_ids) // self._method.spec.cache_width)

    def _held(self, positions: int) -> int:
        """Return the positions rounded up to whole blocks, as buffers are allocated."""
        return -(-positions // self._method.block) * self._method.block

    def _can_ever_fit(self, request: Request, budget: int) -> bool:
        prompt = self._positions(request)
        if self._max_length is None and prompt + budget > self._made_for:
            return False
        if self._max_length is not None and len(request.prompt_ids) + budget > self._max_length:
            return False
        longest, block = self._held(prompt + budget), self._held(prompt)
        return self._memory is None or self._memory.fits(
            held=0, sequences=1, longest=longest, new=1, read=1, prompt=block
        )

    def _fits(self, load: _Load, cache: SequenceCache | None) -> bool:
        """Return whether new sequences fit beside the running ones, all of them with their whole budgets."""
        return self._memory is None or self._memory.fits(
            held=0 if cache is None else self._memory.cost.of(cache.max_sequences, cache.capacity),
            sequences=load.running + load.new,
            longest=self._held(load.longest),
            new=load.new,
            read=len(load.prompts),
            prompt=self._held(load.widest),
        )
