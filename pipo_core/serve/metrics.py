"""Counters of the server in Prometheus' text format."""

from collections import Counter
from dataclasses import dataclass, field

from pipo_core.engine import Completion
from pipo_core.engine.api import EngineStats


@dataclass
class Metrics:
    """Counts of the answers so far. PAD is not counted as a token."""

    requests: Counter[str] = field(default_factory=Counter)  # by finish reason, or by HTTP status if rejected
    prompt_tokens: int = 0
    completion_tokens: int = 0
    ttft_seconds: float = 0.0
    seconds: float = 0.0

    def count(self, completion: Completion, prompt_tokens: int) -> None:
        """Count a finished answer."""
        self.requests[completion.finish_reason] += 1
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion.tokens
        self.ttft_seconds += completion.ttft_s
        self.seconds += completion.time_s

    def text(self, stats: EngineStats) -> str:
        """Return all counters, and gauges of the engine's state, in Prometheus' text format."""
        lines = ["# TYPE pipo_requests_total counter"]
        lines += [f'pipo_requests_total{{outcome="{name}"}} {count}' for name, count in sorted(self.requests.items())]
        counters = {
            "pipo_prompt_tokens_total": self.prompt_tokens,
            "pipo_completion_tokens_total": self.completion_tokens,
            "pipo_time_to_first_token_seconds_total": self.ttft_seconds,
            "pipo_request_seconds_total": self.seconds,
            "pipo_steps_total": stats.steps,
            "pipo_drafts_total": stats.drafts,
            "pipo_drafts_kept_total": stats.kept,
        }
        gauges = {
            "pipo_requests_running": stats.running,
            "pipo_requests_waiting": stats.waiting,
            "pipo_rows_free": stats.free,
        }
        for kind, values in (("counter", counters), ("gauge", gauges)):
            for name, value in values.items():
                lines += [f"# TYPE {name} {kind}", f"{name} {value}"]
        return "\n".join(lines) + "\n"
