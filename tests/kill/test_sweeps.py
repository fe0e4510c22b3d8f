"""A few places of those that `sweep` and `full_disk` try when they are run by hand."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tools.kill.world import CHECKOUT

TRIES = [
    "kill/16/merge",
    "kill/22/merge, over an earlier model",
    "kill/15/rollout, beside changed ones",
    "kill/24/eval",
    "kill/105/calibrate",
    "kill/120/run",
    "kill/80/train",
    "real-alone/160/train",  # what is left behind ends by itself, and the next start waits for it
    "interrupt/23/merge",
    "interrupt/40/eval",
    "interrupt/105/calibrate",
    "interrupt/160/train",
]
FULL = ["1/merge", "1/eval", "1/train"]


def run(module: str, tries: list[str], *before: str) -> list[dict[str, Any]]:
    """Return the table that a module of this room prints after its tries."""
    words = [*before, sys.executable, "-m", f"tools.kill.{module}", *tries]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    table: list[dict[str, Any]] = json.loads(done.stdout)
    return table


@pytest.mark.slow
def test_killed_or_interrupted_anywhere_the_same_command_comes_to_the_same_end() -> None:
    for row in run("sweep", TRIES):
        assert row["failures"] == [], row["command"]
        assert row["survived"] == row["tried"]
        assert row["met"] >= row["tried"] - 1, "a fault that nobody meets shows nothing"


def may_mount() -> bool:
    """Whether a process may have a disk of its own here."""
    words = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/tmp"]
    try:
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not may_mount(), reason="no disk can be made here")
def test_a_full_disk_is_said_in_one_line_and_loses_nothing() -> None:
    for row in run("full_disk", FULL, "unshare", "-rm"):
        assert row["failures"] == [], row["command"]
        assert row["stopped"] == row["went on"] > 0


@pytest.mark.slow
def test_a_damaged_file_is_made_good_or_named() -> None:
    """Some of the tries of `tools.damage.sweep`; it fails if one passes in silence."""
    words = [sys.executable, "-m", "tools.damage.sweep", "--every", "100"]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert "made good" in done.stdout
