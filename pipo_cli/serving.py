"""What `pipo serve` does once its options are read: with the torch engine's server, or with SGLang's."""

import importlib.util
import json
import os
import shlex
import signal
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pipo_cli.reporter import open_reporter
from pipo_core.errors import MachineError, PipoError, UsageError
from pipo_core.recipes.methods import DEFAULT_TAU, METHODS, Decoding

if TYPE_CHECKING:
    from pipo_core.serve.gate import LoadGate

_BATCH = 32
_MAX_REQUESTS = 256
_QUESTION = '{"role": "user", "content": "What is 11+6+2-4?"}'


@dataclass(frozen=True)
class Serving:
    """What is served, and how.

    Attributes:
        model: the checkpoint's folder.
        name: of the model, for clients.
        decoding: method and threshold; no threshold for the default.
        host: address to listen on.
        port: to listen on; 0 for a free one.
        key: that clients must send; None for none.
        batch: most sequences that run at once; None for the engine's own limit.
        max_requests: answers in progress or waiting; None for the engine's own limit.
        max_length: most tokens of prompt and answer; None for the most that fit.
        device: as the user named it.
        precision: number format of the weights.
        thoughts_apart: whether a chat's thought has a field of its own.
        drain_seconds: how long accepted requests may take after the stop.
        origins: of web pages that may use the server.
        log_level: how much it writes to standard error.
        flags: further options of SGLang's server.
        profile: the file that the gate is made from; None for none.
        gate: chooses the threshold of requests that name none, by the load; None for one threshold at all loads.
        threads: of the CPU; None for torch's choice.
        from_profile: the settings of the engine that are the profile's, in words; None for none.
    """

    model: Path
    name: str
    decoding: Decoding
    host: str
    port: int
    key: str | None
    batch: int | None
    max_requests: int | None
    max_length: int | None
    device: str
    precision: str
    thoughts_apart: bool
    drain_seconds: int
    origins: frozenset[str] = frozenset()
    log_level: str = "info"
    flags: tuple[str, ...] = ()
    profile: Path | None = None
    gate: "LoadGate | None" = None
    threads: int | None = None
    from_profile: str | None = None

    def plan(self, engine: str) -> dict[str, Any]:
        """Return what is shown before the start."""
        return {
            **{"model": str(self.model), "name": self.name, "engine": engine},
            **{"method": self.decoding.method, "tau": self._tau if self.gate is None else self.gate.words()},
            **({} if self.profile is None else {"profile": str(self.profile)}),
            **({} if self.from_profile is None else {"as the profile was measured": self.from_profile}),
            **({} if self.decoding.draft_vocab is None else {"draft vocabulary": self.decoding.draft_vocab}),
            **{"address": f"http://{self.host}:{self.port}/v1", "api key": self.key is not None},
        }

    @property
    def _tau(self) -> float | None:
        """The threshold of requests that name none; None for methods without one."""
        has_one = "tau" in METHODS[self.decoding.method].options
        return DEFAULT_TAU if has_one and self.decoding.tau is None else self.decoding.tau


def has_sglang() -> bool:
    """Return whether SGLang is installed beside a GPU: then its server is what one wants."""
    if importlib.util.find_spec("sglang") is None:
        return False
    import torch

    return torch.cuda.is_available()


# ------------------------------------------------------------ the torch engine


def serve_torch(serving: Serving, show: Any, *, quiet: bool) -> None:
    """Serve with the torch engine until the user stops it.

    Args:
        serving: what is served.
        show: shows a plan.
        quiet: whether no example is printed.

    Raises:
        PipoError: if the server cannot start, or answers were cut off at its end.
    """
    reporter = open_reporter()
    with reporter.waiting("starting"):
        from pipo_cli.commands.serve import torch_settings
        from pipo_core.engine.live import LiveEngine
        from pipo_core.engine.torch_opening import TorchOpener
        from pipo_core.serve.run import is_loopback, listen, local_names, serve, url
        from pipo_core.serve.service import Service, read_defaults
        from pipo_core.serve.tracing import log_requests

    settings = torch_settings(
        batch=serving.batch or _BATCH,
        device=serving.device,
        precision=serving.precision,
        threads=serving.threads,
        max_length=serving.max_length,
    )
    listening = listen(serving.host, serving.port, has_key=serving.key is not None)
    with listening:
        with reporter.waiting(f"loading {serving.model}"):
            engine = TorchOpener().open(serving.model, serving.decoding, settings)
        service = Service(
            LiveEngine(engine),
            engine.tokenizer,
            serving.name,
            api_key=serving.key,
            reasoning="separate" if serving.thoughts_apart else "inline",
            defaults=read_defaults(serving.model),
            # A web page can make a browser call this machine; without a key, the Host header tells it apart.
            hosts=local_names(serving.host) if serving.key is None and is_loopback(serving.host) else None,
            origins=serving.origins,
            max_requests=serving.max_requests or _MAX_REQUESTS,
            gate=serving.gate,
        )
        log_requests(serving.log_level)
        address = url(listening)
        sampling = ", ".join(f"{name} {value:g}" for name, value in service.defaults.model_dump().items())

        def ready() -> None:
            defaults = f"{sampling}; a request may say otherwise"
            show({**serving.plan("torch"), "address": address, "sampling": defaults})
            if not quiet:
                _say_how_to_ask(address, serving.name)

        cut_off = serve(service, listening, drain_seconds=serving.drain_seconds, ready=ready)
    if cut_off:
        raise PipoError(
            f"stopped: {cut_off} answers were cut off after {serving.drain_seconds} s",
            hint="--drain-seconds gives accepted answers more time",
        )
    typer.echo("stopped: every accepted answer is complete", err=True)


