"""From a parsed body to the engine's requests."""

import secrets
from collections.abc import Sequence

from pipo_core.decode.grammars import Grammar
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine.api import Request, request_seed
from pipo_core.serve.schemas import BodyError, ChatBody, CompletionBody, Defaults


def to_requests(
    body: ChatBody | CompletionBody,
    prompt_ids: Sequence[int],
    *,
    name: str,
    max_length: int,
    defaults: Defaults,
    stop_behind: str = "",
    grammar: Grammar | None = None,
    default_tau: float | None = None,
) -> list[Request]:
    """Return the ``n`` requests of a body's prompt, called ``name-0``, ``name-1`` and so on.

    Choices differ by their seeds only. A choice's seed depends on the body's seed and on the choice's number.

    Args:
        body: the parsed body; without a budget in it, an answer may fill the rest of the context.
        prompt_ids: the prompt's tokens.
        name: the answer's id.
        max_length: tokens of context, shared by prompt and answer.
        defaults: sampling of a body that does not say.
        stop_behind: the text behind which stop strings count; empty for everywhere.
        grammar: that the answers follow; None for none.
        default_tau: threshold of a body that names none; None for the engine's.

    Raises:
        BodyError: if the prompt is empty, or prompt and budget together exceed ``max_length``.
    """
    budget = body.budget
    param = "messages" if isinstance(body, ChatBody) else "prompt"
    room = max_length - len(prompt_ids)
    if not prompt_ids:
        raise BodyError("the prompt is empty", param=param)
    if room < 1 or (budget or 1) > room:
        fits = (
            f"{body.budget_name} up to {room} would fit" if room >= 1 else f"prompts up to {max_length - 1} tokens fit"
        )
        message = (
            f"the prompt's {len(prompt_ids)} tokens and the budget exceed the {max_length} tokens of context: {fits}"
        )
        raise BodyError(message, param=param if room < 1 else body.budget_name, code="context_length_exceeded")
    seed = secrets.randbits(63) if body.seed is None else body.seed
    echoes = isinstance(body, CompletionBody) and body.echo
    return [
        Request(
            f"{name}-{choice}",
            tuple(prompt_ids),
            SamplingParams(**body.sampling(defaults), seed=request_seed(seed, choice), grammar=grammar),
            max_tokens=room if budget is None else budget,
            stop=tuple(body.stop),
            ignore_end=body.ignore_eos,
            tau=default_tau if body.custom_params.tau is None else body.custom_params.tau,
            stop_behind=stop_behind,
            # Choices share their prompt, so the first one's scores are those of all.
            prompt_scores=body.top_scores if echoes and choice == 0 else None,
        )
        for choice in range(body.n)
    ]
