"""Seconds and peak memory of cases that each run in a process of their own, so that each peak is their own (Linux)."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def measured(work: Callable[[], Any]) -> dict[str, float]:
    """Return the seconds of ``work`` and the peak bytes of this process above what it holds now."""
    before = _kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_bytes": (_kilobytes("VmHWM") - before) * 1024}


def main(module: str, what: str, facts: dict[str, Any], cases: Sequence[dict[str, Any]], measure: Any) -> None:
    """Run every case and write the figures as they come; started again with a case, measure that one and print it.

    Args:
        module: the caller's name, which is started once a case, from the checkout's root.
        what: what is measured, for the help text.
        facts: what holds for all cases, for the file.
        cases: keyword arguments of `measure`.
        measure: returns a case's figures.
    """
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--case", type=int, help="number of one case: measure it here and print it")
    arguments = parser.parse_args()
    if arguments.case is not None:
        sys.stdout.write(json.dumps(measure(**cases[arguments.case])))
        return
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    rows: list[dict[str, Any]] = []
    for number, case in enumerate(cases):
        command = [sys.executable, "-m", module, "--out", "-", "--case", str(number)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append({**case, **json.loads(output)})
        sys.stdout.write(f"{rows[-1]}\n")
        arguments.out.write_text(json.dumps({**facts, "machine": machine, "rows": rows}, indent=2) + "\n")


def _kilobytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])
