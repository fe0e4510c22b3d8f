"""Decoding sequences to a number of tokens with any method, for comparisons between them."""

from collections.abc import Sequence
from typing import Any

from pipo_core.decode.method import Method
from pipo_core.decode.prefill import PrefillSettings
from pipo_core.decode.sampling import SamplingParams

PAD = 0


def decode(
    method: Method[Any], prompts: list[list[int]], tokens: int, sampling: Sequence[SamplingParams]
) -> tuple[list[list[int]], int]:
    """Return the first ``tokens`` tokens of each sequence, and how many steps that took.

    Rows that have enough leave, so the others move about in the buffers.
    """
    state, output = method.prefill(prompts, PrefillSettings(sampling, reserved_positions=1))
    written: list[list[int]] = [[] for _ in prompts]
    running, steps = list(range(len(prompts))), 1
    while True:
        for sequence, new, count in zip(running, output.tokens.tolist(), output.counts.tolist(), strict=True):
            written[sequence] += new[:count]
        stay = [place for place, sequence in enumerate(running) if len(written[sequence]) < tokens]
        if not stay:
            return [sequence[:tokens] for sequence in written], steps
        if len(stay) < len(running):
            running = [running[place] for place in stay]
            state.keep(stay)
        output = method.step(state)
        steps += 1
