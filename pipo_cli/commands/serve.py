"""`pipo serve`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipo_cli.checkpoints import default_method, newest_checkpoint, run_name
from pipo_cli.options import DEFAULT_OUT, Debug, DryRun, Json, Out
from pipo_cli.session import emit_json, say, session
from pipo_core.errors import UsageError
from pipo_core.recipes.methods import METHODS, Decoding, MethodName


class Reasoning(StrEnum):
    """Where the thought of a chat's answer goes."""

    separate = "separate"
    inline = "inline"


class Precision(StrEnum):
    """Number formats."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


Ckpt = Annotated[
    str | None,
    typer.Option("--ckpt", metavar="DIR", help="The checkpoint; without it the newest under --out is taken."),
]
MethodOption = Annotated[
    MethodName | None, typer.Option("--method", help="How it decodes; without it, what the checkpoint is made for.")
]
TauOption = Annotated[
    float | None, typer.Option("--tau", min=0.0, max=1.0, help="pipo: keep drafts from this confidence on.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
PrecisionOption = Annotated[Precision, typer.Option("--precision", help="auto is bf16 on a GPU and fp32 on a CPU.")]
MaxLength = Annotated[
    int | None, typer.Option("--max-length", min=2, help="Most tokens of prompt and answer; what fits without it.")
]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("serve", epilog="Example: pipo serve --ckpt outputs/demo/merge/model --tau 0.8 --port 8000")(serve)


def find_model(ctx: typer.Context, ckpt: str | None, out: Path) -> Path:
    """Return the checkpoint's folder; the newest one is named on the first line."""
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
    host: Annotated[str, typer.Option("--host", help="Where it listens; others can reach it with a key only.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8000,
    name: Annotated[str | None, typer.Option("--name", help="The model's name for clients.")] = None,
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", metavar="FILE", help="Clients must present what stands in it.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Answers in progress at once.")] = 32,
    max_length: MaxLength = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.auto,
    reasoning: Annotated[
        Reasoning, typer.Option("--reasoning", help="A chat's thought as reasoning_content, or in the content.")
    ] = Reasoning.separate,
    drain_seconds: Annotated[
        int, typer.Option("--drain-seconds", min=0, help="How long accepted answers may take once it is stopped.")
    ] = 60,
    out: Out = DEFAULT_OUT,
    dry_run: DryRun = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Answer over HTTP as OpenAI's API does: chats and completions, streamed or whole.

    Counts are of real tokens, never PADs. Ctrl-C or SIGTERM takes no more requests and ends those accepted.
    """
    model = find_model(ctx, ckpt, out)
    decoding = method or default_method(model)
    if tau is not None and "tau" not in METHODS[decoding].options:
        raise UsageError(f"--tau is for pair models, and the method is {decoding}", hint="the same without --tau")
    key = _read_key(api_key_file)
    served = name or run_name("pipo", str(model))
    plan: dict[str, Any] = {
        **{"model": str(model), "name": served, "method": decoding, "tau": tau},
        **{"address": f"http://{host}:{port}/v1", "api key": key is not None},
    }
    if dry_run:
        _show(ctx, plan)
        return
    from pipo_core.engine.live import LiveEngine
    from pipo_core.engine.torch_opening import TorchOpener
    from pipo_core.recipes.common import TorchSettings
    from pipo_core.serve.openai_api import Service
    from pipo_core.serve.run import listen
    from pipo_core.serve.run import serve as run

    listening = listen(host, port, has_key=key is not None)
    with listening:
        settings = TorchSettings(batch=batch, device=device, precision=precision.value, max_length=max_length)
        engine = TorchOpener().open(model, Decoding(decoding, tau), settings)
        service = Service(LiveEngine(engine), engine.tokenizer, served, api_key=key, reasoning=reasoning.value)
        address = "http://{}:{}/v1".format(*listening.getsockname()[:2])

        def ready() -> None:
            _show(ctx, {**plan, "address": address})
            if not session(ctx).json:
                said = '{"role": "user", "content": "What is 3 plus 4?"}'
                typer.echo(
                    f"try: curl {address}/chat/completions -H 'Content-Type: application/json' "
                    f'-d \'{{"model": "{served}", "messages": [{said}], "max_tokens": 64}}\'',
                    err=True,
                )

        run(service, listening, drain_seconds=drain_seconds, ready=ready)
    typer.echo("stopped: every accepted request has ended", err=True)


def _read_key(file: Path | None) -> str | None:
    if file is None:
        return None
    key = file.read_text(encoding="utf-8").strip()
    if not key:
        raise UsageError(f"{file} holds no key")
    return key


def _show(ctx: typer.Context, plan: dict[str, Any]) -> None:
    if session(ctx).json:
        emit_json(plan)
        return
    for label, value in plan.items():
        if value is not None:
            typer.echo(f"{label}: {value}", err=True)
