"""The client's side of handing weights over; the servers' side is in `tests/sglang_cpu`."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pipo_core.decode.sampling import SamplingParams
from pipo_core.engine import Request
from pipo_core.engine.remote import RemoteEngine
from pipo_core.engine.remote_opening import SGLangOpener
from pipo_core.engine.student_servers import StudentServers, check_student_servers, open_student_servers
from pipo_core.errors import MachineError, UsageError
from pipo_core.recipes.common import RemoteSettings, SGLangSettings
from pipo_core.recipes.locate import bundled_model
from tests.engine.scripted_server import Answer, ScriptedServer, scripted

CKPT = bundled_model("tiny-student")
INFO: dict[str, Answer] = {"/model_info": (200, {"model_path": "/models/a"})}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def servers_of(*running: ScriptedServer, **changes: Any) -> StudentServers:
    settings = RemoteSettings(kind="remote", urls=[server.url for server in running], patience_s=0.2, **changes)
    return open_student_servers(CKPT, 0.5, settings, dtype="float32")


def loading(answer: Answer) -> ScriptedServer:
    return ScriptedServer(get=INFO, post=lambda _, __: answer)


def test_every_server_loads_the_weights_and_forgets_its_prefixes(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", "k")
    both = [stack.enter_context(scripted(loading((200, {"success": True})))) for _ in range(2)]
    servers_of(*both, api_key_env="THE_KEY").load(tmp_path, "run-7")
    body = {"model_path": str(tmp_path), "weight_version": "run-7", "flush_cache": True}
    assert [server.asked for server in both] == 2 * [[("/update_weights_from_disk", body)]]
    assert both[1].keys == {"Bearer k"}


@pytest.mark.parametrize("answer", [(400, {"success": False, "message": "no such file"}), None])
def test_a_server_that_does_not_load_them_is_named(stack: ExitStack, tmp_path: Path, answer: Answer) -> None:
    good = stack.enter_context(scripted(loading((200, {"success": True}))))
    bad = stack.enter_context(scripted(loading(answer)))
    with pytest.raises(MachineError, match=f"{bad.url} did not load the student's weights") as caught:
        servers_of(good, bad).load(tmp_path, "run-7")
    assert answer is None or "no such file" in caught.value.message
    assert str(tmp_path) in (caught.value.hint or "")


@pytest.mark.parametrize(("version", "reason"), [("run-7", "length"), ("run-6", "error"), ("default", "error")])
def test_answers_of_other_weights_are_errors(stack: ExitStack, version: str, reason: str) -> None:
    report = {"slot_token_counts": [1, 2], "drafts": [[7, 0.1], [9, 0.9]]}
    meta = {"finish_reason": {"type": "length"}, "prompt_tokens": 3, "weight_version": version, "pipo": [report]}
    server = loading((200, {"text": "x", "output_ids": [5, 8, 9], "meta_info": meta}))
    servers = servers_of(stack.enter_context(scripted(server)))
    servers.expect("run-7")
    [answer] = servers.engine.generate([Request("r", (1, 2, 3), SamplingParams(), max_slots=2, record=True)])
    assert answer.finish_reason == reason
    assert (answer.error is not None) == (reason == "error")


def test_other_kinds_of_servers_are_refused(stack: ExitStack) -> None:
    server = stack.enter_context(scripted(ScriptedServer(get={"/v1/models": (200, {"data": [{"id": "m"}]})})))
    with pytest.raises(UsageError, match="is not a server of SGLang's"):
        check_student_servers(RemoteSettings(kind="remote", urls=[server.url]))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--tp-size", "2"], ["--tp-size", "2", "--dtype", "float32"]),
        (["--dtype", "bfloat16"], ["--dtype", "bfloat16"]),
        (["--dtype=bfloat16"], ["--dtype=bfloat16"]),
    ],
)
def test_a_server_computes_in_the_training_s_number_format(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], expected: list[str]
) -> None:
    started: list[list[str]] = []

    def start(_: SGLangOpener, __: Path, ___: object, settings: SGLangSettings) -> RemoteEngine:
        started.append(settings.flags)
        raise MachineError("no memory")

    monkeypatch.setattr(SGLangOpener, "check", lambda *_: None)
    monkeypatch.setattr(SGLangOpener, "open", start)
    with pytest.raises(MachineError, match="no memory"):
        open_student_servers(CKPT, 0.5, SGLangSettings(kind="sglang", flags=flags), dtype="float32")
    assert started == [expected]
