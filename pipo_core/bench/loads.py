"""One load: so many requests, whose contexts are so long, decoding together; how fast its steps are.

All requests have the same prompt, so an engine that shares the reading of equal prompts reads it once, and what is
measured is decoding alone: from the moment in which all requests have begun until the first one ends. Each request has
its own seed, caches and text.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from pipo_core.bench.arms import OpenArm
from pipo_core.bench.asked import Lengths, make_request, stream
from pipo_core.errors import PipoError


class LoadTrial(NamedTuple):
    """What one trial of a load measured.

    Attributes:
        tokens_per_second: real tokens of all requests together.
        step_s: seconds of a step, or of the time between two pieces of an answer where an engine reports no steps.
        tokens_per_step: real tokens of a step of one request, or of such a piece.
        cache_bytes: what the sequences' caches took when all had begun; None where the engine does not report it.
    """

    tokens_per_second: float
    step_s: float
    tokens_per_step: float
    cache_bytes: int | None


class _Piece(NamedTuple):
    """Real tokens that arrived at a time, in seconds."""

    at: float
    tokens: int


def run_load(arm: OpenArm, lengths: Lengths, requests: int, number: int) -> LoadTrial:
    """Return the figures of ``requests`` answers to the prompt of round ``number``, written together.

    Args:
        arm: what answers.
        lengths: tokens of the prompt, and of each answer.
        requests: how many.
        number: of the round; it chooses the prompt and the seeds.

    Raises:
        PipoError: if the engine fails, or the requests do not all run at once for some steps.
    """
    name = f"load/{lengths.prompt}/{requests}/{number}"
    like = make_request(arm, name, lengths, seed=number)
    asked = [
        replace(like, id=f"{like.id}/{index}", sampling=replace(like.sampling, seed=1000 * number + index))
        for index in range(requests)
    ]
    pieces: dict[str, list[_Piece]] = defaultdict(list)
    first_end = cache_bytes = None
    for delta in stream(arm, asked):
        now = time.perf_counter()
        pieces[delta.id].append(_Piece(now, sum(token.kind != "rejected" for token in delta.tokens)))
        if len(pieces) == requests and cache_bytes is None:
            cache_bytes = arm.engine.reports.cache_bytes
        if delta.completion is not None and first_end is None:
            first_end = now
    began = max(of_one[0].at for of_one in pieces.values())
    if first_end is None or began >= first_end:
        raise PipoError(
            f"{like.id}: the {requests} requests did not run at once",
            hint="fewer requests, shorter contexts or more memory; or more new_tokens, so that the first to begin "
            "does not end before the last begins",
        )
    return _figures(list(pieces.values()), began, first_end, cache_bytes)


def _figures(pieces: Sequence[Sequence[_Piece]], began: float, first_end: float, cache_bytes: int | None) -> LoadTrial:
    """Return the figures of the window in which all requests run.

    Each request is measured between its own first and last piece in the window, so that it does not matter which of
    the pieces of one step is handed out first.

    Raises:
        PipoError: if a request has fewer than two pieces in the window, or the engine does not tell their tokens.
    """
    if not any(piece.tokens for of_one in pieces for piece in of_one):
        raise PipoError(
            "the server does not tell how many tokens each piece of an answer has",
            hint="the users' table needs the torch engine or SGLang; concurrency measures whole answers of any server",
        )
    windows = [[piece for piece in of_one if began <= piece.at <= first_end] for of_one in pieces]
    if any(len(window) < 2 for window in windows):
        raise PipoError("the requests ran at once for less than two steps", hint="give more new_tokens")
    seconds = [window[-1].at - window[0].at for window in windows]
    tokens = [sum(piece.tokens for piece in window[1:]) for window in windows]
    steps = sum(len(window) - 1 for window in windows)
    return LoadTrial(
        tokens_per_second=sum(written / took for written, took in zip(tokens, seconds, strict=True)),
        step_s=sum(seconds) / steps,
        tokens_per_step=sum(tokens) / steps,
        cache_bytes=cache_bytes,
    )
