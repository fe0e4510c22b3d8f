"""A soak test of the server: ``python -m tools.soak --pid PID --address http://127.0.0.1:PORT/v1``.

Many clients send one request after another for some minutes: chats and completions, streamed and whole. In a tenth of
the requests the client leaves a stream half-way. Prints JSON: answers, streams left, errors, requests that still run or
wait at the end, and the server's memory.
"""

import argparse
import json
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

LEAVE = 0.1


def soak(address: str, model: str, pid: int, *, clients: int, seconds: float, seed: int) -> dict[str, Any]:
    """Return counts of the requests that ``clients`` threads sent for ``seconds``, errors, and the server's memory."""
    counts: Counter[str] = Counter()
    errors: list[str] = []
    memory: list[float] = []
    until = time.monotonic() + seconds

    def ask(rng: random.Random, client: httpx.Client) -> None:
        chat = rng.random() < 0.5
        asked: Any = {"messages": [{"role": "user", "content": "1+2"}]} if chat else {"prompt": "1+2 is"}
        body = {**asked, "model": model, "max_tokens": rng.randrange(1, 60), "n": rng.choice([1, 1, 2])}
        path = "/chat/completions" if chat else "/completions"
        if rng.random() < 0.5:
            answer = client.post(path, json=body)
            answer.raise_for_status()
            counts["tokens"] += answer.json()["usage"]["completion_tokens"]
        else:
            leaves = rng.random() < 2 * LEAVE
            with client.stream("POST", path, json={**body, "stream": True}) as answer:
                answer.raise_for_status()
                for line in answer.iter_lines():
                    if leaves and line:
                        counts["left"] += 1
                        return
                assert line == "" or line.endswith("[DONE]"), line
        counts["answers"] += 1

    def talk(number: int) -> None:
        rng = random.Random(f"{seed}-{number}")
        with httpx.Client(base_url=address, timeout=60) as client:
            while time.monotonic() < until:
                try:
                    ask(rng, client)
                except Exception as error:  # noqa: BLE001 - every failure is counted
                    errors.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        memory.append(_resident_mib(pid))
        time.sleep(1)
    for thread in threads:
        thread.join()
    time.sleep(1)
    idle = httpx.get(address.replace("/v1", "/metrics")).text
    running = sum(
        int(float(line.split()[1]))
        for line in idle.splitlines()
        if line.startswith("pipo_requests_running") or line.startswith("pipo_requests_waiting")
    )
    settled = memory[len(memory) // 4 :] or memory
    return {
        "clients": clients,
        "seconds": seconds,
        **{name: counts[name] for name in ("answers", "left", "tokens")},
        "errors": errors,
        "rows_leaked": running,
        "memory_mib": {"first": memory[0], "after a quarter": settled[0], "last": memory[-1], "most": max(memory)},
    }


def _resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


def main() -> None:
    """Parse the command line, run the test and print its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=120)
    options = parser.parse_args()
    found = soak(options.address, options.model, options.pid, clients=options.clients, seconds=options.seconds, seed=0)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
