"""`pipo train` and `pipo distill`: trainings, with the same options and the same refusal to replace one another."""

from collections.abc import Callable
from dataclasses import dataclass

import typer

from pipo_cli.jobs import run_recipe
from pipo_cli.options import DEFAULT_OUT, Debug, DryRun, Json, Out, Overrides, RecipeName, Restart

_AGAIN = (
    "The same command again goes on where it stopped, or does nothing if it is done. If settings or data have "
    "changed since, it says which and stops."
)


@dataclass(frozen=True)
class TrainingCommand:
    """A command that trains.

    Attributes:
        kind: of its recipes, and its name.
        help: what it does; the first paragraph is its line in lists.
        example: a command line.
    """

    kind: str
    help: str
    example: str


TRAINING_COMMANDS = (
    TrainingCommand(
        "train",
        "Train a model on answers: the pair model, or the uncompressed one as a baseline.",
        "pipo train recipes/tiny/sft.yaml max_steps=50 --dry-run",
    ),
    TrainingCommand(
        "distill",
        "Let a larger teacher correct what the pair model itself writes (on-policy distillation).\n\n"
        "The student is a fine-tuned pair model, merged; the teacher is an uncompressed model with the same tokenizer.",
        "pipo distill recipes/tiny/opd.yaml max_steps=20 --dry-run",
    ),
)


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in TRAINING_COMMANDS:
        app.command(command.kind, help=f"{command.help}\n\n{_AGAIN}", epilog=f"Example: {command.example}")(
            _run(command.kind)
        )


def _run(kind: str) -> Callable[..., None]:
    """Return the function of the command that runs recipes of a kind."""

    def run(
        ctx: typer.Context,
        recipe: RecipeName,
        overrides: Overrides = None,
        restart: Restart = False,
        out: Out = DEFAULT_OUT,
        dry_run: DryRun = False,
        json_output: Json = False,
        debug: Debug = False,
    ) -> None:
        run_recipe(ctx, kind, recipe, overrides, out, dry_run=dry_run, restart=restart)

    return run
