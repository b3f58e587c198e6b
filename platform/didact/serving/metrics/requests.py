"""What a gateway counts of HTTP requests, under the names that vLLM's dashboards read."""

import uuid

import prometheus_client as prometheus

from didact.serving.metrics.snapshots import Snapshot, snapshot_of

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 60, 120, 300)


class HttpMetrics:
    """Counts requests by route and class of status."""

    def __init__(self) -> None:
        self._source = uuid.uuid4().hex
        self._registry = registry = prometheus.CollectorRegistry()
        labels = ["handler", "method"]
        self._requests = prometheus.Counter(
            "http_requests", "Requests, by class of status.", [*labels, "status"], registry=registry
        )
        self._seconds = prometheus.Histogram(
            "http_request_duration_seconds",
            "Seconds until the last byte of an answer.",
            labels,
            buckets=_SECONDS,
            registry=registry,
        )

    def count(self, handler: str, method: str, status: int, seconds: float) -> None:
        """A request was answered.

        Args:
            handler: the route, with the names of its parameters in place of what was sent.
            method: GET, POST, ...
            status: of HTTP.
            seconds: from its head to the last byte of the answer.
        """
        self._requests.labels(handler, method, f"{status // 100}xx").inc()
        self._seconds.labels(handler, method).observe(seconds)

    def snapshot(self) -> Snapshot:
        """All counts now."""
        return snapshot_of(self._source, self._registry)
