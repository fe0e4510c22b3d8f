"""`pipo rollout` and `pipo build`: commands that run one recipe and have no options of their own."""

from collections.abc import Callable
from dataclasses import dataclass

import typer

from pipo_cli.jobs import run_recipe
from pipo_cli.options import DEFAULT_OUT, Debug, DryRun, Json, Out, Overrides, RecipeName

AGAIN = "Given again, the command goes on where it stopped, or does nothing if the job is finished and unchanged."


@dataclass(frozen=True)
class PlainJob:
    """A command; its name is the kind of recipe that it runs."""

    kind: str
    help: str
    example: str


PLAIN_JOBS = (
    PlainJob(
        "rollout",
        "Sample several answers to each problem from a model and mark the correct ones.",
        "pipo rollout recipes/tiny/rollout.yaml problems.count=100",
    ),
    PlainJob(
        "build",
        "Choose rollouts and write them as a training set.",
        "pipo build recipes/tiny/build.yaml rollouts=outputs/teacher/rollout",
    ),
)


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for job in PLAIN_JOBS:
        app.command(job.kind, help=f"{job.help}\n\n{AGAIN}", epilog=f"Example: {job.example}")(_command(job.kind))


def _command(kind: str) -> Callable[..., None]:
    def command(
        ctx: typer.Context,
        recipe: RecipeName,
        overrides: Overrides = None,
        out: Out = DEFAULT_OUT,
        dry_run: DryRun = False,
        json_output: Json = False,
        debug: Debug = False,
    ) -> None:
        run_recipe(ctx, kind, recipe, overrides, out, dry_run=dry_run)

    return command
