"""Programs a second that the grader of code gets through, and what one run costs.

    python -m tools.benchmarks.sandbox --out docs/results/raw/sandbox.json

Every program is a small right one, with its own text, so that nothing could be kept from one to the next. Each is
graded in a sandbox of its own, and all its tests run in that.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipo_core.files import write_json
from pipo_core.grade import CodeGrader
from pipo_core.grade.code import PRELUDE
from pipo_core.machine import machine, versions
from pipo_core.sandbox import Sandbox, check_sandbox

SAMPLES = 50


def main() -> None:
    """Print the figures, and write them as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--tests", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(),
        "in_user_namespace": check_sandbox().user_namespace,
        "load_before": round(os.getloadavg()[0], 2),
        **_one_run(),
        "rows": [],
    }
    for tests in given.tests:
        for workers in given.workers:
            found["rows"].append(_throughput(given.programs, tests, workers))
            sys.stdout.write(f"{found['rows'][-1]}\n")
    if given.out:
        write_json(given.out, found)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


def _one_run() -> dict[str, float]:
    """Return median milliseconds of a sandbox's start with the first run, of a further run, and of its end."""
    times: list[list[float]] = []
    for _ in range(SAMPLES):
        marks = [time.perf_counter()]
        sandbox = Sandbox(prelude=PRELUDE)
        for _ in range(2):
            if sandbox.run("print(input())", "1").stdout != b"1\n":
                raise RuntimeError("the program did not run")
            marks.append(time.perf_counter())
        sandbox.close()
        marks.append(time.perf_counter())
        times.append([1000 * (after - before) for before, after in pairwise(marks)])
    names = ("start_and_first_run_ms", "further_run_ms", "close_ms")
    return {
        name: round(statistics.median(column), 2) for name, column in zip(names, zip(*times, strict=True), strict=True)
    }


def _throughput(programs: int, tests: int, workers: int) -> dict[str, float]:
    """Return how long it takes to grade programs by several tests each."""
    texts = [f"```python\n# {number}\nn = int(input())\nprint(n * {number})\n```" for number in range(programs)]
    inputs = range(tests)
    answers = [{"tests": [{"input": f"{n}", "output": f"{n * factor}"} for n in inputs]} for factor in range(programs)]
    load = os.getloadavg()[0]
    with CodeGrader(workers=workers) as grader, ThreadPoolExecutor(workers) as pool:
        began, used = time.perf_counter(), _processor_seconds()
        verdicts = list(pool.map(grader.grade, texts, answers))
        seconds, used = time.perf_counter() - began, _processor_seconds() - used
    if verdicts != [True] * programs:
        raise RuntimeError(f"{verdicts.count(True)} of {programs} right programs were graded right")
    return {
        "programs": programs,
        "tests_each": tests,
        "workers": workers,
        "seconds": round(seconds, 2),
        "programs_per_second": round(programs / seconds, 2),
        "tests_per_second": round(programs * tests / seconds, 2),
        "processor_ms_per_program": round(1000 * used / programs, 2),
        "load_before": round(load, 2),
    }


def _processor_seconds() -> float:
    """Return what this process and its ended children have used; other work on the machine adds little to it."""
    used = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
