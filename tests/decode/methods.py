"""Decoding rows to a number of tokens with any method, for comparisons between them."""

from collections.abc import Callable, Sequence
from typing import Any

from pipo_core.decode.rows import Emitted, RowSettings
from pipo_core.decode.sampling import SamplingParams

PAD = 0
Prefill = Callable[[list[list[int]], RowSettings], tuple[Any, Emitted]]
Step = Callable[[Any], Emitted]


def decode(
    prefill: Prefill, step: Step, prompts: list[list[int]], tokens: int, sampling: Sequence[SamplingParams]
) -> tuple[list[list[int]], int]:
    """Return the first ``tokens`` tokens of each row, and how many steps that took.

    Rows that have enough leave, so the others move about in the buffers.
    """
    state, emitted = prefill(prompts, RowSettings(sampling, PAD, room=1))
    written: list[list[int]] = [[] for _ in prompts]
    running, steps = list(range(len(prompts))), 1
    while True:
        for row, new, count in zip(running, emitted.tokens.tolist(), emitted.counts.tolist(), strict=True):
            written[row] += new[:count]
        stay = [place for place, row in enumerate(running) if len(written[row]) < tokens]
        if not stay:
            return [row[:tokens] for row in written], steps
        if len(stay) < len(running):
            running = [running[place] for place in stay]
            state.keep(stay)
        emitted = step(state)
        steps += 1
