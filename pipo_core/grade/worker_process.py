"""The process that grades what can be hostile: it reads jobs as JSON lines and writes one JSON value for each.

`WorkerGrader` starts it by file path, with the path of a file beside it that has `load`: the process imports nothing
of pipo. A model wrote its input:

- Time: each job has `seconds` and arms a timer whose signal keeps its default action. So the kernel ends this process
  even inside a long multiplication in C, and even if the parent is gone.
- Memory: the address space is limited, so `10^{10^{10}}` raises a MemoryError.
- End of input, when the parent closes the pipe or dies, ends the process.
"""

import json
import os
import resource
import runpy
import signal
import sys

ADDRESS_SPACE = 2 << 30  # bytes


def main() -> None:
    """Load what grades, write `"ready"`, then answer jobs until the input ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    replies = os.fdopen(os.dup(1), "w", buffering=1, encoding="ascii")
    os.dup2(2, 1)  # what a library prints must not be taken for a reply
    answer = runpy.run_path(sys.argv[1])["load"]()
    replies.write('"ready"\n')
    for line in sys.stdin:
        job = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, job["seconds"])
        try:
            reply = answer(job)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        replies.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main()
