"""Claims of losslessness: kept by eagle, broken by mtp and by an engine that lies, excused where tokens tie."""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from pipo_core.decode.registry import open_method
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Completion, Reports, Request
from pipo_core.engine.lossless import TIE_NATS, TOKENS, check_lossless, not_checked
from pipo_core.engine.torch_engine import TorchEngine
from pipo_core.errors import PipoError
from pipo_core.model import Qwen3_5ForCausalPIPO
from tests.canned_engine import CannedEngine

PROMPTS = [[(7 * number + 13 * place) % 60 + 3 for place in range(5 + number)] for number in range(4)]
TWIN = {5: 6, 7: 8}


@pytest.fixture
def twins(random_model: Qwen3_5ForCausalPIPO) -> Qwen3_5ForCausalPIPO:
    """A model that writes 5 and 7 alone, and cannot tell either from its twin."""
    model: Qwen3_5ForCausalPIPO = Qwen3_5ForCausalPIPO(random_model.config).eval()
    model.load_state_dict(random_model.state_dict())
    embedding: torch.Tensor = model.text_model.embed_tokens.weight
    with torch.no_grad():
        head = torch.zeros_like(model.lm_head.weight)
        head[5], head[7] = embedding[0], -embedding[0]
        for token, twin in TWIN.items():
            head[twin] = head[token]
            embedding[twin] = embedding[token]
    model.lm_head.weight = torch.nn.Parameter(head)  # its own from here on
    return model


class Retold(CannedEngine):
    """An engine's answers with some tokens replaced, by number of the answer and place."""

    def __init__(self, engine: TorchEngine, changes: dict[int, dict[int, int]]) -> None:
        self._engine, self._changes = engine, changes
        self.reports: Reports = engine.reports
        self.max_length = engine.max_length

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for completion in self._engine.generate(requests):
            for place, token in self._changes.get(int(completion.id.split("/")[1]), {}).items():
                completion.token_ids[place] = token
            yield completion


def answer(engine: TorchEngine, prompt: list[int]) -> list[int]:
    greedy = SamplingParams(temperature=0.0)
    (completion,) = engine.generate([Request("0", tuple(prompt), greedy, max_tokens=TOKENS, ignore_end=True)])
    return completion.token_ids


def test_eagle_is_what_it_claims_to_be(engine: Any) -> None:
    found = check_lossless("eagle", engine("eagle"), engine("regular"), PROMPTS)
    assert {key: found[key] for key in ("label", "checked", "prompts", "equal", "tokens", "ties")} == {
        "label": "eagle",
        "checked": True,
        "prompts": 4,
        "equal": 4,
        "tokens": TOKENS,
        "ties": [],
    }
    assert found["words"] == "eagle: 4 of 4 greedy answers equal regular decoding's."


def test_unverified_drafts_are_found(engine: Any) -> None:
    with pytest.raises(PipoError, match=r"^mtp is not lossless: token \d+ of its greedy answer \d is .* nats less"):
        check_lossless("mtp", engine("mtp"), engine("regular"), PROMPTS)


def test_one_other_token_is_found_and_its_distance_named(engine: Any, random_model: Qwen3_5ForCausalPIPO) -> None:
    regular = engine("regular")
    ids = [*PROMPTS[2], *answer(regular, PROMPTS[2])[:17]]
    with torch.no_grad():
        logprobs = random_model.forward_regular(torch.tensor([ids]))[0, -1].log_softmax(-1)
    order = logprobs.argsort(descending=True)
    gap = float(logprobs[order[0]] - logprobs[order[3]])
    liar: Any = Retold(regular, {2: {17: int(order[3])}})
    with pytest.raises(PipoError, match=rf"token 18 of its greedy answer 3 is {gap:.3g} nats less likely"):
        check_lossless("liar", liar, regular, PROMPTS)


def test_a_tie_is_no_lie_and_hides_none_behind_it(
    twins: Qwen3_5ForCausalPIPO, tokenizer: PreTrainedTokenizerFast
) -> None:
    regular = TorchEngine(open_method("regular", twins, int(tokenizer.pad_token_id)), tokenizer, batch=4)
    truth = [answer(regular, prompt) for prompt in PROMPTS]
    assert {token for ids in truth for token in ids} == {5, 7}
    changes = {1: (9,), 3: (0, 4)}
    swapped = {number: {place: TWIN[truth[number][place]] for place in places} for number, places in changes.items()}
    tied: Any = Retold(regular, swapped)
    found = check_lossless("tied", tied, regular, PROMPTS)
    assert [(tie["prompt"], tie["token"]) for tie in found["ties"]] == [(1, 9), (3, 0)]
    assert all(0 <= tie["nats"] <= TIE_NATS[4] for tie in found["ties"])
    assert found["equal"] == 2
    assert "tied: 2 of 4 greedy answers equal regular decoding's, 2 part at a tie of up to 0.001" in found["words"]
    assert "token 10 (0 nats), token 1 (0 nats)" in found["words"]
    swapped[1][20] = 7 if truth[1][20] == 5 else 5
    liar: Any = Retold(regular, swapped)
    with pytest.raises(PipoError, match="token 21 of its greedy answer 2 is"):
        check_lossless("liar", liar, regular, PROMPTS)


def test_prompts_that_leave_no_room_are_left_out(engine: Any) -> None:
    found = check_lossless("eagle", engine("eagle", max_length=12), engine("regular", max_length=12), PROMPTS)
    assert (found["prompts"], found["tokens"]) == (4, 6)
    found = check_lossless("eagle", engine("eagle", max_length=7), engine("regular", max_length=7), PROMPTS)
    assert (found["prompts"], found["tokens"]) == (1, 1)
    none = check_lossless("eagle", engine("eagle", max_length=4), engine("regular", max_length=4), PROMPTS)
    assert none == not_checked("eagle", "no prompt fits its engine")
    assert none["words"] == "eagle: not checked to be lossless, because no prompt fits its engine."


def test_an_engine_without_an_answer_is_an_error(engine: Any) -> None:
    class Silent(Retold):
        def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
            for request in requests:
                yield Completion(request.id, finish_reason="error", error="out of order")

    silent: Any = Silent(engine("regular"), {})
    with pytest.raises(PipoError, match="eagle could not be compared with regular decoding: out of order"):
        check_lossless("eagle", silent, engine("regular"), PROMPTS)
