import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipo_core.chat import load_tokenizer
from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Request
from pipo_core.engine.dialects import OpenAIDialect, SGLangDialect
from pipo_core.engine.opening import open_engine
from pipo_core.engine.remote import RemoteEngine
from pipo_core.engine.remote_opening import open_chat
from pipo_core.errors import MachineError, PipoError, UsageError
from pipo_core.recipes.common import RemoteSettings
from pipo_core.recipes.locate import bundled_model
from pipo_core.recipes.methods import Decoding
from tests.engine.scripted_server import Answer, ScriptedServer, scripted

MODELS: Answer = (200, {"data": [{"id": "m"}]})


def said(text: str, thought: str | None = None, reason: str = "stop") -> Answer:
    message = {"role": "assistant", "content": text, "reasoning_content": thought}
    choice = {"message": message, "finish_reason": reason}
    return 200, {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": len(text)}}


def echo(_: str, body: Mapping[str, Any]) -> Answer:
    return said(f"re {body['messages'][0]['content']}")


def ask(number: int, **changes: Any) -> Request:
    message = {"role": "user", "content": str(number)}
    return Request(
        str(number), **{"messages": (message,), "sampling": SamplingParams(seed=5), "max_tokens": 20, **changes}
    )


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipo_core.engine.fleet._FIRST_PAUSE_S", 0.01)


@pytest.fixture
def servers() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def engine(*running: ScriptedServer, **changes: Any) -> RemoteEngine:
    urls = [server.url for server in running]
    return RemoteEngine(OpenAIDialect("m"), urls, tokenizer=None, max_length=100, **changes)


def texts(found: RemoteEngine, requests: list[Request]) -> dict[str, str]:
    completions = list(found.generate(requests))
    found.close()
    assert len(completions) == len(requests)
    return {completion.id: completion.error or completion.text for completion in completions}


def test_many_requests_at_once_but_no_more_than_asked_for(servers: ExitStack) -> None:
    def slowly(path: str, body: Mapping[str, Any]) -> Answer:
        time.sleep(0.01)
        return echo(path, body)

    server = servers.enter_context(scripted(ScriptedServer(post=slowly)))
    found = texts(engine(server, concurrency=5, api_key="k"), [ask(number) for number in range(40)])
    assert found == {str(number): f"re {number}" for number in range(40)}
    assert 1 < server.most <= 5
    assert server.keys == {"Bearer k"}
    path, body = server.asked[0]
    assert path == "/v1/chat/completions"
    assert {name: body[name] for name in ("model", "max_tokens", "seed", "top_k")} == {
        "model": "m",
        "max_tokens": 20,
        "seed": 5,
        "top_k": -1,
    }


def test_an_answer_is_what_the_server_says_and_no_more(servers: ExitStack) -> None:
    server = servers.enter_context(scripted(ScriptedServer(post=lambda _, __: said("4", "2+2", "length"))))
    [completion] = engine(server).generate([ask(1)])
    assert completion.text == "<think>\n2+2\n</think>\n\n4"
    assert (completion.finish_reason, completion.tokens, completion.prompt_tokens) == ("length", 1, 7)
    assert (completion.slots, completion.drafts, completion.kept, completion.slot_token_counts) == (None,) * 4
    assert completion.time_s > 0


def test_a_server_that_dies_costs_no_answer(servers: ExitStack) -> None:
    dying = servers.enter_context(scripted(ScriptedServer(post=lambda _, __: None)))
    working = servers.enter_context(scripted(ScriptedServer(post=echo)))
    found = texts(engine(dying, working, concurrency=8), [ask(number) for number in range(30)])
    assert found == {str(number): f"re {number}" for number in range(30)}
    assert dying.asked, "the first server was never tried"
    assert len(working.asked) == 30


def test_servers_that_will_never_answer_again_are_not_waited_for(servers: ExitStack) -> None:
    dying = servers.enter_context(scripted(ScriptedServer(post=lambda _, __: None)))
    found = texts(engine(dying, failure=lambda: MachineError("its memory ran out")), [ask(1), ask(2)])
    assert all(error.startswith("its memory ran out: ") for error in found.values())


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_may_pass_is_tried_again(servers: ExitStack, status: int) -> None:
    tries = itertools.count()
    server = ScriptedServer(post=lambda path, body: (status, "busy") if next(tries) < 3 else echo(path, body))
    servers.enter_context(scripted(server))
    assert texts(engine(server), [ask(1)]) == {"1": "re 1"}


def test_what_does_not_pass_ends_only_its_own_request(servers: ExitStack) -> None:
    def picky(path: str, body: Mapping[str, Any]) -> Answer:
        refused = body["messages"][0]["content"] == "2"
        return (400, {"error": {"message": "no twos"}}) if refused else echo(path, body)

    server = servers.enter_context(scripted(ScriptedServer(post=picky)))
    found = texts(engine(server), [ask(number) for number in range(4)])
    assert "status 400" in found["2"]
    assert "no twos" in found["2"]
    assert [found[str(number)] for number in (0, 1, 3)] == ["re 0", "re 1", "re 3"]
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ((200, "not json"), "does not answer with JSON"),
        ((200, [1]), "does not answer with JSON"),
        ((200, {"choices": []}), "lacks or garbles"),
        ((200, {"choices": [{"message": 3, "finish_reason": "stop"}], "usage": None}), "lacks or garbles"),
    ],
)
def test_a_malformed_answer_is_an_error_of_its_request(servers: ExitStack, answer: Answer, complaint: str) -> None:
    server = servers.enter_context(scripted(ScriptedServer(post=lambda _, __: answer)))
    assert complaint in texts(engine(server), [ask(1)])["1"]