# ------------------------------------------------------------ SGLang


def sglang_flags(serving: Serving) -> list[str]:
    """Return SGLang's options for ours, before those that the user adds.

    Raises:
        UsageError: for a device or an option that SGLang does not take.
    """
    if serving.device not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"--device {serving.device} is for the torch engine", hint="CUDA_VISIBLE_DEVICES=N pipo serve …"
        )
    if serving.threads is not None:
        raise UsageError(f"--threads {serving.threads} is for the torch engine", hint="the same without --threads")
    if serving.origins:
        raise UsageError("--allow-origin is for the torch engine: SGLang's server takes requests of every web page")
    options = {
        "--max-running-requests": serving.batch,
        "--max-queued-requests": serving.max_requests,
        "--context-length": serving.max_length,
        "--device": None if serving.device == "auto" else serving.device,
        "--dtype": {"fp32": "float32", "bf16": "bfloat16"}.get(serving.precision),
        "--reasoning-parser": "qwen3" if serving.thoughts_apart else None,
        "--log-level": serving.log_level,
    }
    given = {flag.partition("=")[0] for flag in serving.flags}
    kept = {option: value for option, value in options.items() if value is not None and option not in given}
    return [*(word for option, value in kept.items() for word in (option, str(value))), *serving.flags]


def sglang_plan(serving: Serving) -> dict[str, Any]:
    """Return what is shown before the start, with SGLang's command as a shell takes it.

    Raises:
        UsageError: if SGLang does not have what is asked for.
    """
    from pipo_core.engine.sglang_server import check_method, serve_command
    from pipo_core.sglang.served import TAU_VARIABLE

    check_method(serving.model, serving.decoding)
    command = serve_command(
        serving.model, host=serving.host, port=serving.port, name=serving.name, flags=sglang_flags(serving)
    )
    tau = serving.decoding.tau
    variable = "" if tau is None else f"{TAU_VARIABLE}={tau:.12g} "
    # pipo hands the key over in a file; a command of the user's own cannot do so without one.
    key = "" if serving.key is None else " --api-key $KEY"
    return {**serving.plan("sglang"), "command": f"{variable}{shlex.join(command)}{key}"}


def serve_sglang(serving: Serving, show: Any, *, quiet: bool) -> None:
    """Serve with SGLang until the user stops it, or it ends by itself.

    Args:
        serving: what is served.
        show: shows a plan.
        quiet: whether no example is printed.

    Raises:
        UsageError: if SGLang does not have what is asked for, or others could reach the address without a key.
        MachineError: if SGLang is not installed, or its server does not start or crashes.
    """
    reporter = open_reporter()
    with reporter.waiting("starting"):
        from pipo_core.engine.sglang_server import SGLangServer
        from pipo_core.serve.run import require_key

    require_key(serving.host, has_key=serving.key is not None)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        with _key_file(serving.key) as key_flags:  # read by the time that the server answers
            server = SGLangServer(
                serving.model,
                serving.decoding,
                host=serving.host,
                port=serving.port,
                name=serving.name,
                flags=[*sglang_flags(serving), *key_flags],
                api_key=serving.key,
                echo=typer.get_text_stream("stderr"),
            )
            stack.callback(server.stop)
            server.wait()
        address = f"{server.url}/v1"
        show({**serving.plan("sglang"), "address": address})
        if not quiet:
            _say_how_to_ask(address, serving.name)
        try:
            server.run()
        except KeyboardInterrupt:
            in_time = server.finish(serving.drain_seconds)
        else:
            raise MachineError(f"SGLang's server has ended:\n{server.explanation()}")
    if not in_time:
        raise PipoError(
            f"stopped: answers that took longer than {serving.drain_seconds} s were cut off",
            hint="--drain-seconds gives accepted answers more time",
        )
    typer.echo("stopped", err=True)


@contextmanager
def _key_file(key: str | None) -> Iterator[list[str]]:
    """Hand SGLang the key in a file that only its user can read: every user sees the words of a command."""
    if key is None:
        yield []
        return
    with tempfile.TemporaryDirectory(prefix="pipo-") as folder:
        file = Path(folder) / "key.yaml"
        file.touch(mode=stat.S_IRUSR | stat.S_IWUSR)
        file.write_text(json.dumps({"api-key": key}), encoding="utf-8")  # JSON is YAML
        yield ["--config", os.fspath(file)]


def _say_how_to_ask(address: str, name: str) -> None:
    body: Mapping[str, Any] = {"model": name, "messages": [json.loads(_QUESTION)], "max_tokens": 64}
    typer.echo(
        f"try: curl {address}/chat/completions -H 'Content-Type: application/json' -d '{json.dumps(body)}'", err=True
    )
