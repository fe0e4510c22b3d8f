"""Starts SGLang's own server on a checkpoint, waits until it answers, and ends all of its processes.

The server runs under guard (`pipo_core.guard`), so it ends with this process however that ends. What it prints goes
through a thread that keeps the last lines, to explain a crash.
"""

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import IO

import httpx

from pipo_core.errors import MachineError, UsageError
from pipo_core.files import read_object
from pipo_core.guard import guarded
from pipo_core.recipes.methods import PAIRS, PLAIN, Decoding
from pipo_core.sglang import ARCHITECTURE, TESTED_VERSION
from pipo_core.sglang.served import TAU_VARIABLE
from pipo_core.text import one_line

_FATAL = re.compile(r"\[[^\]]*\] (?:Scheduler hit an exception|Received sigquit from a child process)")
"""What SGLang prints when a process has failed and the others may linger; only asked before there are clients."""
_CAUSE = re.compile(r"^(?:[\w.]*(?:Error|Exception)\b.*|  sglang\.srt\..*|  it is version .*|  --[\w-]+ does not .*)$")
_TORCHRUN = re.compile(r"((LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT))$|TORCHELASTIC_")
"""The variables with which torchrun's processes find each other; a server would take them for its own."""
_TAIL_LINES = 60
_NOT_OURS = ("--api-key", "--ssl-keyfile", "--ssl-certfile")
"""Options that would keep pipo from asking the server; a key is a file's."""
_POLL_SECONDS = 0.25
_PROBE_TOKENS = 6


def missing_sglang() -> MachineError | None:
    """Return the error to raise if SGLang cannot be started here; None if it can."""
    hint = f"pip install sglang=={TESTED_VERSION} in an environment of its own; docs/sglang.md says how"
    if importlib.util.find_spec("sglang") is None:
        return MachineError("SGLang is not installed", hint=hint)
    installed = metadata.version("sglang")
    if installed != TESTED_VERSION:
        return MachineError(f"SGLang {installed} is installed, and pairs were tested on {TESTED_VERSION}", hint=hint)
    return None


def serve_command(ckpt: Path, *, host: str, port: int, name: str | None = None, flags: Sequence[str] = ()) -> list[str]:
    """Return the command that starts SGLang's server on a checkpoint.

    Args:
        ckpt: a checkpoint folder.
        host: address to listen on.
        port: to listen on.
        name: of the model, for clients; None for the path.
        flags: further options of SGLang's.
    """
    given = {flag.partition("=")[0] for flag in flags}
    own = {"--model-path": str(ckpt), "--host": host, "--port": str(port)}
    own |= {} if name is None else {"--served-model-name": name}
    taken = sorted(given & {*own, *_NOT_OURS})
    if taken:
        raise UsageError(f"{taken[0]} is given by pipo's own options", hint="leave it out behind --")
    options = [word for option in own.items() for word in option]
    return [sys.executable, "-m", "sglang.launch_server", *options, *flags]


