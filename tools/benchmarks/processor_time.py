"""Runs a command of pipo by the clock of its own processor time: for CPUs that are shared with other work.

    OMP_NUM_THREADS=1 python -m tools.benchmarks.processor_time bench recipes/tiny/bench.yaml

With one thread, and nothing to wait for, processor time is what the same work takes on an idle machine. With several
threads it is their sum, and the figures mean nothing.
"""

import os
import sys
import time

from pipo_cli.main import main

if __name__ == "__main__":
    if os.environ.get("OMP_NUM_THREADS") != "1":
        sys.exit("OMP_NUM_THREADS=1 must be set: processor time is summed over threads")
    time.perf_counter = time.process_time
    main()