def test_patience_ends_and_names_the_last_failure(servers: ExitStack) -> None:
    server = servers.enter_context(scripted(ScriptedServer(post=lambda _, __: None)))
    found = texts(engine(server, patience_s=0.3), [ask(number) for number in range(5)])
    for said_of in found.values():
        assert "no server has answered for 0 s" in said_of
    assert sum("disconnected" in said_of for said_of in found.values()) > 0
    assert len(server.asked) < 10, "while a server rests, one request tries it out"


def test_a_request_that_is_always_refused_is_given_up(servers: ExitStack) -> None:
    def picky(path: str, body: Mapping[str, Any]) -> Answer:
        return (500, "not this one") if body["messages"][0]["content"] == "2" else echo(path, body)

    server = servers.enter_context(scripted(ScriptedServer(post=picky)))
    found = texts(engine(server, concurrency=2), [ask(number) for number in range(6)])
    assert "no answer in 8 tries" in found["2"]
    assert "not this one" in found["2"]
    assert [found[str(number)] for number in (0, 1, 3, 4, 5)] == [f"re {number}" for number in (0, 1, 3, 4, 5)]


def test_a_server_that_comes_back_is_asked_again(servers: ExitStack, caplog: pytest.LogCaptureFixture) -> None:
    """However many requests met it while it was away, that is one failure, and hardly more than one line."""
    tries = itertools.count()
    server = ScriptedServer(post=lambda path, body: None if next(tries) < 5 else echo(path, body))
    servers.enter_context(scripted(server))
    found = texts(engine(server, concurrency=20), [ask(number) for number in range(40)])
    assert found == {str(number): f"re {number}" for number in range(40)}
    assert 1 <= len([line for line in caplog.messages if "it rests" in line]) <= 3


