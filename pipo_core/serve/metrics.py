"""Counters and histograms of the server for Prometheus."""

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipo_core.engine import Completion, EngineStats
from pipo_core.engine.live import LiveStream

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)


class Metrics:
    """What the server has answered so far. Tokens exclude PAD; times begin when a request arrived.

    Args:
        stats: returns the engine's state.
        default_tau: returns the present threshold of requests that name none; None where it does not change.
    """

    def __init__(self, stats: Callable[[], EngineStats], default_tau: Callable[[], float | None]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(stats, default_tau))
        self._requests = Counter(
            "pipo_requests", "Choices by finish reason, refusals by status.", ["outcome"], registry=self._registry
        )
        self._prompt_tokens = Counter("pipo_prompt_tokens", "Tokens of prompts.", registry=self._registry)
        self._completion_tokens = Counter("pipo_completion_tokens", "Tokens written.", registry=self._registry)
        self._ttft = self._histogram("time_to_first_token", "From a request's arrival to its first token.")
        self._seconds = self._histogram("request", "From a request's arrival to its last token.")
        self._tpot = self._histogram("time_per_token", "Between the first and the last token, for each token.")

    def _histogram(self, name: str, meaning: str) -> Histogram:
        return Histogram(f"pipo_{name}_seconds", meaning, buckets=_SECONDS, registry=self._registry)

    def refuse(self, status: int) -> None:
        """Count a request that was answered with an error."""
        self._requests.labels(str(status)).inc()

    def count(self, completions: Sequence[Completion], streams: Sequence[LiveStream], prompt_tokens: int) -> None:
        """Count an accepted body that was answered, or whose client has left.

        Args:
            completions: of the choices that have ended.
            streams: of all its choices.
            prompt_tokens: of its prompts, however many choices share them.
        """
        for completion in completions:
            self._requests.labels(completion.finish_reason).inc()
        left = len(streams) - len(completions)
        if left:
            self._requests.labels("cancelled").inc(left)
        self._prompt_tokens.inc(prompt_tokens)
        for stream in streams:
            self._completion_tokens.inc(stream.tokens)
            if stream.first_after is None or stream.last_after is None:
                continue
            self._ttft.observe(stream.first_after)
            self._seconds.observe(stream.last_after)
            if stream.tokens > 1:
                self._tpot.observe((stream.last_after - stream.first_after) / (stream.tokens - 1))

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        text: bytes = generate_latest(self._registry)
        return text

    def value(self, name: str, **labels: str) -> float:
        """Return the value of one series; 0 before it was counted."""
        return self._registry.get_sample_value(name, labels) or 0.0


class _EngineCollector(Collector):  # type: ignore[misc] # the library has no types
    def __init__(self, stats: Callable[[], EngineStats], default_tau: Callable[[], float | None]) -> None:
        self._stats = stats
        self._default_tau = default_tau

    def collect(self) -> Iterable[Metric]:
        stats = self._stats()
        yield CounterMetricFamily("pipo_steps", "Steps of the engine.", stats.steps)
        yield CounterMetricFamily("pipo_drafts", "Drafts offered.", stats.drafts)
        yield CounterMetricFamily("pipo_drafts_kept", "Drafts kept.", stats.kept)
        yield GaugeMetricFamily("pipo_requests_running", "Requests being answered.", stats.running)
        yield GaugeMetricFamily("pipo_requests_waiting", "Requests that have not started.", stats.waiting)
        yield GaugeMetricFamily("pipo_rows_free", "Requests for which the batch has places.", stats.free)
        tau = self._default_tau()
        if tau is not None:
            yield GaugeMetricFamily("pipo_default_tau", "Threshold of requests that name none, at this load.", tau)
