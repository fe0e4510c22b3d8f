"""`pipo eval`."""

import json
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipo_cli.comparisons import Asked, compare, comparison
from pipo_cli.options import DEFAULT_OUT
from pipo_cli.servers import ApiKeyEnv, Served, address_name, remote_settings
from pipo_core.errors import UsageError

STANDARD = "eval.yaml"
_USUAL_SUITE = "tiny"


class Preset(StrEnum):
    """Named settings of sampling."""

    paper = "paper"
    vendor = "vendor"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        "eval",
        epilog="Examples: pipo eval --suite tiny --ckpt outputs/demo/merge/model --method pipo --tau 0.95; "
        "pipo eval --suite math --ckpt outputs/sft-4b/merge/model --limit 10; "
        "pipo eval --regrade outputs/demo/eval",
    )(evaluate)


@comparison
def evaluate(
    ctx: typer.Context,
    asked: Asked,
    suite: Annotated[
        str | None,
        typer.Option(
            "--suite",
            metavar="NAME",
            help="What is asked (default: tiny): a suite or group of pipo recipes ls, or a suite's file.",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="How it is asked and graded, such as paper or official (default: the suite's)."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only so many questions: the first, or so many generated.")
    ] = None,
    questions: Annotated[
        list[str] | None, typer.Option("--questions", metavar="ID", help="Only this question; repeat for several.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="Answers per question (default: the suite's).")
    ] = None,
    sampling: Annotated[
        list[Preset] | None,
        typer.Option("--sampling", help="How tokens are sampled; given twice, both stand side by side."),
    ] = None,
    url: Annotated[
        list[str] | None,
        typer.Option(
            "--url",
            metavar="URL",
            help="Instead of the torch engine: a running server; without --ckpt any with OpenAI's interface, of any "
            "model. Repeat to compare several.",
        ),
    ] = None,
    api_key_env: ApiKeyEnv = None,
    served: Served = None,
    regrade: Annotated[
        Path | None,
        typer.Option("--regrade", metavar="DIR", help="Grade the answers of an earlier eval anew; no model is needed."),
    ] = None,
) -> None:
    """Measure accuracy and cost: avg@k and pass@k with intervals, what an answer costs, differences to the baseline.

    Without a recipe and --ckpt, the newest checkpoint is taken and named on the first line.
    """
    if suite is not None and asked.recipe is not None:
        raise UsageError(f"--suite {suite} and the recipe {asked.recipe}: give one of them", hint="pipo eval --help")
    options = {
        "profile": profile,
        "problems.count": limit,
        "problems.ids": questions or None,
        "samples": samples,
    }
    if regrade is not None:
        _regrade(ctx, regrade, asked, given=[suite, sampling, url, api_key_env, served, *options.values()])
        return
    if not url and (api_key_env or served):
        raise UsageError(f"--{'api-key-env' if api_key_env else 'served'} is about the server at --url")
    servers = {address_name(one): remote_settings(one, api_key_env, served) for one in url or ()}
    if len(servers) < len(url or ()):
        raise UsageError("--url: an address is given twice")
    changes = [f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None]
    about = None
    if asked.recipe is None:
        from pipo_core.recipes.suites import find_suites

        chosen = suite or _USUAL_SUITE
        find_suites(chosen)  # a wrong name is told before a checkpoint is looked for
        changes, about = [f"suite={json.dumps(chosen)}", *changes], Path(chosen).stem
    asked = replace(asked, changes=[*changes, *asked.changes])
    compare(ctx, "eval", STANDARD, asked, servers, about=about, presets=[str(one) for one in sampling or ()])


def _regrade(ctx: typer.Context, folder: Path, asked: Asked, given: list[object]) -> None:
    """Grade the answers in a folder anew.

    Raises:
        UsageError: if options or changes are given that only apply when answers are asked for.
    """
    arm = [asked.recipe, asked.changes, asked.ckpt, asked.method, asked.taus]
    if any([*given, *arm, asked.dry_run, asked.out != DEFAULT_OUT]):
        raise UsageError("--regrade takes the folder's own settings: no recipe, changes or other options apply")
    from pipo_cli.jobs import show_outcome
    from pipo_cli.reporter import open_reporter
    from pipo_core.pipeline.regrade import regrade

    show_outcome(ctx, regrade(folder, open_reporter()))
