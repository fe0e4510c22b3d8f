"""Log-probabilities that servers tell of the tokens of a prompt and of its answer, as ids and never as texts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipo_core.decode.token_scores import TokenScore
from pipo_core.engine.api import Completion, Request
from pipo_core.errors import PipoError, UsageError

Json = Mapping[str, Any]


class StrangeAnswerError(PipoError):
    """A server's answer that does not have the form of its interface."""


def check_scores(request: Request, *, stream: bool) -> None:
    """Refuse log-probabilities where no server tells them in a form that is read.

    Raises:
        UsageError: for streams, and for chats, which servers lay out themselves.
    """
    if request.prompt_scores is not None and (stream or not request.prompt_ids):
        raise UsageError("log-probabilities of servers are read of whole answers to prompts of ids")


def with_scores(request: Request, completion: Completion, scores: Sequence[TokenScore]) -> Completion:
    """Return a completion with the scores of prompt and answer.

    Args:
        request: the request.
        completion: its completion.
        scores: of the tokens from the prompt's second one on.

    Raises:
        StrangeAnswerError: if they are of other tokens than the prompt's, or too few.
    """
    behind, width = len(request.prompt_ids) - 1, request.prompt_scores or 0
    if tuple(score.token for score in scores[:behind]) != request.prompt_ids[1:]:
        raise StrangeAnswerError("the server tells log-probabilities of other tokens than it was given")
    if any(len(score.top) < width for score in scores):
        raise StrangeAnswerError(f"the server tells of fewer than {width} likely tokens")
    cut = [score._replace(top=score.top[:width]) for score in scores]
    return replace(completion, prompt_scores=cut[:behind], scores=cut[behind:])


def _score(token: int, logprob: Any, top: Iterable[tuple[int, Any]]) -> TokenScore:
    """Return a token's score with the likeliest tokens in falling order: some servers add the token itself to them."""
    best = sorted(((number, float(value)) for number, value in top), key=lambda pair: -pair[1])
    return TokenScore(token, float(logprob), tuple(best))


def sglang_scores(meta: Json) -> list[TokenScore]:
    """Return the scores of prompt and answer, from the second token on, of SGLang's entries (logprob, id, …)."""
    tokens = [*meta["input_token_logprobs"], *meta["output_token_logprobs"]][1:]
    tops = [*(meta.get("input_top_logprobs") or ()), *(meta.get("output_top_logprobs") or ())][1:]
    return [
        _score(int(token), logprob, ((int(number), value) for value, number, *_ in top or ()))
        for (logprob, token, *_), top in zip(tokens, tops or [None] * len(tokens), strict=True)
    ]


def openai_scores(told: Json) -> list[TokenScore]:
    """Return the same of a completion's ``logprobs`` whose tokens are told as ids."""
    rows = zip(told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True)
    return [
        _score(_id_of(token), logprob, ((_id_of(name), value) for name, value in (top or {}).items()))
        for token, logprob, top in list(rows)[1:]
    ]


def _id_of(token: str) -> int:
    """Return the id of a token that is told as ``token_id:5``: a text would leave it to a guess."""
    prefix, colon, number = token.partition(":")
    if (prefix, colon) != ("token_id", ":"):
        raise StrangeAnswerError("the server tells tokens by their texts; it does not know return_tokens_as_token_ids")
    return int(number)