class SGLangServer:
    """A running server of one checkpoint.

    Attributes:
        url: its address, without a path.
    """

    def __init__(
        self,
        ckpt: Path,
        decoding: Decoding,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        name: str | None = None,
        flags: Sequence[str] = (),
        api_key: str | None = None,
        echo: IO[str] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Start the server; `wait` waits until it answers.

        Args:
            ckpt: a checkpoint folder.
            decoding: pair decoding, whose threshold requests take that name none, or regular decoding.
            host: address to listen on.
            port: to listen on; 0 for a free one.
            name: of the model, for clients.
            flags: further options of SGLang's.
            api_key: that clients must send, as `flags` tell the server; None for none.
            echo: where its output goes, too; None for nowhere.
            variables: environment variables to add.

        Raises:
            MachineError: if SGLang is not installed in the tested version, or the port is taken.
            UsageError: if SGLang does not have the method, or a flag is one of pipo's own.
        """
        lack = missing_sglang()
        if lack is not None:
            raise lack
        check_method(ckpt, decoding)
        self.port = _free_port(host, port)
        self.url = f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"
        self._pairs = decoding.spec.reads_pairs
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._client = httpx.Client(base_url=self.url, headers=headers, trust_env=False)  # no proxy stands between
        command = serve_command(ckpt, host=host, port=self.port, name=name, flags=flags)
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._failed = threading.Event()
        self._process = subprocess.Popen(
            guarded(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**_inherited(), **_tau_variable(decoding), **(variables or {})},
            process_group=0,  # a Ctrl-C at the terminal is for this process, which ends the server in order
        )
        self._reader = threading.Thread(target=self._read, args=(echo,), daemon=True)
        self._reader.start()

    def wait(self, *, seconds: float = 1800.0, going_on: Callable[[], None] = lambda: None) -> None:
        """Wait until the server answers a request, and writes pairs if the model does.

        Args:
            seconds: the most to wait.
            going_on: called now and then; what it raises ends the waiting.

        Raises:
            MachineError: if the server ends, does not answer in time, or writes no pairs. It is stopped then.
        """
        deadline = time.monotonic() + seconds
        try:
            while not self._answers():
                going_on()
                if self._process.poll() is not None or self._failed.is_set():
                    raise self._failure("SGLang's server did not start")
                if time.monotonic() > deadline:
                    raise self._failure(f"SGLang's server did not answer within {seconds:.0f} s")
                time.sleep(_POLL_SECONDS)
            if self._pairs:
                self._probe()
        except BaseException:
            self.stop()
            raise

    def run(self) -> None:
        """Wait until the server has ended."""
        while self._process.poll() is None:
            time.sleep(_POLL_SECONDS)

    def explanation(self) -> str:
        """Return why the server failed, from the last lines that it printed."""
        self._reader.join(1)
        lines = list(self._tail)
        causes = [line for line in lines if _CAUSE.match(line)]
        return "\n".join(f"  {one_line(line)}" for line in (causes or lines)[-8:])

    def failure(self) -> MachineError | None:
        """Return the error that the server has ended with; None while it runs."""
        return None if self._process.poll() is None else self._failure("SGLang's server has ended")

    def finish(self, seconds: float) -> bool:
        """Ask the server to finish what it is doing and to end; return whether it did so in time."""
        try:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(seconds)
        except ProcessLookupError:
            return True
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """End the server and everything that it has started."""
        if self._process.stdin is not None:
            self._process.stdin.close()  # the guard sees this and ends the whole group
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(5)
        self._client.close()

    def _read(self, echo: IO[str] | None) -> None:
        for line in self._process.stdout or ():
            self._tail.append(line.rstrip("\n"))
            if _FATAL.match(line):
                self._failed.set()
            try:
                if echo is not None:
                    echo.write(line)
                    echo.flush()
            except (OSError, ValueError):  # nobody reads it any more; the server must not wait for that
                echo = None

    def _answers(self) -> bool:
        try:
            return self._client.get("/health", timeout=5).is_success
        except httpx.HTTPError:
            return False

    def _probe(self) -> None:
        """Ask for a few tokens, every draft kept, and count the slots.

        Raises:
            MachineError: if they are not pairs.
        """
        sampling = {"temperature": 0, "max_new_tokens": _PROBE_TOKENS, "ignore_eos": True, "custom_params": {"tau": 0}}
        body = {"text": "1 + 1 =", "sampling_params": sampling}
        try:
            answer = self._client.post("/generate", json=body, timeout=300).json()
            report = answer["meta_info"]["pipo"][0]
            slots, kept = int(report["slots"]), int(report["kept"])
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            raise self._failure(f"SGLang's server wrote no pairs ({one_line(error)})") from error
        half = _PROBE_TOKENS // 2
        if (slots, kept) != (half, half):
            raise self._failure(f"SGLang's server wrote {_PROBE_TOKENS} tokens in {slots} slots, not {half}")

    def _failure(self, message: str) -> MachineError:
        return MachineError(f"{message}:\n{self.explanation()}")


def check_method(ckpt: Path, decoding: Decoding) -> None:
    """Check that SGLang decodes a checkpoint by a method.

    Raises:
        UsageError: naming what does not fit.
    """
    pairs = _holds_pairs(ckpt)
    if decoding.spec not in (PAIRS, PLAIN):
        raise UsageError(f"SGLang does not have the method {decoding.method}", hint="the torch engine has all methods")
    if pairs != decoding.spec.reads_pairs:
        kind = "a pair model" if pairs else "no pair model"
        raise UsageError(f"{ckpt} holds {kind}, and SGLang decodes a checkpoint by its own method alone")
    for option in decoding.spec.options - {"tau"}:
        if getattr(decoding, option) is not None:
            raise UsageError(f"SGLang does not have {option}", hint="the torch engine has it")


def _holds_pairs(ckpt: Path) -> bool:
    config = read_object(ckpt / "config.json")
    return ARCHITECTURE in (config.get("architectures") or ())


def _inherited() -> dict[str, str]:
    """Return this process's environment without what torchrun tells its processes of each other."""
    return {name: value for name, value in os.environ.items() if not _TORCHRUN.match(name)}


def _tau_variable(decoding: Decoding) -> dict[str, str]:
    return {} if decoding.tau is None else {TAU_VARIABLE: f"{decoding.tau:.12g}"}


def _free_port(host: str, port: int) -> int:
    """Return the port, or a free one for 0.

    Raises:
        MachineError: if it is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family) as found:
            number: int = found.getsockname()[1]
            return number
    except OSError as error:
        raise MachineError(f"{host}:{port}: {error.strerror or error}", hint="choose another --port") from error
