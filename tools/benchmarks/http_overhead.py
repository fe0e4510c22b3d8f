"""What HTTP adds to the engine, and what a burst of requests does to a running server.

    pipo serve --ckpt outputs/demo/opd-merge/model --port 8000 --name tiny
    python -m tools.benchmarks.http_overhead http://127.0.0.1:8000 --model tiny --burst 2000 --out overhead.json

The time to the first token is taken twice for the same requests: by the client, and by the server, whose counter begins
when the request has been read. Their difference is what HTTP, JSON and the tokenizer cost.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from pipo_core.files import write_json
from pipo_core.machine import machine, versions

_COUNTER = "pipo_time_to_first_token_seconds_sum"


def main() -> None:
    """Print the figures, and write them as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--model", required=True)
    parser.add_argument("--requests", type=int, default=50)
    parser.add_argument("--burst", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    body = {"model": given.model, "prompt": "Compute 11+6+2-4.", "max_tokens": 32, "temperature": 0}
    found: dict[str, Any] = {"machine": machine(), "versions": versions(), "requests": given.requests}
    with httpx.Client(base_url=given.address, timeout=60) as client:
        found |= _first_tokens(client, body, given.requests)
    if given.burst:
        found["burst"] = asyncio.run(_burst(given.address, body, given.burst))
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    if given.out:
        write_json(given.out, found)


def _first_tokens(client: httpx.Client, body: dict[str, Any], count: int) -> dict[str, float]:
    """Return median milliseconds of health, and mean milliseconds to the first token by client and by server."""
    health, first = [], []
    for _ in range(count):
        began = time.perf_counter()
        client.get("/health")
        health.append(time.perf_counter() - began)
    before = _counter(client)
    for _ in range(count):
        began = time.perf_counter()
        with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as answer:
            lines = answer.iter_lines()
            next(lines)
            first.append(time.perf_counter() - began)
            for _ in lines:
                pass
    by_server = (_counter(client) - before) / count
    return {
        "health_ms": round(1000 * statistics.median(health), 3),
        "first_token_client_ms": round(1000 * statistics.mean(first), 3),
        "first_token_server_ms": round(1000 * by_server, 3),
        "http_adds_ms": round(1000 * (statistics.mean(first) - by_server), 3),
    }


def _counter(client: httpx.Client) -> float:
    lines = client.get("/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(_COUNTER + " "))


async def _burst(address: str, body: dict[str, Any], count: int) -> dict[str, Any]:
    """Send many requests at once; return how they ended, and how long the answered ones took, in seconds."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=600) as client:

        async def one() -> tuple[str, float]:
            began = time.perf_counter()
            try:
                status = str((await client.post("/v1/completions", json=body)).status_code)
            except httpx.HTTPError as error:
                status = type(error).__name__
            return status, time.perf_counter() - began

        ends = await asyncio.gather(*(one() for _ in range(count)))
    answered = [seconds for status, seconds in ends if status == "200"]
    return {
        "sent": count,
        "ends": dict(Counter(status for status, _ in ends)),
        "answered_median_s": round(statistics.median(answered), 2) if answered else None,
    }


if __name__ == "__main__":
    main()
