"""Checks methods that claim to be lossless: their greedy answers must be regular decoding's with the same weights.

Passes over one and over several positions add in different orders and round differently, so answers may part where two
tokens are nearly as likely. Such a tie must hide nothing, because behind it the texts differ anyway. So an answer that
parts is read as a prompt by regular decoding, in one pass. Each of its tokens may be less likely than the likeliest one
by rounding alone (`TIE_NATS`).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pipo_core.decode.sampling import SamplingParams
from pipo_core.decode.token_scores import TokenScore
from pipo_core.engine.api import Completion, Engine, Request
from pipo_core.errors import PipoError
from pipo_core.recipes.methods import PLAIN

PROMPTS = 4
"""Prompts that a check takes."""
TOKENS = 48
"""Tokens of an answer; they go on behind the end of a text."""
TIE_NATS = {2: 0.25, 4: 0.001}
"""Differences of log-probabilities, in nats, that count as ties, by the bytes of a weight.

In bf16 neighbouring logits from 16 to 32 are 0.125 apart, and two of them may be off by one such step. The largest
difference seen in bf16 is in docs/benchmarks.md.
"""


def check_lossless(label: str, claimed: Engine, regular: Engine, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Compare greedy answers token by token; return what was found, for `results.json`.

    Args:
        label: of the arm that claims to be lossless.
        claimed: decodes by that arm's method.
        regular: decodes the same weights regularly.
        prompts: ids of some prompts; ones that are too long for an engine are left out.

    Returns:
        ``checked``, counts of ``prompts``, ``equal`` answers and ``tokens``, the ``ties`` at which others part, with
        the largest difference from there on, the bound ``tie_nats``, and all of it in ``words``.

    Raises:
        PipoError: if the method is not lossless, or an engine gives no answer.
    """
    requests = _requests(prompts, min(claimed.max_length, regular.max_length))
    if not requests:
        return not_checked(label, "no prompt fits its engine")
    bound = TIE_NATS[regular.reports.widths.element]
    answers, references = (_answers(label, engine, requests) for engine in (claimed, regular))
    ties = []
    for number, request in enumerate(requests):
        ids, reference = answers[request.id].token_ids, references[request.id].token_ids
        if ids != reference:
            gaps = _gaps(label, regular, request, ids)
            wrong = next((place for place, gap in enumerate(gaps) if not gap <= bound), None)
            if wrong is not None:
                raise PipoError(
                    f"{label} is not lossless: token {wrong + 1} of its greedy answer {number + 1} is "
                    f"{gaps[wrong]:.3g} nats less likely than regular decoding's, and at most {bound:g} is rounding",
                    hint="leave the arm out; if precision fp32 mends it, it is the rounding of long sums",
                )
            place = next(place for place, pair in enumerate(zip(ids, reference, strict=True)) if len(set(pair)) == 2)
            ties.append({"prompt": number, "token": place, "nats": gaps[place], "largest_nats": max(gaps)})
    equal = len(requests) - len(ties)
    return {
        "label": label,
        "checked": True,
        "prompts": len(requests),
        "equal": equal,
        "tokens": max(request.max_tokens or 0 for request in requests),
        "ties": ties,
        "tie_nats": bound,
        "words": f"{label}: {equal} of {len(requests)} greedy answers equal {PLAIN.name} decoding's"
        f"{_tie_words(ties, bound)}.",
    }


def not_checked(label: str, why: str) -> dict[str, Any]:
    """Return what stands in the results of an arm whose claim cannot be checked."""
    return {"label": label, "checked": False, "words": f"{label}: not checked to be lossless, because {why}."}


def _requests(prompts: Sequence[Sequence[int]], max_length: int) -> list[Request]:
    """Return the requests whose answers are compared; one token more must fit when they are scored."""
    room = [min(TOKENS, max_length - len(prompt) - 1) for prompt in prompts]
    return [
        Request(
            f"lossless/{number}",
            tuple(prompt),
            SamplingParams(temperature=0.0),
            max_tokens=tokens,
            ignore_end=True,
        )
        for number, (prompt, tokens) in enumerate(zip(prompts, room, strict=True))
        if tokens > 0
    ]


def _answers(label: str, engine: Engine, requests: Sequence[Request]) -> dict[str, Completion]:
    """Return the completions by the ids of the requests.

    Raises:
        PipoError: if there is none of a request, or one of another length.
    """
    found = {completion.id: completion for completion in engine.generate(requests)}
    for request in requests:
        completion = found.get(request.id)
        if completion is None or len(completion.token_ids) != request.max_tokens:
            why = "no answer" if completion is None else completion.error or "an answer of another length"
            raise PipoError(f"{label} could not be compared with {PLAIN.name} decoding: {why}")
    return found


def _gaps(label: str, regular: Engine, request: Request, ids: Sequence[int]) -> list[float]:
    """Return by how much each token of an answer is less likely than the likeliest one, in nats."""
    scored = replace(request, prompt_ids=(*request.prompt_ids, *ids), prompt_scores=1, max_tokens=1)
    scores: list[TokenScore] = _answers(label, regular, [scored])[request.id].prompt_scores or []
    return [score.top[0][1] - score.logprob for score in scores[-len(ids) :]]


def _tie_words(ties: Sequence[dict[str, Any]], bound: float) -> str:
    if not ties:
        return ""
    places = ", ".join(f"token {tie['token'] + 1} ({tie['nats']:.2g} nats)" for tie in ties)
    return f", {len(ties)} {'parts' if len(ties) == 1 else 'part'} at a tie of up to {bound:g} nats: {places}"
