"""The commands of `pipo`: its groups, and the one place where failures become lines and exit codes."""

import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pipo_cli.commands import bench, chat, compare, download, eval, merge, plain, recipes, run, serve, training
from pipo_cli.failures import describe
from pipo_cli.options import Debug
from pipo_cli.session import emit_json, session
from pipo_core import __version__

_JSON = "pipo.json"


class _Root(TyperGroup):
    """Turns whatever a command raises into one line, the next command, and an exit code."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        # Read here, since options behind one that is wrong are never parsed.
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
            raise  # an ordinary end; a reader of a pipe that left ends quietly
        except (Exception, KeyboardInterrupt) as error:
            if hasattr(error, "format_message"):
                if _JSON in ctx.meta:
                    _emit_usage_error(error)
                raise  # wrong usage, which typer shows itself, with exit code 2
            raise typer.Exit(_show(ctx, error)) from None


app = typer.Typer(
    name="pipo",
    cls=_Root,
    help="Turn a Qwen3.5 checkpoint into one that reads and writes two tokens a step, and show what that did.",
    epilog="Start with: pipo run demo. Exit codes: 0 done, 1 failed while running, 2 usage or recipe, "
    "3 missing input, 4 environment, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    # Plain help: the coloured one costs 0.2 s of CPU time at every call.
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
    """Take the options that stand before the command."""


run.register(app)
download.register(app)
plain.register(app)
training.register(app)
merge.register(app)
eval.register(app)
bench.register(app)
compare.register(app)
serve.register(app)
chat.register(app)
app.add_typer(recipes.app, name="recipes")


def _emit_usage_error(error: Any) -> None:
    """Write wrong usage, which typer shows on standard error, as JSON too."""
    ctx = getattr(error, "ctx", None)
    hint = f"{ctx.command_path} --help" if ctx is not None else None
    emit_json({"error": error.format_message(), "hint": hint, "exit_code": error.exit_code})


def _show(ctx: Any, error: BaseException) -> int:
    """Show `error` on standard error (and, with --json, as JSON) and return the exit code."""
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
