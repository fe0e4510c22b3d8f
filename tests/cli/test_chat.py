"""`pipo chat --url`: what is shown, what is sent, and that a failure costs one answer only."""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
from typer.testing import CliRunner

from pipo_cli.app import app
from tests.engine.scripted_server import Answer, ScriptedServer, scripted

MODELS: Answer = (200, {"data": [{"id": "m"}]})
USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


def events(*deltas: dict[str, str], reason: str = "stop") -> list[Any]:
    """Return the stream of an answer."""
    pieces = [{"choices": [{"delta": delta}]} for delta in deltas]
    return [*pieces, {"choices": [{"delta": {}, "finish_reason": reason}]}, USAGE, "[DONE]"]


def echo(_: str, body: Mapping[str, Any]) -> Answer:
    return 200, events({"content": "re "}, {"content": body["messages"][-1]["content"]})


@pytest.fixture
def servers() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def serving(servers: ExitStack, post: Any = echo, models: Answer = MODELS) -> ScriptedServer:
    return servers.enter_context(scripted(ScriptedServer(post=post, get={"/v1/models": models})))


def chat(*words: str, said: str = "") -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["chat", *words], input=said)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_the_conversation_is_kept_until_it_is_reset(servers: ExitStack) -> None:
    server = serving(servers)
    words = ["--system", "be kind", "--tau", "0.5", "--temperature", "0", "--seed", "3"]
    code, out, err = chat("--url", server.url, *words, said="one\ntwo\n/reset\nthree\n/quit\nfour\n")
    assert (code, out) == (0, "re one\nre two\nre three\n")
    assert err.count("[stop: 2 tokens, ") == 3
    system = {"role": "system", "content": "be kind"}
    turns = [system, *({"role": role, "content": text} for role, text in (("user", "one"), ("assistant", "re one")))]
    assert [body["messages"] for _, body in server.asked] == [
        [system, {"role": "user", "content": "one"}],
        [*turns, {"role": "user", "content": "two"}],
        [system, {"role": "user", "content": "three"}],
    ]
    first, second = (server.asked[number][1] for number in (0, 1))
    assert (first["model"], first["temperature"], first["custom_params"]) == ("m", 0.0, {"tau": 0.5})
    assert first["seed"] != second["seed"]
    assert "max_tokens" not in first


def test_a_thought_is_shown_apart_and_not_sent_back(servers: ExitStack) -> None:
    thinking = events({"role": "assistant", "content": ""}, {"reasoning_content": "2+2"}, {"content": "4"})
    cut_off = events({"reasoning_content": "so"}, reason="length")
    plain = events({"content": "<"}, {"content": "b> is no thought"})
    answers = iter([thinking, cut_off, plain])
    server = serving(servers, lambda _, __: (200, next(answers)))
    code, out, _ = chat("--url", server.url, "--max-tokens", "7", said="a\nb\nc\n")
    assert (code, out) == (0, "2+2\n\n4\nso\n<b> is no thought\n")
    assert [turn["content"] for turn in server.asked[2][1]["messages"]] == ["a", "4", "b", "", "c"]
    assert server.asked[0][1]["max_tokens"] == 7


def test_drafts_that_a_server_does_not_tell_are_not_marked(servers: ExitStack) -> None:
    server = serving(servers)
    code, out, err = chat("--url", server.url, "--show-drafts", said="one\n")
    assert (code, out) == (0, "re one\n")
    assert f"{server.url} does not tell which tokens are drafts, so none are marked\n" in err
    assert "drafts kept" not in err


