"""Counters of the server in Prometheus' text format."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipo_core.engine import Completion, EngineStats
from pipo_core.engine.live import LiveStream


@dataclass
class Metrics:
    """What the server has answered so far. Tokens exclude PAD; times begin when a request arrived."""

    requests: Counter[str] = field(default_factory=Counter)  # by finish reason, or the status of a refusal
    prompt_tokens: int = 0
    completion_tokens: int = 0
    ttft_seconds: float = 0.0
    seconds: float = 0.0

    def count(self, completions: Sequence[Completion], streams: Sequence[LiveStream], prompt_tokens: int) -> None:
        """Count an accepted body that was answered, or whose client has left.

        Args:
            completions: of the choices that have ended.
            streams: of all its choices.
            prompt_tokens: of its prompts, however many choices share them.
        """
        for completion in completions:
            self.requests[completion.finish_reason] += 1
        left = len(streams) - len(completions)
        if left:
            self.requests["cancelled"] += left
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += sum(stream.tokens for stream in streams)
        self.ttft_seconds += sum(stream.first_after or 0.0 for stream in streams)
        self.seconds += sum(stream.last_after or 0.0 for stream in streams)

    def text(self, stats: EngineStats) -> str:
        """Return all counters, and the engine's state."""
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
