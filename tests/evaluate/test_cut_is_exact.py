"""Two budgets may be scored from one generation only if a smaller limit gives the same beginning."""

from dataclasses import replace

import pytest

from pipo_core.data.tiny.tokenizer import train_tokenizer
from pipo_core.decode.registry import open_method
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Request
from pipo_core.engine.torch_engine import TorchEngine
from pipo_core.evaluate.scores import ScoredAnswer, cut
from pipo_core.model import Qwen3_5ForCausalPIPO


@pytest.mark.parametrize(("method", "tau"), [("regular", None), ("pipo", 0.0), ("pipo", 0.4)])
@pytest.mark.parametrize(("unit", "limit"), [("tokens", 9), ("slots", 7)])
def test_a_cut_answer_is_the_one_of_the_smaller_limit(
    reference: Qwen3_5ForCausalPIPO, method: str, tau: float | None, unit: str, limit: int
) -> None:
    engine = TorchEngine(open_method(method, reference, 0, tau=tau), train_tokenizer(), batch=8)
    requests = [
        Request(
            id=str(number),
            prompt_ids=tuple(range(5, 12 + number)),
            sampling=SamplingParams(seed=number, top_p=0.95, top_k=20, presence_penalty=1.5),
            max_tokens=30,
            max_slots=15,
            stop_ids=frozenset(range(50)),  # about one token in eight ends an answer
        )
        for number in range(12)
    ]
    long = {completion.id: completion for completion in engine.generate(requests)}
    small = [
        replace(
            request,
            max_tokens=limit if unit == "tokens" else None,
            max_slots=limit if unit == "slots" else None,
        )
        for request in requests
    ]
    ends = set()
    for short in engine.generate(small):
        whole = long[short.id]
        assert short.slot_token_counts is not None
        row = {
            "problem": "a",
            "sample": 0,
            "slot_token_counts": whole.slot_token_counts,
            "finish_reason": whole.finish_reason,
            "drafts": whole.drafts,
            "correct": True,
        }
        result = cut(ScoredAnswer.of(row), "tokens" if unit == "tokens" else "slots", limit)
        assert whole.token_ids[: len(short.token_ids)] == short.token_ids
        assert (result.tokens, result.slots) == (sum(short.slot_token_counts), short.slots)
        assert (result.drafts, result.kept) == (short.drafts, short.kept)
        assert result.finished == (short.finish_reason == "stop")
        ends.add(result.finished)
    assert ends == {True, False}  # the case has answers on both sides of the limit
