"""Kills an evaluation at random moments, again and again, and compares its final results with an undisturbed run's.

    python -m tools.kill.random_kills --kills 20 --out kills.json

Each round starts `pipo eval` in the tiny world, waits a random time and sends SIGKILL. Rounds that find the evaluation
finished start a new one, until as many kills as asked for have hit a running command. Then the command runs to its end.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pipo_core.data.answers import read_index
from pipo_core.evaluate.runner import answers_path
from pipo_core.files import read_json, write_json

ARMS = '[{"name": "student", "method": "regular", "ckpt": "tiny-student"}, {"name": "teacher", "method": "regular", '
ARMS += '"ckpt": "tiny-teacher"}]'


def main() -> None:
    """Print a line for each kill and the outcome; end with 1 if results differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), given.kills, given.questions, random.Random(given.seed))
    print(json.dumps(found, indent=1))  # noqa: T201 - the tool's output
    if given.out is not None:
        write_json(given.out, found)
    sys.exit(0 if found["equal"] else 1)


def run(folder: Path, kills: int, questions: int, rng: random.Random) -> dict[str, Any]:
    """Return what the kills hit and whether the final results equal an undisturbed run's."""
    began = time.monotonic()
    _evaluate(folder / "whole", questions).wait()
    whole = time.monotonic() - began
    hit: list[dict[str, Any]] = []
    attempt = 0
    while len(hit) < kills:
        out = folder / f"killed-{attempt}"
        process = _evaluate(out, questions)
        try:
            process.wait(timeout=rng.uniform(0.2, 1.0) * whole)
            attempt += 1  # it came to its end before the kill
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            hit.append({"run": attempt, "answers": _answers(out)})
    out = folder / f"killed-{attempt}"
    _evaluate(out, questions).wait()
    runs = sorted({one["run"] for one in hit})
    wanted = _results(folder / "whole")
    return {
        "kills": len(hit),
        "runs": len(runs),
        "seconds_undisturbed": round(whole, 1),
        "hits": hit,
        "equal": all(_results(folder / f"killed-{number}") == wanted for number in runs),
    }


def _evaluate(out: Path, questions: int) -> subprocess.Popen[bytes]:
    words = ["eval", "--suite", "tiny", "--limit", str(questions), "--samples", "2", "--out", str(out)]
    command = [sys.executable, "-m", "pipo_cli.main", *words, "--ckpt", "tiny-student"]
    command += [f"arms={ARMS}", "baseline=student", "engine.threads=1", "engine.batch=16", "run=e"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _answers(out: Path) -> int:
    """Return how many answers are on disk."""
    files = [answers_path(out / "e" / "eval", "tiny", label) for label in ("student", "teacher")]
    return sum(len(read_index(file)) for file in files if file.is_file())


def _results(out: Path) -> Any:
    """Return the final results without the times."""
    found = read_json(out / "e" / "eval" / "results.json")
    for suite in found["suites"]:
        for arm in suite["arms"]:
            for at in arm["budgets"].values():
                for cost in (at["cost"]["answer"], at["cost"]["right"]):
                    del cost["seconds"]
    return found


if __name__ == "__main__":
    main()
