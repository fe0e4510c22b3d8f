"""Memory of an evaluation of 5,000 questions × 4 answers over its time, by a server that answers at once.

    python -m tools.benchmarks.eval_memory --out eval_memory.json

The server runs in this process and the evaluation in one of its own, whose resident memory is read twice a second.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from pipo_core.files import read_json, write_json
from tests.engine.scripted_server import Answer, ScriptedServer, scripted

TEXT = "So it is. " * 50
"""In front of each answer's box."""


def main() -> None:
    """Print the memory at each tenth of the answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=5000)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), given.questions, given.samples)
    print(json.dumps(found, indent=1))  # noqa: T201 - the tool's output
    if given.out is not None:
        write_json(given.out, found)


def measure(folder: Path, questions: int, samples: int) -> dict[str, Any]:
    """Return the resident memory in MiB over the run, and its accuracy, which must be 1."""
    rows = [{"problem": f"What is {n}?", "answer": str(n), "id": str(n)} for n in range(questions)]
    copy = folder / "test.jsonl"
    copy.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def answer(_: str, body: Mapping[str, Any]) -> Answer:
        number = body["messages"][0]["content"].removesuffix("?").split()[-1]
        message = {"role": "assistant", "content": f"{TEXT}\\boxed{{{number}}}"}
        usage = {"prompt_tokens": 20, "completion_tokens": 120}
        return 200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}

    server = ScriptedServer(post=answer, get={"/v1/models": (200, {"data": [{"id": "m"}]})})
    with scripted(server):
        words = ["eval", "--suite", "math", "--samples", str(samples), "--url", server.url, "--out", str(folder)]
        command = [sys.executable, "-m", "pipo_cli.main", *words, f"benchmark.math={copy}", "run=e"]
        process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        began, memory = time.monotonic(), []
        while process.poll() is None:
            try:
                mib = round(process.memory_info().rss / 2**20)
            except psutil.NoSuchProcess:
                break
            memory.append({"s": round(time.monotonic() - began, 1), "answers": len(server.asked), "mib": mib})
            server.asked[:] = [("", {})] * len(server.asked)  # only their number is wanted
            time.sleep(0.5)
    results = read_json(folder / "e" / "eval" / "results.json")["suites"][0]
    asking = [one for one in memory if 0 < one["answers"] < questions * samples]
    tenths = [asking[len(asking) * place // 10] for place in range(10)] if asking else []
    return {
        "answers": questions * samples,
        "accuracy": results["arms"][0]["budgets"]["tokens"]["avg"]["value"],
        "seconds": memory[-1]["s"],
        "mib_by_tenths_of_asking": tenths,
        "most_mib": max(one["mib"] for one in memory),
    }


if __name__ == "__main__":
    main()
