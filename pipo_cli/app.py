"""The command tree of `pipo`, and the one place where exceptions become messages and exit codes."""

import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pipo_cli.commands import (
    bench,
    calibrate,
    chat,
    compare,
    data,
    download,
    eval,
    merge,
    recipes,
    run,
    serve,
    training,
)
from pipo_cli.failures import describe
from pipo_cli.options import Debug
from pipo_cli.session import emit_json, session
from pipo_core import __version__

_JSON = "pipo.json"


class _Root(TyperGroup):
    """The root command: turns any exception of a command into one line, a next command and an exit code."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        # Looked up by hand, because typer does not parse the options behind a wrong one.
        as_json = "--json" in args
        try:
            ctx = super().make_context(info_name, args, parent, **extra)
        except Exception as error:
            if as_json and hasattr(error, "format_message"):
                _emit_usage_error(error)
            raise
        if as_json:
            ctx.meta[_JSON] = True
        return ctx

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise  # ordinary ends; BrokenPipeError: the reader of the pipe has closed it
        except (Exception, KeyboardInterrupt) as error:
            if hasattr(error, "format_message"):
                if _JSON in ctx.meta:
                    _emit_usage_error(error)
                raise  # a usage error, which typer itself shows, with exit code 2
            raise typer.Exit(_show(ctx, error)) from None


app = typer.Typer(
    name="pipo",
    cls=_Root,
    help="Turn a Qwen3.5 checkpoint into one that reads two tokens and writes up to two tokens a step, and measure it.",
    epilog="Start with: pipo run demo. Exit codes: 0 done, 1 failed while running, 2 usage or recipe, "
    "3 missing input, 4 environment, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    # Plain help: coloured help costs 0.2 s of CPU time in every call.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"pipo {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
    debug: Debug = False,
) -> None:
    """Declare the options that precede the command."""


run.register(app)
download.register(app)
data.register(app)
training.register(app)
merge.register(app)
eval.register(app)
bench.register(app)
calibrate.register(app)
compare.register(app)
serve.register(app)
chat.register(app)
app.add_typer(recipes.app, name="recipes")


def _emit_usage_error(error: Any) -> None:
    """Write a usage error, which typer shows on standard error, to standard output as JSON."""
    ctx = getattr(error, "ctx", None)
    hint = f"{ctx.command_path} --help" if ctx is not None else None
    emit_json({"error": error.format_message(), "hint": hint, "exit_code": error.exit_code})


def _show(ctx: Any, error: BaseException) -> int:
    """Show an error on standard error and, with --json, on standard output; return the exit code."""
    state = session(ctx)
    failure = describe(error)
    if state.debug:
        sys.stderr.write("".join(traceback.format_exception(error)))
    sys.stderr.write(f"pipo: {failure.message}\n")
    if failure.hint:
        sys.stderr.write(f"  try: {failure.hint}\n")
    if state.json:
        found: dict[str, Any] = {
            "error": failure.message,
            "hint": failure.hint,
            "exit_code": failure.exit_code,
        }
        emit_json({**found, "problems": failure.problems} if failure.problems else found)
    return failure.exit_code
