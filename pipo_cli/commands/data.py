"""`pipo rollout` and `pipo build`: a model's answers, and the training sets that are chosen from them."""

from enum import StrEnum
from typing import Annotated

import typer

from pipo_cli.jobs import run_recipe
from pipo_cli.options import DEFAULT_OUT, Debug, DryRun, Json, Out, Overrides, RecipeName
from pipo_core.errors import UsageError

AGAIN = "Given again, the command goes on where it stopped, or does nothing if the job is finished and unchanged."


class Pick(StrEnum):
    """Which correct answers of a problem are taken."""

    all = "all"
    shortest = "shortest"


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(
        "rollout",
        help=f"Sample several answers to each problem from a model and mark the correct ones.\n\n{AGAIN}\n\n"
        "Several workers share the problems: each gives the same command with shard.count=N and its own shard.index.",
        epilog="Examples: pipo rollout recipes/tiny/rollout.yaml problems.count=100; "
        "pipo rollout math shard.index=0 shard.count=4",
    )(rollout)
    app.command(
        "build",
        help="Choose rollouts and write them as a training set, with a data card.\n\n"
        f"The shipped recipes sft and opd have the paper's choices for fine-tuning and for distillation. {AGAIN}",
        epilog="Examples: pipo build sft rollouts=outputs/answers-math/rollout --pick shortest; "
        "pipo build recipes/tiny/build.yaml rollouts=outputs/teacher/rollout",
    )(build)


def rollout(
    ctx: typer.Context,
    recipe: RecipeName,
    overrides: Overrides = None,
    out: Out = DEFAULT_OUT,
    dry_run: DryRun = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Run a rollout."""
    run_recipe(ctx, "rollout", recipe, overrides, out, dry_run=dry_run)


def build(
    ctx: typer.Context,
    recipe: RecipeName,
    overrides: Overrides = None,
    pick: Annotated[Pick | None, typer.Option("--pick", help="All correct answers, or one per problem.")] = None,
    minimum_solved: Annotated[
        float | None, typer.Option("--minimum-solved", help="Leave out problems solved in a smaller share of answers.")
    ] = None,
    validation_share: Annotated[
        float | None, typer.Option("--validation-share", help="Share of the questions held out, by a hash of each.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="Leave out longer answers.")] = None,
    max_repetition: Annotated[
        float | None, typer.Option("--max-repetition", help="Leave out answers that loop for a larger share.")
    ] = None,
    out: Out = DEFAULT_OUT,
    dry_run: DryRun = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Run a build; each option is a change to the recipe's key of that name."""
    given = {
        "pick": pick,
        "minimum_solved": minimum_solved,
        "validation_share": validation_share,
        "max_tokens": max_tokens,
        "max_repetition": max_repetition,
    }
    changes = list(overrides or ())
    for key, value in given.items():
        if value is None:
            continue
        twice = next((change for change in changes if change.partition("=")[0].removeprefix("~") == key), None)
        if twice is not None:
            raise UsageError(f"--{key.replace('_', '-')} and {twice}: give one of them", hint="pipo build --help")
        changes.append(f"{key}={value}")
    run_recipe(ctx, "build", recipe, changes, out, dry_run=dry_run)
