"""One request of a bench: what is asked of any engine, and what must be true of its answer to count.

Engines are asked through the protocol's stream, so a torch engine and a server are measured alike; a server's times
include the way to it. Its prompts are token ids, and it goes on behind the end of a text, so that each trial reads and
writes exactly as many tokens as the recipe says.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pipo_core.bench.arms import OpenArm
from pipo_core.bench.prompts import make_prompt
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Completion, Delta, Request
from pipo_core.errors import PipoError, UsageError
from pipo_core.recipes.common import Sampling


class Lengths(NamedTuple):
    """Tokens of a prompt, and of its answer; PAD is in neither."""

    prompt: int
    new: int


def make_request(arm: OpenArm, name: str, lengths: Lengths, seed: int) -> Request:
    """Return a request whose prompt and noise depend on the seed; with the arm's salt, its beginning on the name."""
    salt = f"{arm.salt}/{name}" if arm.salt else ""
    return Request(
        id=f"{arm.label}/{name}",
        prompt_ids=make_prompt(arm.engine.tokenizer, lengths.prompt, seed, salt),
        sampling=SamplingParams(**Sampling().model_dump(), seed=seed),
        max_tokens=lengths.new,
        ignore_end=True,
        once=True,
    )


def check_lengths(arms: Iterable[OpenArm], asked: Iterable[Lengths]) -> None:
    """Check that requests of these lengths can run, before hours are spent on shorter ones.

    Raises:
        UsageError: naming the arm and the length that can never fit.
    """
    longest = {sum(lengths): lengths for lengths in asked}
    for arm in arms:
        for lengths in longest.values():
            refusal = arm.engine.refusal(make_request(arm, f"{lengths.prompt}+{lengths.new}", lengths, seed=0))
            if refusal is not None:
                raise UsageError(refusal, hint="shorter contexts or prompts, or fewer new tokens")


def stream(arm: OpenArm, requests: Iterable[Request]) -> Iterator[Delta]:
    """Yield the deltas of requests; check each answer.

    Raises:
        PipoError: if a request fails, or its prompt or answer has not the length that was asked for.
    """
    asked = {request.id: request for request in requests}
    for delta in arm.engine.stream(list(asked.values())):
        if delta.completion is not None:
            _check(asked.pop(delta.id), delta.completion)
        yield delta
    if asked:
        raise PipoError(f"{next(iter(asked))}: the engine gave no answer")


def tokens_after_first(completion: Completion) -> int:
    """Return the real tokens that were written after the first step.

    Where an engine does not report its steps, its first one counts as one token, as for all servers without drafts.
    """
    counts = completion.slot_token_counts
    return completion.tokens - (1 if counts is None else counts[0])


def _check(request: Request, completion: Completion) -> None:
    if completion.finish_reason in ("error", "cancelled"):
        raise PipoError(f"{request.id}: {completion.error or completion.finish_reason}")
    if completion.tokens != request.max_tokens:
        raise PipoError(
            f"{request.id}: {completion.tokens} tokens were written, and {request.max_tokens} were asked for",
            hint="a server must know ignore_eos and have the context",
        )
    read = completion.prompt_tokens
    if read is not None and read != len(request.prompt_ids):
        raise PipoError(
            f"{request.id}: {read} tokens were read, and {len(request.prompt_ids)} were sent",
            hint="a server must take prompts as token ids, and add none",
        )
