"""Where a step's time goes in SGLang's scheduler while it serves a pair model: sampled by py-spy (pip install py-spy).

    pipo serve --engine sglang --ckpt CKPT --port 8000 --name m … &
    python -m tools.benchmarks.sglang_profile --pid PID_OF_PIPO --url http://127.0.0.1:8000 --concurrency 8 --out FILE

Samples are shared out by what stands on their stacks. `hooks` is time in our own Python alone, between SGLang's
functions and the networks': what the plugin costs beside what it computes.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

import httpx
import psutil

from pipo_core.files import write_json
from pipo_core.machine import machine, versions

PARTS = {
    "idle": ("recv_requests", "idle_sleeper", "maybe_sleep_on_idle"),
    "backbone and first head": ("pipo_core/sglang/model.py:Qwen3_5ForCausalPIPO.forward",),
    "MTP layer and gate": ("pipo_core/sglang/mtp.py", "pipo_core/sglang/model.py:Qwen3_5ForCausalPIPO.draft"),
    "second head": ("pipo_core/sglang/model.py:Qwen3_5ForCausalPIPO.project",),
    "SGLang's sampling": ("srt/layers/sampler.py",),
}
"""Parts of a step, and what on a stack tells them; the first one that is found counts."""
_LOOP = "event_loop_"
HOOKS = "pipo_core/sglang/"
NETWORKS = ("pipo_core/sglang/model.py", "pipo_core/sglang/mtp.py")


def main() -> None:
    """Profile, write the shares and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pid", type=int, required=True, help="of pipo serve")
    parser.add_argument("--url", required=True)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    stop = threading.Event()
    clients = [threading.Thread(target=_ask, args=(given.url, number, stop)) for number in range(given.concurrency)]
    for client in clients:
        client.start()
    try:
        counts = shares(_stacks(_scheduler(given.pid), given.seconds))
    finally:
        stop.set()
        for client in clients:
            client.join()
    total = counts.total() - counts["idle"]
    found = {part: round(100 * count / total, 1) for part, count in counts.most_common() if part != "idle"}
    if given.out:
        about = {"machine": machine(), "versions": versions(), "concurrency": given.concurrency}
        write_json(given.out, {**about, "samples": total, "percent of a busy scheduler": found})
    for part, share in found.items():
        sys.stdout.write(f"{share:5.1f} %  {part}\n")


def shares(stacks: str) -> "Counter[str]":
    """Return the samples of each part.

    Args:
        stacks: py-spy's raw form: a line a stack, its frames from the outermost on, and how often it was seen.
    """
    counts: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, number = line.rpartition(" ")
        if _LOOP not in stack:  # another thread's
            continue
        counts[_part(stack)] += int(number)
    return counts


def _part(stack: str) -> str:
    frames = [frame.replace(" (", "(") for frame in stack.split(";")]
    marks = [_mark(frame) for frame in frames]
    for part, signs in PARTS.items():
        if any(sign in mark for mark in marks for sign in signs):
            return part
    if HOOKS in marks[-1] and not any(name in marks[-1] for name in NETWORKS):
        return "hooks"
    return "hooks' tensor operations" if any(HOOKS in mark for mark in marks) else "SGLang's scheduling and the rest"


def _mark(frame: str) -> str:
    """Return a frame ``name(file:line)`` as ``file:name``."""
    name, _, place = frame.partition("(")
    return f"{place.rstrip(')').rpartition(':')[0]}:{name}"


def _stacks(pid: int, seconds: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stacks"
        words = ["record", "--pid", str(pid), "--duration", str(seconds), "--format", "raw", "--full-filenames"]
        subprocess.run(["py-spy", *words, "--output", str(file)], check=True, capture_output=True)  # noqa: S607
        return file.read_text()


def _scheduler(pid: int) -> int:
    """Return the process that steps the model, below a server's."""
    for process in psutil.Process(pid).children(recursive=True):
        if any("sglang::scheduler" in word for word in process.cmdline()):
            return process.pid
    sys.exit(f"process {pid} has no scheduler of SGLang's below it")


def _ask(url: str, number: int, stop: threading.Event) -> None:
    sampling = {"max_new_tokens": 200, "ignore_eos": True, "temperature": 0}
    body = {"input_ids": [(7 * number + place) % 70 + 3 for place in range(48)], "sampling_params": sampling}
    with httpx.Client(timeout=300) as client:
        while not stop.is_set():
            client.post(f"{url}/generate", json=body).raise_for_status()


if __name__ == "__main__":
    main()
