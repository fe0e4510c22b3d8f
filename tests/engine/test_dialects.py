from typing import Any

import pytest

from pipo_core.chat import load_tokenizer
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Request, Slot
from pipo_core.engine.dialects import OpenAIDialect, SGLangDialect
from pipo_core.engine.server_scores import StrangeAnswerError
from pipo_core.errors import UsageError
from pipo_core.recipes.locate import bundled_model
from pipo_core.recipes.methods import Decoding

TOKENIZER = load_tokenizer(bundled_model("tiny-student"))
END = 2


def dialect(tau: float | None = 0.5) -> SGLangDialect:
    decoding = Decoding("regular") if tau is None else Decoding("pipo", tau)
    return SGLangDialect(TOKENIZER, decoding, frozenset({0, END}))


def request(**changes: Any) -> Request:
    values = {"sampling": SamplingParams(seed=2**40 + 3), "max_tokens": 20, **changes}
    return Request("r", (5, 6, 7), **values)


def answer(ids: list[int], reason: str = "stop", **report: Any) -> dict[str, Any]:
    meta = {"finish_reason": {"type": reason}, "prompt_tokens": 3, "pipo": [report] if report else []}
    return {"text": "text", "output_ids": ids, "meta_info": meta}


def test_what_is_asked() -> None:
    path, body = dialect().ask(request(max_slots=4, stop=("x",), record=True), stream=False)
    assert path == "/generate"
    assert body["input_ids"] == [5, 6, 7]
    sampling = body["sampling_params"]
    assert sampling["max_new_tokens"] == 8, "four slots hold no more"
    assert sampling["stop"] == ["x"]
    assert sampling["stop_token_ids"] == [0, END]
    assert sampling["sampling_seed"] == 3
    assert sampling["custom_params"] == {"tau": 0.5, "max_slots": 4, "record_drafts": True, "record_slots": True}
    regular = dialect(None).ask(request(max_slots=4, ignore_end=True), stream=True)[1]
    assert regular["sampling_params"]["max_new_tokens"] == 4
    assert regular["sampling_params"]["ignore_eos"]
    assert "custom_params" not in regular["sampling_params"]


def test_a_chat_is_laid_out_here() -> None:
    asked = Request("r", messages=({"role": "user", "content": "1+1"},), max_tokens=5)
    ids = dialect().ask(asked, stream=False)[1]["input_ids"]
    assert TOKENIZER.decode(ids).startswith("<|im_start|>user\n1+1")


def test_stops_behind_the_thought_are_refused() -> None:
    with pytest.raises(UsageError, match="behind the thought"):
        dialect().ask(request(stop=("x",), stop_behind="</think>"), stream=False)


def scored(top: int = 2, **changes: Any) -> Request:
    return request(sampling=SamplingParams(temperature=0.0, logprobs=top), prompt_scores=top, max_tokens=1, **changes)


