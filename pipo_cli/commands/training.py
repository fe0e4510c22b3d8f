"""`pipo train` and `pipo distill`: two commands with the same options; neither replaces another training unasked."""

from collections.abc import Callable
from dataclasses import dataclass

import typer

from pipo_cli.jobs import run_recipe
from pipo_cli.options import DEFAULT_OUT, Debug, DryRun, Json, Out, Overrides, RecipeName, Restart

_AGAIN = (
    "Given again, the command goes on where it stopped, or does nothing if the training is finished. If settings or "
    "data have changed since, it lists the changes and stops."
)


@dataclass(frozen=True)
class TrainingCommand:
    """A command that trains.

    Attributes:
        kind: the kind of its recipes, and its name.
        help: its help text; the first paragraph is its summary.
        example: a command line.
    """

    kind: str
    help: str
    example: str


TRAINING_COMMANDS = (
    TrainingCommand(
        "train",
        "Fine-tune a model on answers: the pair model, or the uncompressed one as a baseline.",
        "pipo train recipes/tiny/sft.yaml max_steps=50 --dry-run",
    ),
    TrainingCommand(
        "distill",
        "Distil a teacher into the pair model, on answers of the pair model (on-policy distillation).\n\n"
        "The student is a fine-tuned and merged pair model; the teacher is an uncompressed model with the same "
        "tokenizer.",
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
    """Return the command's function, which runs recipes of a kind."""

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
