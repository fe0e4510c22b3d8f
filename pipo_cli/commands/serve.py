"""`pipo serve`."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipo_cli.checkpoints import default_method, newest_checkpoint, run_name
from pipo_cli.options import DEFAULT_OUT, Debug, DryRun, Json, Out
from pipo_cli.reporter import open_reporter
from pipo_cli.serving import Serving, has_sglang, serve_sglang, serve_torch, sglang_plan
from pipo_cli.session import emit_json, say, session
from pipo_core.errors import UsageError
from pipo_core.recipes.methods import METHODS, Decoding, MethodName

if TYPE_CHECKING:
    from pipo_core.engine.profiles import AsMeasured
    from pipo_core.recipes.common import TorchSettings
    from pipo_core.serve.gate import LoadGate


class Reasoning(StrEnum):
    """The field that the thought of a chat's answer goes into."""

    separate = "separate"
    inline = "inline"


class EngineKind(StrEnum):
    """What decodes: the torch engine in this process, or SGLang's server."""

    auto = "auto"
    torch = "torch"
    sglang = "sglang"


class LogLevel(StrEnum):
    """How much the server writes to standard error."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


class Precision(StrEnum):
    """Number formats."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


Ckpt = Annotated[
    str | None,
    typer.Option("--ckpt", metavar="DIR", help="The checkpoint (default: the newest pair model under --out)."),
]
MethodOption = Annotated[
    MethodName | None, typer.Option("--method", help="Decoding method (default: pipo for a pair model, else regular).")
]
TauOption = Annotated[
    float | None,
    typer.Option("--tau", min=0.0, max=1.0, help="pipo only: keep drafts whose confidence is at least this."),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
PrecisionOption = Annotated[
    Precision, typer.Option("--precision", help="Number format of the weights; auto is bf16 on a GPU, else fp32.")
]
MaxLength = Annotated[
    int | None,
    typer.Option("--max-length", min=2, help="Most tokens of prompt and answer together (default: the most that fit)."),
]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("serve", epilog="Example: pipo serve --ckpt outputs/demo/merge/model --tau 0.8 --port 8000")(serve)


def torch_settings(**values: Any) -> "TorchSettings":
    """Return the engine's settings from options of the command line.

    Raises:
        UsageError: for a value that no engine takes.
    """
    from pydantic import ValidationError

    from pipo_core.errors import UsageError
    from pipo_core.recipes.common import TorchSettings

    try:
        return TorchSettings(**values)
    except ValidationError as error:
        raise UsageError("; ".join(found["msg"].removeprefix("Value error, ") for found in error.errors())) from error


def find_model(ctx: typer.Context, ckpt: str | None, out: Path) -> Path:
    """Return the checkpoint's folder; if it is the newest one, print its name first.

    Raises:
        MissingInputError: if there is no such checkpoint.
    """
    from pipo_core.pipeline.inputs import AbsentPathError, resolve_model

    if ckpt is None:
        folder = newest_checkpoint(out)
        line = f"checkpoint: {folder} (the newest)"
        if session(ctx).json:
            typer.echo(line, err=True)
        else:
            say(line)
        return folder
    try:
        return resolve_model("--ckpt", f"./{ckpt}" if "/" not in ckpt and Path(ckpt).exists() else ckpt, {})
    except AbsentPathError as error:
        error.hint = "without --ckpt the newest checkpoint is taken; pipo run demo makes one"
        raise


def serve(
    ctx: typer.Context,
    ckpt: Ckpt = None,
    method: MethodOption = None,
    tau: TauOption = None,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; one that other machines can reach needs an API key.")
    ] = ("127.0.0.1"),
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8000,
    name: Annotated[str | None, typer.Option("--name", help="Name that clients give for the model.")] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option("--api-key-file", metavar="FILE", help="File with the API key that clients must send."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option("--batch", min=1, help="Most sequences that run at once (default: torch 32, sglang what fits)."),
    ] = None,
    max_requests: Annotated[
        int | None,
        typer.Option(
            "--max-requests", min=1, help="Answers in progress or waiting; others are refused (default: torch 256)."
        ),
    ] = None,
    max_length: MaxLength = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.auto,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", min=1, help="CPU threads of the torch engine (default: the profile's, or torch's choice)."
        ),
    ] = None,
    reasoning: Annotated[
        Reasoning,
        typer.Option("--reasoning", help="Thoughts of a chat: separate in reasoning_content, or inline in content."),
    ] = Reasoning.separate,
    drain_seconds: Annotated[
        int, typer.Option("--drain-seconds", min=0, help="How long accepted requests may take after the stop.")
    ] = 60,
    origins: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-origin",
            metavar="ORIGIN",
            help="Web pages that may use the server, such as https://chat.example (again for more).",
        ),
    ] = None,
    log_level: Annotated[
        LogLevel, typer.Option("--log-level", help="What goes to standard error; info is a line a request.")
    ] = LogLevel.info,
    engine: Annotated[
        EngineKind,
        typer.Option("--engine", help="auto is sglang where it is installed and a GPU is there, else torch."),
    ] = EngineKind.auto,
    profile: Annotated[
        Path | None,
        typer.Option(
            "--profile",
            metavar="FILE",
            help="What pipo calibrate measured: requests without a tau get the one that pays at the present load.",
        ),
    ] = None,
    min_tau: Annotated[
        float | None,
        typer.Option(
            "--min-tau", min=0.0, max=1.0, help="Of --profile: the lowest tau (default: the lowest accurate one)."
        ),
    ] = None,
    max_tau: Annotated[
        float | None,
        typer.Option(
            "--max-tau", min=0.0, max=1.0, help="Of --profile: the highest tau (default: the highest accurate one)."
        ),
    ] = None,
    any_machine: Annotated[
        bool, typer.Option("--any-machine", help="Take a --profile that was measured on another machine.")
    ] = False,
    flags: Annotated[
        list[str] | None,
        typer.Argument(metavar="SGLANG_FLAG", help="Further options of SGLang's server, behind two dashes."),
    ] = None,
    out: Out = DEFAULT_OUT,
    dry_run: DryRun = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Serve a checkpoint over HTTP with OpenAI's API: chats and completions, streamed or whole.

    PAD is not counted as a token. After Ctrl-C or SIGTERM no more requests are accepted, and the accepted ones finish.
    """
    model = find_model(ctx, ckpt, out)
    decoding = method or default_method(model)
    if tau is not None and "tau" not in METHODS[decoding].options:
        raise UsageError(f"--tau is for pair models, and the method is {decoding}", hint="the same without --tau")
    with_sglang = engine is EngineKind.sglang or (engine is EngineKind.auto and has_sglang())
    gate = from_profile = None
    if profile is None:
        for option, value in (("--min-tau", min_tau), ("--max-tau", max_tau), ("--any-machine", any_machine or None)):
            if value is not None:
                raise UsageError(f"{option} is about a profile", hint="give --profile FILE; pipo calibrate makes one")
    else:
        _check_gate_options(decoding, tau, with_sglang=with_sglang)
        settings = torch_settings(device=device, precision=precision.value, threads=threads)
        gate, (settings, from_profile) = _open_gate(
            profile, model, settings, (min_tau, max_tau), any_machine=any_machine
        )
        device, precision, threads = settings.device, Precision(settings.precision), settings.threads
    serving = Serving(
        model,
        name or run_name("pipo", str(model)),
        Decoding(decoding, tau, draft_vocab=None if gate is None else gate.draft_vocab),
        host,
        port,
        _read_key(api_key_file),
        batch=batch,
        max_requests=max_requests,
        max_length=max_length,
        device=device,
        precision=precision.value,
        thoughts_apart=reasoning is Reasoning.separate,
        drain_seconds=drain_seconds,
        origins=_origins(origins or []),
        log_level=log_level.value,
        flags=tuple(flags or ()),
        profile=profile,
        gate=gate,
        threads=threads,
        from_profile=from_profile,
    )
    if serving.flags and not with_sglang:
        raise UsageError(f"{serving.flags[0]}: options behind -- are SGLang's", hint="add --engine sglang")
    if dry_run:
        _show(ctx, sglang_plan(serving) if with_sglang else serving.plan("torch"))
        return
    serve_with = serve_sglang if with_sglang else serve_torch
    serve_with(serving, partial(_show, ctx), quiet=session(ctx).json)


def _check_gate_options(method: MethodName, tau: float | None, *, with_sglang: bool) -> None:
    """Check that a profile can decide on thresholds.

    Raises:
        UsageError: if there are none, or something else decides.
    """
    if "tau" not in METHODS[method].options:
        raise UsageError(f"--profile is for pair models, and the method is {method}", hint="the same without --profile")
    if tau is not None:
        raise UsageError("--tau and --profile: give one of them", hint="--min-tau and --max-tau bound a profile's tau")
    if with_sglang:
        raise UsageError(
            "--profile is for the torch engine: requests reach SGLang's server without pipo counting them",
            hint="add --engine torch; or serve with the --tau that the profile recommends",
        )


def _open_gate(
    file: Path,
    model: Path,
    settings: "TorchSettings",
    bounds: tuple[float | None, float | None],
    *,
    any_machine: bool,
) -> "tuple[LoadGate, AsMeasured]":
    """Return what chooses thresholds by a profile, and the engine's settings with those that the profile brings.

    Raises:
        MissingInputError: if the file is not a readable profile.
        UsageError: if it is of another checkpoint or machine, of other settings than those that are given, or has no
            threshold within the bounds.
    """
    from pipo_core.recipes.profile import PROFILE, read_profile, within

    file = file / PROFILE if file.is_dir() else file
    profile = read_profile(file)
    allowed = within(profile, *bounds)
    with open_reporter().waiting("comparing the profile with checkpoint and machine"):
        from pipo_core.engine.profiles import as_measured, check_checkpoint
        from pipo_core.serve.gate import LoadGate

        check_checkpoint(profile, file, model)
        measured = as_measured(profile, file, settings, any_machine=any_machine)
    return LoadGate(profile, allowed), measured


def _origins(given: list[str]) -> frozenset[str]:
    from urllib.parse import urlsplit

    for origin in given:
        parts = urlsplit(origin)
        if not parts.scheme or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}":
            raise UsageError(
                f"--allow-origin {origin}: an origin is a scheme and a machine, without a path",
                hint="such as https://chat.example or http://localhost:3000",
            )
    return frozenset(given)


def _read_key(file: Path | None) -> str | None:
    if file is None:
        return None
    key = file.read_text(encoding="utf-8", errors="replace").strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(
            f"{file} must hold one key: one line of printable ASCII characters without spaces",
            hint="openssl rand -hex 32 makes one",
        )
    return key


def _show(ctx: typer.Context, plan: dict[str, Any]) -> None:
    if session(ctx).json:
        emit_json(plan)
        return
    for label, value in plan.items():
        if value is not None:
            typer.echo(f"{label}: {value}", err=True)