def test_scores_are_asked_for_and_read_as_ids() -> None:
    path, body = dialect(None).ask(scored(), stream=False)
    assert (path, body["input_ids"]) == ("/generate", [5, 6, 7])
    assert (body["return_logprob"], body["logprob_start_len"], body["top_logprobs_num"]) == (True, 0, 2)
    meta = {
        "finish_reason": {"type": "length"},
        "prompt_tokens": 3,
        "input_token_logprobs": [[None, 5, "a"], [-1.0, 6, "b"], [-2.0, 7, "c"]],
        "input_top_logprobs": [None, [[-0.5, 8, None], [-1.0, 6, None]], [[-0.1, 9, None], [-0.2, 3, None]]],
        "output_token_logprobs": [[-0.3, 4, "d"]],
        "output_top_logprobs": [[[-0.3, 4, None], [-0.4, 2, None]]],
    }
    found = dialect(None).completion(scored(), {"text": "d", "output_ids": [4], "meta_info": meta})
    assert found.prompt_scores == [(6, -1.0, ((8, -0.5), (6, -1.0))), (7, -2.0, ((9, -0.1), (3, -0.2)))]
    assert found.scores == [(4, -0.3, ((4, -0.3), (2, -0.4)))]

    openai = OpenAIDialect("m")
    path, body = openai.ask(scored(), stream=False)
    assert (path, body["prompt"], body["max_tokens"]) == ("/v1/completions", [5, 6, 7], 1)
    assert (body["echo"], body["logprobs"], body["return_tokens_as_token_ids"]) == (True, 2, True)
    told: dict[str, list[Any]] = {
        "tokens": ["token_id:5", "token_id:6", "token_id:7", "token_id:4"],
        "token_logprobs": [None, -1.0, -2.0, -0.3],
        "top_logprobs": [
            None,
            {"token_id:6": -1.0, "token_id:8": -0.5},
            # The token itself comes besides the likeliest ones, as from vLLM.
            {"token_id:7": -2.0, "token_id:9": -0.1, "token_id:3": -0.2},
            {"token_id:4": -0.3, "token_id:2": -0.4},
        ],
    }
    whole = {
        "choices": [{"text": "abcd", "finish_reason": "length", "logprobs": told}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    }
    again = openai.completion(scored(), whole)
    assert (again.prompt_scores, again.scores) == (found.prompt_scores, found.scores)
    told["tokens"][1] = "token_id:9"
    with pytest.raises(StrangeAnswerError, match="of other tokens than it was given"):
        openai.completion(scored(), whole)
    told["tokens"][1] = "b"
    with pytest.raises(StrangeAnswerError, match="does not know return_tokens_as_token_ids"):
        openai.completion(scored(), whole)
    told["tokens"][1] = "token_id:6"
    with pytest.raises(StrangeAnswerError, match="fewer than 3 likely tokens"):
        openai.completion(scored(3), whole)


def test_scores_that_no_server_tells_are_refused() -> None:
    with pytest.raises(UsageError, match="scores no prompts"):
        dialect().ask(scored(), stream=False)
    with pytest.raises(UsageError, match="of whole answers"):
        dialect(None).ask(scored(), stream=True)
    with pytest.raises(UsageError, match="of prompt and answer together"):
        OpenAIDialect("m").ask(request(prompt_scores=2), stream=False)
    chat = Request("r", messages=({"role": "user", "content": "1"},), max_tokens=1, prompt_scores=0)
    with pytest.raises(UsageError, match="to prompts of ids"):
        OpenAIDialect("m").ask(chat, stream=False)


def test_what_a_pair_answer_says() -> None:
    found = dialect().completion(request(), answer([8, 9, 10, END], slots=3, kept=1, slot_token_counts=[2, 1, 1]))
    assert found.token_ids == [8, 9, 10]
    assert (found.tokens, found.slots, found.kept, found.drafts) == (4, 3, 1, 2)
    assert found.slot_token_counts == [2, 1, 1]
    assert found.finish_reason == "stop"
    ended_by_a_draft = dialect().completion(request(), answer([8, END], slots=1, kept=1, slot_token_counts=[2]))
    assert (ended_by_a_draft.token_ids, ended_by_a_draft.drafts) == ([8], 1)
    by_string = dialect().completion(request(), answer([8, 9, 10], slots=2, kept=1, slot_token_counts=[2, 1]))
    assert (by_string.token_ids, by_string.drafts) == ([8, 9, 10], 2)
    none_kept = dialect(1.0).completion(request(), answer([8], "length", slots=1, kept=0, slot_token_counts=[1]))
    assert none_kept.drafts == 0


def test_what_a_regular_answer_says() -> None:
    found = dialect(None).completion(request(), answer([8, 9], "length"))
    assert (found.token_ids, found.slots, found.kept, found.drafts) == ([8, 9], 2, 0, 0)
    assert found.slot_token_counts == [1, 1]


def test_rejected_drafts_are_in_the_record() -> None:
    report = {"slots": 2, "kept": 1, "slot_token_counts": [1, 2], "drafts": [[30, 0.1], [9, 0.9]]}
    found = dialect().completion(request(record=True), answer([7, 8, 9], "length", **report))
    assert found.record == [Slot(7, 30, False), Slot(8, 9, True)]


@pytest.mark.parametrize(
    ("written", "counts", "last"),
    [
        ([7, END], [1, 1], Slot(END, None, False)),  # the draft behind the end is none of the text's
        ([7, 8, END], [1, 2], Slot(8, END, True)),
    ],
)
def test_the_last_slot_of_a_record_is_the_torch_engine_s(written: list[int], counts: list[int], last: Slot) -> None:
    drafts = [[30, 0.1], [END, 0.9]]
    said = answer(written, slots=2, kept=sum(counts) - 2, slot_token_counts=counts, drafts=drafts)
    found = dialect().completion(request(record=True), said)
    assert found.record == [Slot(7, 30, False), last]


def test_an_abort_is_an_error() -> None:
    found = dialect(None).completion(request(), answer([8], "abort"))
    assert (found.finish_reason, found.error) == ("error", "the server ended the answer by 'abort'")
    never_ran = {"text": "", "meta_info": {"finish_reason": {"type": "abort", "message": "the queue is full"}}}
    found = dialect().completion(request(), never_ran)
    assert (found.finish_reason, found.error) == ("error", "the queue is full")


@pytest.mark.parametrize("bad", [{}, {"output_ids": [1], "text": "", "meta_info": {}}, answer([1]), {"meta_info": 3}])
def test_an_answer_that_lacks_something_is_strange(bad: dict[str, Any]) -> None:
    with pytest.raises(StrangeAnswerError, match="lacks or garbles"):
        dialect().completion(request(), bad)


def test_a_stream_has_the_whole_text_each_time() -> None:
    reader = dialect(None).reader(request())
    assert [reader.add({**answer([8]), "text": text}) for text in ("a", "ab", "abc")] == ["a", "b", "c"]
    assert reader.completion().text == "abc"