@pytest.mark.parametrize(
    ("failing", "complaint"),
    [
        (None, "Server disconnected without sending a response"),
        ((200, events({"content": "half"})[:1]), "the stream ended before the answer did"),
        (
            (200, [*events({"content": "half"})[:1], {"error": "the worker died"}]),
            "the answer broke off: the worker died",
        ),
        ((401, {"error": "the key has been withdrawn"}), "status 401"),
        ((404, {"error": "there is no model 'm'"}), "there is no model 'm'"),
        ((429, {"error": "busy"}), "status 429"),
    ],
)
def test_a_failed_answer_is_one_line_and_the_chat_goes_on(servers: ExitStack, failing: Answer, complaint: str) -> None:
    """The question is forgotten, nothing is asked twice, and scripts learn of it by the exit code."""

    def post(path: str, body: Mapping[str, Any]) -> Answer:
        return failing if body["messages"][-1]["content"] == "two" else echo(path, body)

    server = serving(servers, post)
    code, out, err = chat("--url", server.url, said="one\ntwo\nthree\n")
    assert code == 1
    assert out.startswith("re one\n")
    assert out.endswith("re three\n")
    [line] = [line for line in err.splitlines() if line.startswith("the answer failed: ")]
    assert complaint in line
    assert [turn["content"] for turn in server.asked[-1][1]["messages"]] == ["one", "re one", "three"]
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("models", "words", "code", "complaint"),
    [
        ((401, {}), [], 2, "refuses the API key\n  try: engine.api_key_env or --api-key-env names"),
        (MODELS, ["--api-key-env", "NOT_SET_ANYWHERE"], 2, "NOT_SET_ANYWHERE holds no API key"),
        (MODELS, ["--api-key-env", "a-b"], 2, "--api-key-env: 'a-b' is not the name of a variable"),
        (MODELS, ["--served", "other"], 2, "serves m\n  try: engine.served or --served names the model"),
        ((200, "<html>"), [], 4, "does not answer like a server of a language model"),
        (MODELS, ["--ckpt", "tiny-student"], 2, "--ckpt and --url"),
        (MODELS, ["--method", "regular"], 2, "--method and --url"),
        (MODELS, ["--max-length", "9"], 2, "--max-length and --url"),
    ],
)
def test_what_cannot_be_asked_is_told_before_the_first_question(
    servers: ExitStack, models: Answer, words: list[str], code: int, complaint: str
) -> None:
    server = serving(servers, models=models)
    found, out, err = chat("--url", server.url, *words, said="one\n")
    assert (found, out) == (code, "")
    assert complaint in err
    assert server.asked == []


def test_nobody_there_no_address_and_options_of_a_server_without_one() -> None:
    for words, code, complaint in (
        (["--url", "http://127.0.0.1:9"], 4, "127.0.0.1:9 cannot be reached"),
        (["--url", "localhost:8000"], 2, "--url: 'localhost:8000' is not an address such as"),
        (["--served", "m"], 2, "--served is about the server at --url"),
    ):
        found, _, err = chat(*words, said="one\n")
        assert found == code
        assert complaint in err


def test_a_key_is_sent_and_not_shown(servers: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "secret")
    server = serving(servers)
    code, out, err = chat("--url", server.url, "--api-key-env", "THE_KEY", said="one\n")
    assert code == 0
    assert server.keys == {"Bearer secret"}
    assert "secret" not in out + err


def test_ctrl_c_ends_the_answer_and_not_the_chat(servers: ExitStack) -> None:
    """Also if the server has said nothing yet."""
    asked, free = threading.Event(), threading.Event()

    def post(path: str, body: Mapping[str, Any]) -> Answer:
        if body["messages"][-1]["content"] == "slow":
            asked.set()
            free.wait(60)
        return echo(path, body)

    server = serving(servers, post)
    code = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"  # background jobs ignore it
        "from pipo_cli.main import main\nmain()"
    )
    words = [sys.executable, "-c", code, "chat", "--url", server.url]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdin is not None
    process.stdin.write("slow\n")
    assert asked.wait(60)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate("quick\n", timeout=60)
    free.set()
    assert (process.returncode, out.strip()) == (0, "re quick")
    assert re.findall(r"^\[(\w+)", err, re.MULTILINE) == ["cancelled", "stop"]
    assert [turn["content"] for turn in server.asked[1][1]["messages"]] == ["quick"]