def events(*pieces: str) -> list[Any]:
    found: list[Any] = [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
    return [*found, {"choices": [{"delta": {}, "finish_reason": "stop"}]}]


USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


def test_a_stream_is_handed_out_as_it_comes(servers: ExitStack) -> None:
    said_events = [*events("a", "b"), USAGE, "[DONE]"]
    server = servers.enter_context(scripted(ScriptedServer(post=lambda _, __: (200, said_events))))
    deltas = list(engine(server).stream([ask(1)]))
    assert [delta.text for delta in deltas] == ["a", "b", ""]
    assert "".join(delta.text for delta in deltas) == deltas[-1].completion.text  # type: ignore[union-attr]
    assert deltas[-1].completion is not None
    assert (deltas[-1].completion.text, deltas[-1].completion.tokens) == ("ab", 2)
    assert deltas[-1].completion.finish_reason == "stop"
    assert 0 < deltas[-1].completion.ttft_s <= deltas[-1].completion.time_s


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_a_streamed_thought_stands_where_the_model_wrote_it(servers: ExitStack, name: str) -> None:
    pieces = [{name: "2+"}, {name: "2"}, {"content": "4"}, {"content": "."}]
    said_events = [*({"choices": [{"delta": piece}]} for piece in pieces), events()[0], USAGE, "[DONE]"]
    server = servers.enter_context(scripted(ScriptedServer(post=lambda _, __: (200, said_events))))
    deltas = list(engine(server).stream([ask(1)]))
    assert deltas[-1].completion is not None
    assert deltas[-1].completion.text == "<think>\n2+2\n</think>\n\n4."
    assert "".join(delta.text for delta in deltas) == deltas[-1].completion.text


@pytest.mark.parametrize("bad", [events("a")[:1], [*events("a"), "{"], [*events("a"), {"error": "lost"}]])
def test_a_stream_that_breaks_off_is_no_answer(servers: ExitStack, bad: list[Any]) -> None:
    server = servers.enter_context(scripted(ScriptedServer(post=lambda _, __: (200, bad))))
    *_, last = engine(server).stream([ask(1)])
    assert last.completion is not None
    assert last.completion.finish_reason == "error"
    assert len(server.asked) == 1, "another try would hand out another text"


@pytest.mark.parametrize(
    ("cut", "complaint"),
    [
        (events("a")[:1], "the stream ended before the answer did"),
        ([*events("a"), "[DONE]"], "does not report how many tokens"),
    ],
)
def test_what_a_stream_lacks_is_named(servers: ExitStack, cut: list[Any], complaint: str) -> None:
    server = servers.enter_context(scripted(ScriptedServer(post=lambda _, __: (200, cut))))
    *_, last = engine(server).stream([ask(1)])
    assert last.completion is not None
    assert complaint in str(last.completion.error)


@pytest.mark.parametrize("answer", [None, (503, "busy")])
def test_a_request_that_is_asked_once_is_not_asked_again(servers: ExitStack, answer: Answer) -> None:
    """Nor does the server rest after it: the next request finds it at once."""
    tries = itertools.count()
    server = ScriptedServer(post=lambda path, body: answer if next(tries) == 0 else echo(path, body))
    servers.enter_context(scripted(server))
    found = engine(server)
    [completion] = found.generate([ask(1, once=True)])
    assert completion.finish_reason == "error"
    assert server.url in str(completion.error)
    assert len(server.asked) == 1
    assert [one.text for one in found.generate([ask(2, once=True)])] == ["re 2"]


@pytest.mark.parametrize(("max_tokens", "sent"), [(99, 99), (100, None), (500, None)])
def test_a_budget_of_the_whole_context_is_left_to_the_server(
    servers: ExitStack, max_tokens: int, sent: int | None
) -> None:
    server = servers.enter_context(scripted(ScriptedServer(post=echo)))
    found = RemoteEngine(OpenAIDialect("m", max_length=100), [server.url], tokenizer=None, max_length=100)
    list(found.generate([ask(1, max_tokens=max_tokens)]))
    assert server.asked[0][1].get("max_tokens") == sent


def test_the_first_token_counts_though_it_has_no_text_yet(servers: ExitStack) -> None:
    """A server of SGLang's tells the ids of each step; its own figure of the first one leaves the way to here out."""

    def step(ids: list[int], text: str, reason: dict[str, str] | None = None) -> dict[str, Any]:
        meta = {"finish_reason": reason, "prompt_tokens": 2, "first_token_latency": 77.0}
        return {"text": text, "output_ids": ids, "meta_info": meta}

    said_events = [step([], ""), step([5], ""), step([5, 6], "ab"), step([5, 6], "ab", {"type": "length"}), "[DONE]"]
    server = servers.enter_context(scripted(ScriptedServer(post=lambda _, __: (200, said_events))))
    dialect = SGLangDialect(load_tokenizer(CKPT), Decoding("regular"), frozenset())
    found = RemoteEngine(dialect, [server.url], tokenizer=None, max_length=100)
    deltas = list(found.stream([Request("a", (1, 2), max_tokens=2)]))
    assert [delta.text for delta in deltas] == ["", "ab", ""]
    assert deltas[-1].completion is not None
    assert deltas[-1].completion.token_ids == [5, 6]
    assert 0 < deltas[-1].completion.ttft_s <= deltas[-1].completion.time_s < 77


def test_leaving_early_asks_no_further(servers: ExitStack) -> None:
    free = threading.Event()

    def first_only(path: str, body: Mapping[str, Any]) -> Answer:
        if body["messages"][0]["content"] != "0":
            free.wait(10)
        return echo(path, body)

    server = servers.enter_context(scripted(ScriptedServer(post=first_only)))
    found = engine(server, concurrency=2)
    answers = found.generate([ask(number) for number in range(50)])
    assert next(answers).id == "0"
    began = time.monotonic()
    answers.close()  # type: ignore[attr-defined] # a generator
    assert time.monotonic() - began < 5
    free.set()
    found.close()
    assert len(server.asked) <= 4


def test_a_cancelled_request_ends_at_once_and_may_be_asked_again(servers: ExitStack) -> None:
    free = threading.Event()

    def first_waits(path: str, body: Mapping[str, Any]) -> Answer:
        if body["messages"][0]["content"] == "0":
            free.wait(20)
        return echo(path, body)

    server = servers.enter_context(scripted(ScriptedServer(post=first_waits)))
    found = engine(server)
    found.cancel("0")  # unknown yet: nothing happens
    answers = found.generate([ask(0), ask(1)])
    assert next(answers).id == "1"
    began = time.monotonic()
    found.cancel("0")
    assert next(answers).finish_reason == "cancelled"
    assert time.monotonic() - began < 5
    free.set()
    assert [one.text for one in found.generate([ask(0)])] == ["re 0"]


def test_an_interruption_waits_for_no_server(servers: ExitStack) -> None:
    free = threading.Event()

    def never(path: str, body: Mapping[str, Any]) -> Answer:
        free.wait(60)
        return echo(path, body)

    server = servers.enter_context(scripted(ScriptedServer(post=never)))
    code = (
        "import os, signal, threading\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it\n"
        "from tests.engine.test_remote import OpenAIDialect, RemoteEngine, ask\n"
        f"found = RemoteEngine(OpenAIDialect('m'), [{server.url!r}], tokenizer=None, max_length=9)\n"
        "threading.Timer(1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\n"
        "list(found.generate([ask(1)]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
    free.set()
    assert "KeyboardInterrupt" in done.stderr
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "changes", [{"max_tokens": None, "max_slots": 3}, {"record": True}, {"stop_ids": frozenset({1})}]
)
def test_what_the_interface_lacks_is_refused_before_anything_is_sent(
    servers: ExitStack, changes: dict[str, Any]
) -> None:
    server = servers.enter_context(scripted(ScriptedServer(post=echo)))
    with pytest.raises(UsageError, match="OpenAI's interface"):
        list(engine(server).generate([ask(0), ask(1, **changes)]))
    assert server.asked == []


# ------------------------------------------------------------ opening

CKPT = bundled_model("tiny-student")


def opened(*running: ScriptedServer, **changes: Any) -> Any:
    settings = RemoteSettings(kind="remote", urls=[server.url for server in running], **changes)
    return open_engine(CKPT, Decoding("regular"), settings)


def test_a_server_is_opened_by_what_it_says_it_is(servers: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "secret\n")
    server = servers.enter_context(scripted(ScriptedServer(post=echo, get={"/v1/models": MODELS})))
    found = opened(server, api_key_env="THE_KEY")
    [completion] = found.generate([ask(3)])
    assert completion.text == "re 3"
    assert server.asked[0][1]["model"] == "m"
    assert server.keys == {"Bearer secret"}
    assert found.max_length == 4096
    assert found.tokenizer.pad_token_id == 0


def test_the_address_may_end_as_clients_write_it(servers: ExitStack) -> None:
    server = servers.enter_context(scripted(ScriptedServer(post=echo, get={"/v1/models": MODELS})))
    settings = RemoteSettings(kind="remote", urls=[f"{server.url}/v1/"])
    [completion] = open_engine(CKPT, Decoding("regular"), settings).generate([ask(3)])
    assert completion.text == "re 3"


@pytest.mark.parametrize(
    ("get", "changes", "complaint"),
    [
        ({"/v1/models": (401, {})}, {}, "refuses the API key"),
        ({"/v1/models": (200, "<html>")}, {}, "does not answer like a server of a language model"),
        ({"/v1/models": (200, {"data": [{"id": "a"}, {"id": "b"}]})}, {}, "serves a, b"),
        ({"/v1/models": MODELS}, {"served": "other"}, "serves m"),
        ({"/v1/models": MODELS}, {"api_key_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE holds no API key"),
    ],
)
def test_what_cannot_be_opened_is_named(
    servers: ExitStack, get: dict[str, Answer], changes: dict[str, Any], complaint: str
) -> None:
    server = servers.enter_context(scripted(ScriptedServer(get=get)))
    with pytest.raises(PipoError, match=complaint):
        opened(server, **changes)


def test_servers_of_different_models_are_not_mixed(servers: ExitStack) -> None:
    one = servers.enter_context(scripted(ScriptedServer(get={"/v1/models": MODELS})))
    other = servers.enter_context(scripted(ScriptedServer(get={"/v1/models": (200, {"data": [{"id": "n"}]})})))
    with pytest.raises(UsageError, match="do not serve the same"):
        opened(one, other)


def test_a_server_that_is_away_is_left_out_while_another_answers(
    servers: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    here = servers.enter_context(scripted(ScriptedServer(post=echo, get={"/v1/models": MODELS})))
    [completion] = opened(ScriptedServer(url="http://127.0.0.1:9"), here).generate([ask(3)])
    assert completion.text == "re 3"
    assert "127.0.0.1:9 cannot be reached" in caplog.text


def test_sglang_s_servers_are_told_apart_by_their_models(servers: ExitStack) -> None:
    info: dict[str, Answer] = {"/model_info": (200, {"model_path": "/models/a"})}
    one = servers.enter_context(scripted(ScriptedServer(get=info)))
    other = servers.enter_context(scripted(ScriptedServer(get={"/model_info": (200, {"model_path": "/models/b"})})))
    with pytest.raises(UsageError, match="do not serve the same"):
        opened(one, other)
    assert isinstance(opened(one).dialect, SGLangDialect)


def test_this_machine_s_servers_are_not_asked_through_a_proxy(
    servers: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server = servers.enter_context(scripted(ScriptedServer(post=echo, get={"/v1/models": MODELS})))
    assert [one.text for one in opened(server).generate([ask(3)])] == ["re 3"]


@pytest.mark.parametrize("url", ["http://[::1", "http://h:99999", "http://u:p@h", "http://h?x=1", "ftp://h", "h:8000"])
def test_what_is_no_address_is_refused_in_the_recipe(url: str) -> None:
    with pytest.raises(ValidationError):
        RemoteSettings(kind="remote", urls=[url])


def test_a_chat_is_opened_without_a_checkpoint(servers: ExitStack) -> None:
    models: Answer = (200, {"data": [{"id": "a"}, {"id": "m", "max_model_len": 512}]})
    get: dict[str, Answer] = {"/v1/models": models, "/model_info": (200, {"model_path": "/models/a"})}
    server = servers.enter_context(scripted(ScriptedServer(post=echo, get=get)))
    found = open_chat(RemoteSettings(kind="remote", urls=[f"{server.url}/v1"], served="m"), 0.5)
    assert found.max_length == 512
    assert [one.text for one in found.generate([ask(3)])] == ["re 3"]
    path, body = server.asked[0]
    assert (path, body["model"], body["custom_params"]) == ("/v1/chat/completions", "m", {"tau": 0.5})
    with pytest.raises(UsageError, match="serves a, m"):
        open_chat(RemoteSettings(kind="remote", urls=[server.url]))


def test_nobody_there() -> None:
    with pytest.raises(MachineError, match="cannot be reached"):
        opened(ScriptedServer(url="http://127.0.0.1:9"))


def test_random_weights_are_no_server_s(tmp_path: Path) -> None:
    from pipo_core.engine.opening import Engines

    with pytest.raises(UsageError, match="random weights"):
        Engines().open("qwen3.5-0.8b", Decoding("regular"), RemoteSettings(kind="remote", urls=["http://x"]))
