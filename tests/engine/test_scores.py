"""Log-probabilities against the model's own forward pass, whatever else is in the batch."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from pipo_core.decode.sampling import SamplingParams
from pipo_core.decode.token_scores import TokenScore
from pipo_core.engine import Request
from pipo_core.errors import UsageError
from pipo_core.model import Qwen3_5ForCausalPIPO
from tests.engine.asking import ask, by_step, counts, run

PAD = 0


def scored(number: int, top: int | None, **changes: Any) -> Request:
    """Return a request whose sampling is far from the model's own distribution."""
    request = ask(number, length=3 + number, max_tokens=7 + number, **changes)
    sampling = SamplingParams(1.3, 0.9, 20, presence_penalty=0.5, repetition_penalty=1.2, seed=number, logprobs=top)
    return replace(request, sampling=replace(sampling, logit_bias=((5, 1.0),)))


def assert_scores(scores: list[TokenScore], logits: torch.Tensor, tokens: list[int], top: int) -> None:
    """Check the scores of tokens ``[N]`` against the logits of the positions before them, ``[N, V]``."""
    expected = logits.log_softmax(dim=-1)
    assert [score.token for score in scores] == tokens
    for score, row in zip(scores, expected, strict=True):
        assert score.logprob == pytest.approx(float(row[score.token]), abs=2e-4)
        assert len(score.top) == top
        best = row.topk(top).values.tolist()
        assert [value for _, value in score.top] == pytest.approx(best, abs=2e-4)
        assert all(float(row[token]) == pytest.approx(value, abs=2e-4) for token, value in score.top)


@pytest.mark.parametrize("method", ["regular", "eagle", "mtp"])
def test_scores_are_those_of_the_full_pass(engine: Any, random_model: Qwen3_5ForCausalPIPO, method: str) -> None:
    requests = [scored(number, top) for number, top in enumerate((None, 0, 3, 5))]
    done = run(engine(method, batch=3), requests)
    assert done["0"].scores is None
    for request in requests[1:]:
        completion = done[request.id]
        ids = [*request.prompt_ids, *completion.token_ids]
        with torch.no_grad():
            logits = random_model.forward_regular(torch.tensor([ids]))[0, len(request.prompt_ids) - 1 : -1]
        scores = completion.scores or []
        if method == "mtp":  # every second token is the MTP head's
            scores, logits, ids = scores[::2], logits[::2], ids[len(request.prompt_ids) :][::2]
        else:
            ids = ids[len(request.prompt_ids) :]
        assert_scores(scores, logits, ids, request.sampling.logprobs or 0)


@pytest.mark.parametrize("tau", [0.0, 0.5])
def test_each_token_of_a_pair_has_the_score_of_its_head(
    engine: Any, random_model: Qwen3_5ForCausalPIPO, tau: float
) -> None:
    requests = [scored(number, 2, record=True) for number in range(5)]
    for completion in run(engine(tau=tau, batch=3), requests).values():
        prompt = list(requests[int(completion.id)].prompt_ids)
        ids = prompt + [PAD] * (len(prompt) % 2)
        slot, tokens, heads = len(ids) // 2 - 1, [], []
        for written, count in zip(completion.record or [], counts(completion).per_step, strict=True):
            pair = [written.first, PAD if written.draft is None else written.draft]
            tokens += pair[:count]
            heads += [(slot, place) for place in range(count)]
            ids += [written.first, pair[1] if written.kept else PAD]
            slot += 1
        with torch.no_grad():
            full = random_model.forward_pairs(torch.tensor([ids]))
        logits = [(full.mtp_logits if place else full.backbone_logits)[0, slot] for slot, place in heads]
        assert_scores(completion.scores or [], torch.stack(logits), tokens, 2)


def test_deltas_have_the_scores_of_their_tokens_and_the_end(engine: Any) -> None:
    end = run(engine("regular"), [ask(2)])["2"].token_ids[4]
    stepped = engine("regular")
    request = replace(ask(2), sampling=replace(ask(2).sampling, logprobs=1), stop_ids=frozenset({end}))
    stepped.add(request)
    deltas = by_step(stepped)["2"]
    completion = deltas[-1].completion
    assert completion is not None
    told = [score for delta in deltas for score in delta.scores]
    assert told == completion.scores
    assert [score.token for score in told] == [*completion.token_ids, end]


@pytest.mark.parametrize("chunk", [3, 100])
def test_prompts_are_scored_whole_or_in_pieces(engine: Any, random_model: Qwen3_5ForCausalPIPO, chunk: int) -> None:
    requests = [
        ask(number, length=length, max_tokens=2, prompt_scores=top)
        for number, (length, top) in enumerate(((1, 2), (9, 0), (4, None), (14, 4)))
    ]
    done = run(engine("regular", batch=4, prefill_chunk=chunk), requests)
    assert done["0"].prompt_scores == []
    assert done["2"].prompt_scores is None
    for request in (requests[1], requests[3]):
        ids = list(request.prompt_ids)
        with torch.no_grad():
            logits = random_model.forward_regular(torch.tensor([ids]))[0, :-1]
        assert_scores(done[request.id].prompt_scores or [], logits, ids[1:], request.prompt_scores or 0)


def test_a_pair_model_scores_no_prompts(engine: Any) -> None:
    with pytest.raises(UsageError, match="scores no prompts"):
        engine("pipo").add(ask(1, prompt_scores=1))


def test_a_bias_outside_the_vocabulary_is_refused(engine: Any) -> None:
    with pytest.raises(UsageError, match="logit_bias is outside the vocabulary"):
        engine("regular").add(ask(1, sampling=SamplingParams(logit_bias=((10**6, 1.0),))))
