"""Servers of a distillation's teacher: they tell the likeliest tokens behind each token of an answer."""

from collections.abc import Sequence
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
from transformers import PreTrainedTokenizerBase

from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine.api import Request
from pipo_core.engine.dialects import OpenAIDialect
from pipo_core.engine.remote import RemoteEngine
from pipo_core.engine.remote_opening import RemoteOpener
from pipo_core.errors import CheckpointError, MachineError, UsageError
from pipo_core.recipes.common import RemoteSettings
from pipo_core.recipes.methods import PLAIN, Decoding
from pipo_core.text import one_line

_COMPARED = 128
"""Ordinary tokens whose texts are compared, spread over the vocabulary; special ones are compared besides."""
_BROKEN = "\N{REPLACEMENT CHARACTER}"


def open_teacher_servers(settings: RemoteSettings, student: Path) -> RemoteEngine:
    """Return an engine that asks servers of the teacher.

    Args:
        settings: where they are.
        student: a checkpoint with the tokenizer that the teacher must have, too.

    Raises:
        MachineError: if no server can be reached.
        UsageError: if the key's variable is not set, or the servers are of different kinds or models.
    """
    return RemoteOpener().open(student, Decoding(PLAIN.name), settings)


def scoring_request(name: str, ids: Sequence[int], top_k: int) -> Request:
    """Return a request for the likeliest tokens behind each of some ids: one token must be written for the last."""
    sampling = SamplingParams(temperature=0.0, logprobs=top_k)
    return Request(name, tuple(ids), sampling, max_tokens=1, prompt_scores=top_k, ignore_end=True)


def check_teacher_servers(settings: RemoteSettings, student: Path, *, top_k: int, longest: int) -> None:
    """Check that servers can teach: they have the student's tokens, tell scores as ids, and read the longest answers.

    Args:
        settings: where they are.
        student: a checkpoint with the student's tokenizer.
        top_k: how many of the likeliest tokens they are to tell.
        longest: tokens of the longest question and answer.

    Raises:
        MachineError: if no server can be reached.
        UsageError: if the servers are of different kinds or models, or refuse what they will be asked.
        CheckpointError: if a server's tokens are not the student's.
    """
    with closing(open_teacher_servers(settings, student)) as engine:
        ids = _compared_ids(engine.tokenizer)[:longest]
        with engine.client() as client:
            for url in engine.urls:
                _compare(engine.tokenizer, ids, _texts(client, url, engine, ids), url)
        whole = Request("longest", tuple(islice(cycle(ids), longest)), SamplingParams(temperature=0.0), max_tokens=1)
        for completion in engine.generate([scoring_request("scores", ids, top_k), whole]):
            if completion.finish_reason == "error":
                what = f"kl.top_k={top_k}" if completion.id == "scores" else f"answers of {longest:,} tokens"
                raise UsageError(
                    f"the teacher's servers cannot be asked for {what}: {completion.error}",
                    hint="a teacher is an uncompressed model: pipo serve --method regular"
                    if completion.id == "scores"
                    else "give fewer rollout.slots, a smaller data.max_prompt, or the servers a longer context",
                )


def _compared_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return ids whose texts tell one tokenizer from another: all special ones, and others from the whole range."""
    added = sorted(tokenizer.added_tokens_decoder)
    ordinary = [token for token in range(len(tokenizer)) if token not in tokenizer.added_tokens_decoder]
    return [*ordinary[:: max(len(ordinary) // _COMPARED, 1)], *added]


def _compare(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], texts: Sequence[str], url: str) -> None:
    """Refuse a server that reads ids as other texts; tokens that are parts of characters are told in several ways.

    Raises:
        CheckpointError: naming the first difference.
    """
    for token, text in zip(ids, texts, strict=True):
        own = tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if _BROKEN not in own and text != own:
            raise CheckpointError(
                f"{url} cannot teach this student: token {token}, {own!r}, is {text!r} there",
                hint="a teacher needs the student's tokenizer",
            )


def _texts(client: httpx.Client, url: str, engine: RemoteEngine, ids: Sequence[int]) -> list[str]:
    """Return the texts that a server reads some ids as.

    Raises:
        UsageError: if it does not tell.
        MachineError: if it does not answer.
    """
    body: dict[str, Any]
    if isinstance(engine.dialect, OpenAIDialect):
        path = "/v1/completions"
        body = {"model": engine.dialect.model, "prompt": list(ids), "max_tokens": 1, "echo": True, "logprobs": 1}
    else:
        path = "/generate"
        body = {"input_ids": list(ids), "sampling_params": {"max_new_tokens": 1}, "return_logprob": True}
        body |= {"logprob_start_len": 0, "return_text_in_logprobs": True}
    try:
        answer = client.post(url + path, json=body)
    except httpx.HTTPError as error:
        raise MachineError(f"{url}: {one_line(str(error)) or type(error).__name__}") from error
    try:
        told = answer.json()
        if isinstance(engine.dialect, OpenAIDialect):
            texts = told["choices"][0]["logprobs"]["tokens"]
        else:
            texts = [entry[2] for entry in told["meta_info"]["input_token_logprobs"]]
        return [str(text) for text in texts[: len(ids)]]
    except (ValueError, LookupError, TypeError) as error:
        raise UsageError(
            f"{url} does not tell the log-probabilities of a prompt: {one_line(answer.text[:300])}",
            hint="a teacher is an uncompressed model: pipo serve --method regular",
        ) from error
