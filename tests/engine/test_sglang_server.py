"""The supervision of a server of SGLang's, with a script in its place; the real one is in `tests/sglang_cpu`."""

import io
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from pipo_core.engine import sglang_server
from pipo_core.engine.remote_opening import SGLangOpener
from pipo_core.engine.sglang_server import SGLangServer, check_method, serve_command
from pipo_core.errors import MachineError, UsageError
from pipo_core.guard import guarded
from pipo_core.recipes.common import SGLangSettings
from pipo_core.recipes.locate import bundled_model
from pipo_core.recipes.methods import Decoding

PLAIN = bundled_model("tiny-student")
ANSWERING = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
report = json.loads(sys.argv[2])
class Handler(BaseHTTPRequestHandler):
    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        said = json.dumps({"meta_info": {"pipo": [report]}}).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(said))); self.end_headers()
        self.wfile.write(said)
    do_GET = do_POST = answer
    def log_message(self, *a): pass
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    folder = shutil.copytree(PLAIN, tmp_path / "pairs")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace("Qwen3_5ForCausalLM", "Qwen3_5ForCausalPIPO"))
    return folder


def start(
    monkeypatch: pytest.MonkeyPatch, script: str, ckpt: Path = PLAIN, *words: str, **changes: Any
) -> SGLangServer:
    """Start a script in SGLang's place; it gets the port and the further words."""

    def command(_: Path, *, port: int, **__: Any) -> list[str]:
        return [sys.executable, "-c", textwrap.dedent(script), str(port), *words]

    monkeypatch.setattr(sglang_server, "serve_command", command)
    monkeypatch.setattr(sglang_server, "missing_sglang", lambda: None)
    return SGLangServer(ckpt, Decoding("regular" if ckpt == PLAIN else "pipo"), **changes)


def test_a_server_is_ready_when_it_answers_and_gone_when_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    server = start(monkeypatch, ANSWERING, PLAIN, "{}")
    server.wait(seconds=30)
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=5)


def test_a_server_that_ends_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    server = start(monkeypatch, ANSWERING, PLAIN, "{}")
    server.wait(seconds=30)
    assert server.failure() is None
    mine = [one for one in psutil.Process().children(recursive=True) if str(server.port) in one.cmdline()]
    [answering] = [one for one in mine if "pipo_core.guard" not in one.cmdline()]
    answering.kill()
    server.run()
    failure = server.failure()
    assert failure is not None
    assert failure.message.startswith("SGLang's server has ended")
    server.stop()


def test_a_server_is_told_nothing_of_the_processes_that_train(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
    for name in (*given, "TORCHELASTIC_RUN_ID", "PIPO_TEST_RANK"):
        monkeypatch.setenv(name, "1")
    marks = ("RANK", "WORLD", "MASTER", "TORCHELASTIC")
    told = f"[name for name in os.environ if any(mark in name for mark in {marks})]"
    server = start(monkeypatch, f"import os; raise RuntimeError({told})")
    with pytest.raises(MachineError) as caught:
        server.wait(seconds=30)
    assert caught.value.message.endswith("RuntimeError: ['PIPO_TEST_RANK']")


def test_a_pair_model_must_write_pairs(monkeypatch: pytest.MonkeyPatch, pairs: Path) -> None:
    server = start(monkeypatch, ANSWERING, pairs, '{"slots": 3, "kept": 3}')
    server.wait(seconds=30)
    server.stop()
    server = start(monkeypatch, ANSWERING, pairs, '{"slots": 6, "kept": 0}')
    with pytest.raises(MachineError, match="6 tokens in 6 slots, not 3"):
        server.wait(seconds=30)
    server = start(monkeypatch, ANSWERING, pairs, "{}")
    with pytest.raises(MachineError, match="wrote no pairs"):
        server.wait(seconds=30)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("print('loading'); raise SystemExit('no memory left')", "no memory left"),
        ("raise RuntimeError('a kernel is missing')", "RuntimeError: a kernel is missing"),
        (
            """
            import time
            print('[2026-01-01 12:00:00] Scheduler hit an exception: Traceback', flush=True)
            print('pipo_core.errors.MachineError: this SGLang cannot serve PIPO models:', flush=True)
            print('  it is version 9, and the tested one is 1', flush=True)
            time.sleep(100)
            """,
            "it is version 9",
        ),
    ],
)
def test_a_server_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, script: str, said: str) -> None:
    """Also one whose launcher lingers after its scheduler has ended."""
    server = start(monkeypatch, script)
    with pytest.raises(MachineError, match="did not start") as caught:
        server.wait(seconds=30)
    assert said in caught.value.message
    assert server._process.poll() is not None


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    server = start(monkeypatch, "import time; print('still loading', flush=True); time.sleep(100)")
    with pytest.raises(MachineError, match=r"did not answer within 1 s(.|\n)*still loading"):
        server.wait(seconds=1)


def test_an_interruption_while_it_starts_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    server = start(monkeypatch, "import time; time.sleep(100)")

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        server.wait(seconds=30, going_on=interrupt)
    assert server._process.poll() is not None


def test_a_taken_port_is_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(MachineError, match="in use"):
        start(monkeypatch, "", port=taken.getsockname()[1])


def test_the_output_is_handed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        server = start(monkeypatch, "print('hello')", echo=log)
        server.run()
        server.stop()
    assert (tmp_path / "log").read_text() == "hello\n"


