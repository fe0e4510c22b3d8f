"""Prometheus counters of pairs, beside SGLang's own on ``/metrics``."""

from functools import cache
from typing import Any


@cache
def _counters() -> dict[str, Any]:
    """Return the counters; SGLang must have set the library up for several processes before it is imported."""
    from prometheus_client import Counter

    told = {
        "slots": "Slots of finished requests",
        "drafts_kept": "Drafts that finished requests kept",
        "drafts_rejected": "Slots of finished requests that hold one token",
    }
    return {name: Counter(f"sglang:pipo_{name}", text) for name, text in told.items()}


def count_finished(slots: int, kept: int) -> None:
    """Count a finished request's slots and kept drafts, if the server has metrics."""
    from sglang.srt.runtime_context import get_observability

    if get_observability().enable_metrics:
        counters = _counters()
        counters["slots"].inc(slots)
        counters["drafts_kept"].inc(kept)
        counters["drafts_rejected"].inc(slots - kept)
