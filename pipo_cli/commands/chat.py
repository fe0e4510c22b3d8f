"""`pipo chat`."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from pipo_cli.checkpoints import default_method
from pipo_cli.commands.serve import (
    Ckpt,
    DeviceOption,
    MaxLength,
    MethodOption,
    Precision,
    PrecisionOption,
    TauOption,
    find_model,
    torch_settings,
)
from pipo_cli.conversation import MAX_TOKENS, Conversation
from pipo_cli.options import DEFAULT_OUT, Debug, Out
from pipo_cli.reporter import open_reporter
from pipo_cli.servers import ApiKeyEnv, Served, remote_settings
from pipo_core.errors import PipoError, UsageError

HELP = "/reset starts a new conversation, /quit leaves, Ctrl-C stops an answer"
_OF_A_CHECKPOINT = ("ckpt", "method", "max_length", "device", "precision")
_OF_A_SERVER = ("api_key_env", "served")
"""Parameters that go without, and only with, --url."""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        "chat",
        epilog="Examples: pipo chat --ckpt outputs/demo/merge/model --show-drafts; "
        "pipo chat --url http://127.0.0.1:8000",
    )(chat)


def chat(
    ctx: typer.Context,
    ckpt: Ckpt = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", metavar="URL", help="Instead of a checkpoint: a running server with OpenAI's chat interface."
        ),
    ] = None,
    api_key_env: ApiKeyEnv = None,
    served: Served = None,
    method: MethodOption = None,
    tau: TauOption = None,
    show_drafts: Annotated[
        bool,
        typer.Option(
            "--show-drafts", help="Mark kept drafts, in green or between ‹ and ›, and rejected ones with a dot."
        ),
    ] = False,
    system: Annotated[str | None, typer.Option("--system", help="A system message.")] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            min=1,
            help=f"Longest answer in tokens, PAD not counted (default: {MAX_TOKENS}; with --url the server's limit).",
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.0, help="Softmax temperature; 0 is greedy.")
    ] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the sampling.")] = 0,
    max_length: MaxLength = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.auto,
    out: Out = DEFAULT_OUT,
    debug: Debug = False,
) -> None:
    """Chat with a checkpoint or a server in the terminal; each line of standard input is one turn.

    An answer that fails is told, and the chat goes on without its question; the exit code is then 1.
    """
    if url is None:
        _refuse(ctx, _OF_A_SERVER, "is about the server at --url, and there is none")
        from pipo_core.recipes.methods import Decoding

        model = find_model(ctx, ckpt, out)
        decoding = Decoding(method or default_method(model), tau)
        settings = torch_settings(batch=1, device=device, precision=precision.value, max_length=max_length)
        with open_reporter().waiting(f"loading {model}"):
            from pipo_core.engine import open_engine

            engine = open_engine(model, decoding, settings)
        about = f"{model} ({decoding.method})"
    else:
        _refuse(ctx, _OF_A_CHECKPOINT, "and --url: the server decodes by its own settings; give one of them")
        server = remote_settings(url, api_key_env, served)
        with open_reporter().waiting(f"asking {url}"):
            from pipo_core.engine.remote_opening import open_chat

            engine = open_chat(server, tau)
        about = url
        if show_drafts:
            typer.echo(f"{url} does not tell which tokens are drafts, so none are marked", err=True)
    typer.echo(f"{about}; {HELP}", err=True)
    conversation = Conversation(
        engine,
        by_server=url is not None,
        system=system,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        show_drafts=show_drafts and url is None,
    )
    try:
        _converse(conversation)
    finally:
        engine.close()
    if conversation.failed:
        raise typer.Exit(PipoError.exit_code)


def _refuse(ctx: typer.Context, names: Sequence[str], why: str) -> None:
    """Raise if one of these parameters was given."""
    for name in names:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"--{name.replace('_', '-')} {why}", hint="pipo chat --help")


def _converse(conversation: Conversation) -> None:
    """Answer each line of the input until it ends."""
    while (said := _ask()) is not None:
        if said == "/quit":
            break
        if said == "/reset":
            conversation.reset()
        elif said.startswith("/"):
            typer.echo(HELP, err=True)
        elif said.strip():
            conversation.answer(said)


def _ask() -> str | None:
    """Return the next line of the input, or None at its end."""
    if sys.stdin.isatty():
        typer.echo("> ", nl=False, err=True)
    try:
        line = sys.stdin.readline()
    except KeyboardInterrupt:
        line = ""
    return line.rstrip("\n") if line else None