def test_a_reader_that_is_gone_does_not_hold_the_server_up(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = io.StringIO()
    gone.close()
    server = start(monkeypatch, "for _ in range(4000): print('x' * 100)", echo=gone)
    server.run()
    server.stop()


def test_what_clients_send_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """SGLang prints parts of requests."""
    server = start(
        monkeypatch, "import time; print('Error: [x] Scheduler hit an exception', flush=True); time.sleep(1)"
    )
    server.run()
    server.stop()
    assert not server._failed.is_set()


def test_a_crash_later_ends_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    server = start(monkeypatch, "print('ValueError: out of pages', flush=True); raise SystemExit(3)")
    server.run()
    assert "out of pages" in server.explanation()
    server.stop()


# ------------------------------------------------------------ commands and methods


def test_the_command_is_sglang_s() -> None:
    command = serve_command(PLAIN, host="127.0.0.1", port=8000, name="m", flags=["--tp-size", "2"])
    assert command[1:] == [
        *("-m", "sglang.launch_server", "--model-path", str(PLAIN), "--host", "127.0.0.1", "--port", "8000"),
        *("--served-model-name", "m", "--tp-size", "2"),
    ]


@pytest.mark.parametrize("flag", ["--port", "--host=0.0.0.0", "--model-path", "--api-key", "--ssl-keyfile"])
def test_a_flag_that_pipo_gives_is_refused(flag: str) -> None:
    with pytest.raises(UsageError, match="pipo's own options"):
        serve_command(PLAIN, host="127.0.0.1", port=8000, flags=[flag, "9"])


def test_sglang_decodes_a_checkpoint_by_its_own_method(pairs: Path) -> None:
    check_method(PLAIN, Decoding("regular"))
    check_method(pairs, Decoding("pipo", 0.8))
    for ckpt, decoding, complaint in (
        (PLAIN, Decoding("eagle"), "does not have the method eagle"),
        (PLAIN, Decoding("pipo"), "holds no pair model"),
        (pairs, Decoding("regular"), "holds a pair model"),
        (pairs, Decoding("pipo", acceptance=0.5), "does not have acceptance"),
        (pairs, Decoding("pipo", draft_vocab=9), "does not have draft_vocab"),
    ):
        with pytest.raises(UsageError, match=complaint):
            check_method(ckpt, decoding)


def test_another_version_or_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipo_core.engine.sglang_server.importlib.util.find_spec", lambda _: None)
    lack = sglang_server.missing_sglang()
    assert lack is not None
    assert "not installed" in lack.message
    monkeypatch.setattr("pipo_core.engine.sglang_server.importlib.util.find_spec", lambda _: object())
    monkeypatch.setattr("pipo_core.engine.sglang_server.metadata.version", lambda _: "0.4.0")
    lack = sglang_server.missing_sglang()
    assert lack is not None
    assert "SGLang 0.4.0 is installed" in lack.message
    assert "pip install sglang==" in (lack.hint or "")


# ------------------------------------------------------------ the guard

GUARDED = """
import subprocess, sys, time
from pipo_core.guard import guarded
inner = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)']); {}"
child = subprocess.Popen(guarded([sys.executable, "-c", inner.format(sys.argv[1])]), stdin=subprocess.PIPE)
print(child.pid, flush=True)
time.sleep(100)
"""


@pytest.mark.parametrize(
    "inner",
    ["time.sleep(100)", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(100)"],
    ids=["polite", "deaf"],
)
def test_whatever_was_started_ends_with_its_starter(monkeypatch: pytest.MonkeyPatch, inner: str) -> None:
    """The starter is killed so that it can do nothing; the guard is told by the kernel."""
    starter = subprocess.Popen([sys.executable, "-c", GUARDED, inner], stdout=subprocess.PIPE)
    assert starter.stdout is not None
    guard = psutil.Process(int(starter.stdout.readline()))
    deadline = time.monotonic() + 20
    while len(family := [guard, *guard.children(recursive=True)]) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)  # until the command has said which signals it ignores
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has ended")
def test_a_command_ends_with_its_guard() -> None:
    guard = subprocess.Popen(guarded([sys.executable, "-c", "import time; time.sleep(100)"]), stdin=subprocess.PIPE)
    deadline = time.monotonic() + 20
    while not (family := psutil.Process(guard.pid).children()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)  # until it runs what it was told to
    guard.kill()
    guard.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []


def test_engines_that_differ_in_the_threshold_share_a_server(monkeypatch: pytest.MonkeyPatch, pairs: Path) -> None:
    """The last of them that is closed ends it."""

    def command(_: Path, *, port: int, **__: Any) -> list[str]:
        return [sys.executable, "-c", ANSWERING, str(port), '{"slots": 3, "kept": 3}']

    monkeypatch.setattr(sglang_server, "serve_command", command)
    monkeypatch.setattr(sglang_server, "missing_sglang", lambda: None)
    opener, settings = SGLangOpener(), SGLangSettings(kind="sglang")
    one, other = (opener.open(pairs, Decoding("pipo", tau), settings) for tau in (0.5, 0.9))
    [running] = opener._running.values()
    with pytest.raises(UsageError, match="does not have draft_vocab"):
        opener.open(pairs, Decoding("pipo", 0.9, draft_vocab=5), settings)
    one.close()
    assert httpx.get(f"{running.server.url}/health").status_code == 200
    other.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{running.server.url}/health")
    assert opener._running == {}
