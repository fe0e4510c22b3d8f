"""`pipo bench`."""

from typing import Annotated

import typer

from pipo_cli.comparisons import Asked, compare, comparison
from pipo_cli.jobs import load_job, run_job
from pipo_cli.servers import ApiKeyEnv, Served, address_name, remote_settings
from pipo_core.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(
        "bench",
        epilog="Examples: pipo bench --ckpt outputs/demo/merge/model prompt_tokens=[128,512]; "
        "pipo bench --random-weights qwen3.5-0.8b prompt_tokens=[2048]; "
        "pipo bench --ckpt outputs/demo/merge/model --url http://127.0.0.1:8000",
    )(bench)


@comparison
def bench(
    ctx: typer.Context,
    asked: Asked,
    random_weights: Annotated[
        str | None,
        typer.Option(
            "--random-weights",
            metavar="SHAPE",
            help="Instead of a checkpoint: all methods on random weights of a published shape, such as qwen3.5-4b.",
        ),
    ] = None,
    url: Annotated[
        list[str] | None,
        typer.Option(
            "--url",
            metavar="URL",
            help="Instead of the torch engine: a running server of the checkpoint; repeat to compare several.",
        ),
    ] = None,
    api_key_env: ApiKeyEnv = None,
    served: Served = None,
) -> None:
    """Measure time to first token, time per output token, and throughput.

    PAD is not counted as a token. Without a recipe, --ckpt and --random-weights, the newest checkpoint is taken and
    named on the first line. With --url its tokenizer makes the prompts, and the server answers.
    """
    if not url and (api_key_env or served):
        raise UsageError(f"--{'api-key-env' if api_key_env else 'served'} is about the server at --url")
    if random_weights is not None:
        if url:
            raise UsageError("--random-weights and --url: only the torch engine makes random weights; give one of them")
        for option, value in (("--ckpt", asked.ckpt), ("--method", asked.method), ("--tau", asked.taus or None)):
            if value is not None:
                raise UsageError(f"{option} is for a checkpoint, and --random-weights compares arms of its own")
        changes = [f"random_weights={random_weights}", f"run=bench-{random_weights}", *asked.changes]
        name = asked.recipe or "bench/latency.yaml"
        run_job(ctx, load_job("bench", name, changes), asked.out, dry_run=asked.dry_run, name=name)
        return
    servers = {address_name(one): remote_settings(one, api_key_env, served) for one in url or ()}
    if len(servers) < len(url or ()):
        raise UsageError("--url: an address is given twice")
    compare(ctx, "bench", "tiny/bench.yaml", asked, servers)
