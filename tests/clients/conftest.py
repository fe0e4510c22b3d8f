"""Servers for clients of other projects, which live in an environment of their own (`make test-clients`)."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipo_core.model import load_checkpoint, save_checkpoint
from pipo_core.recipes.locate import bundled_model
from tests.processes import served_address
from tests.sglang_cpu.conftest import CPU_FLAGS, CPU_VARIABLES

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / ".venv-clients" / "bin" / "python"
SGLANG = ROOT / ".venv-sglang" / "bin" / "python"
POOLS = ("--max-mamba-cache-size", "64", "--max-total-tokens", "4096", "--disable-overlap-schedule")

if not CLIENTS.exists():
    collect_ignore_glob = ["test_*.py"]


class Served(NamedTuple):
    """A running server.

    Attributes:
        address: of its interface.
        folder: of the checkpoint; the model's name is ``m``.
    """

    address: str
    folder: Path


@contextmanager
def serving(folder: Path, engine: str) -> Iterator[Served]:
    """Serve a checkpoint with `pipo serve` on one of the engines."""
    python, further = (str(SGLANG), ("--", *CPU_FLAGS, *POOLS)) if engine == "sglang" else (sys.executable, ())
    if engine == "sglang" and not SGLANG.exists():
        pytest.skip("make test-sglang builds the environment with SGLang")
    command = [python, "-m", "pipo_cli.main", "serve", "--ckpt", str(folder), "--port", "0", "--name", "m"]
    process = subprocess.Popen(
        [*command, "--engine", engine, "--log-level", "warning", *further],
        cwd=ROOT,
        env={**os.environ, **CPU_VARIABLES},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Served(served_address(process), folder)
    finally:
        process.terminate()
        process.communicate(timeout=120)


@pytest.fixture(scope="module", params=["torch", "sglang"])
def regular(request: pytest.FixtureRequest) -> Iterator[Served]:
    """A server with an uncompressed model."""
    with serving(bundled_model("tiny-student"), request.param) as served:
        yield served


@pytest.fixture(scope="module", params=["torch", "sglang"])
def pairs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with a pair model that means nothing."""
    source = bundled_model("tiny-student")
    folder = tmp_path_factory.mktemp("clients") / "pairs"
    save_checkpoint(load_checkpoint(source), folder, layout="pipo", tokenizer_from=source)
    with serving(folder, request.param) as served:
        yield served


def run_client(folder: Path, *words: str, **variables: str) -> str:
    """Run a module of the clients' environment in a folder and return what it said."""
    offline: dict[str, Any] = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hub")}
    done = subprocess.run(
        [str(CLIENTS), "-m", *words],
        cwd=folder,
        env={**os.environ, **offline, **variables},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout
