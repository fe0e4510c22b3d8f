"""`pipo chat`."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

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
from pipo_cli.options import DEFAULT_OUT, Debug, Out
from pipo_cli.reporter import open_reporter
from pipo_cli.transcript import Transcript, shows_colours
from pipo_core.errors import PipoError

if TYPE_CHECKING:
    from pipo_core.engine import Engine

HELP = "/reset starts a new conversation, /quit leaves, Ctrl-C stops an answer"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("chat", epilog="Example: pipo chat --ckpt outputs/demo/merge/model --show-drafts")(chat)


def chat(
    ctx: typer.Context,
    ckpt: Ckpt = None,
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
        int, typer.Option("--max-tokens", min=1, help="Longest answer in tokens, PAD not counted.")
    ] = 4096,
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
    """Chat with a checkpoint in the terminal; each line of standard input is one turn."""
    from pipo_core.recipes.methods import Decoding

    model = find_model(ctx, ckpt, out)
    decoding = Decoding(method or default_method(model), tau)
    settings = torch_settings(batch=1, device=device, precision=precision.value, max_length=max_length)
    with open_reporter().waiting(f"loading {model}"):
        from pipo_core.engine import open_engine

        engine = open_engine(model, decoding, settings)
    typer.echo(f"{model} ({decoding.method}); {HELP}", err=True)
    opening = [{"role": "system", "content": system}] if system else []
    messages, turn = [*opening], 0
    while (said := _ask()) is not None:
        if said == "/quit":
            break
        if said == "/reset":
            messages = [*opening]
        elif said.startswith("/"):
            typer.echo(HELP, err=True)
        elif said.strip():
            turn += 1
            messages.append({"role": "user", "content": said})
            answer = _answer(engine, messages, turn, seed, max_tokens, temperature, show_drafts=show_drafts)
            messages.append({"role": "assistant", "content": answer})


def _ask() -> str | None:
    """Return the next line of the input, or None at its end."""
    if sys.stdin.isatty():
        typer.echo("> ", nl=False, err=True)
    try:
        line = sys.stdin.readline()
    except KeyboardInterrupt:
        line = ""
    return line.rstrip("\n") if line else None


def _answer(
    engine: "Engine",
    messages: list[dict[str, str]],
    turn: int,
    seed: int,
    max_tokens: int,
    temperature: float,
    *,
    show_drafts: bool,
) -> str:
    """Print an answer while it is written and return it; Ctrl-C ends it.

    Raises:
        PipoError: if the request fails.
    """
    from pipo_core.chat import encode_prompt
    from pipo_core.decode.sampling import SamplingParams
    from pipo_core.engine import Request
    from pipo_core.engine.api import request_seed

    ids = encode_prompt(engine.tokenizer, messages)
    name = f"turn-{turn}"
    budget = max(1, min(max_tokens, engine.max_length - len(ids)))
    params = SamplingParams(temperature=temperature, top_p=0.95, top_k=20, seed=request_seed(seed, turn))
    completion = None
    transcript = Transcript(engine.tokenizer, drafts=show_drafts, colours=shows_colours())
    with _stop_on_interrupt(lambda: engine.cancel(name)) as check:
        for delta in engine.stream([Request(name, tuple(ids), params, max_tokens=budget)]):
            typer.echo(transcript.add(delta), nl=False, color=shows_colours())
            sys.stdout.flush()
            completion = delta.completion
            check()
    typer.echo(transcript.finish(), color=shows_colours())
    if completion is None or completion.finish_reason == "error":
        raise PipoError(f"the answer failed: {completion.error if completion else 'the engine ended without one'}")
    kept = f", {completion.kept} of {completion.drafts} drafts kept" if completion.drafts else ""
    steps = "" if completion.slots is None else f" in {completion.slots} steps"
    typer.echo(
        f"[{completion.finish_reason}: {completion.tokens} tokens{steps}{kept}, {completion.time_s:.2f} s]",
        err=True,
    )
    return completion.text


@contextmanager
def _stop_on_interrupt(stop: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Yield a function that calls `stop` if Ctrl-C has been pressed.

    The first Ctrl-C raises nothing, because an engine must not be interrupted within a step. A second one raises
    KeyboardInterrupt.
    """
    pressed = False

    def press(number: int, frame: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    def check() -> None:
        if pressed:
            stop()

    before = signal.signal(signal.SIGINT, press)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
