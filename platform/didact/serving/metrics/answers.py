"""What a replica counts of its answers, by model and version, and of its engine.

Names, labels, buckets: vLLM's (vllm/v1/metrics/loggers.py); `version` is an additional label, empty for the base.
"""

import time
from collections import Counter as Counts
from collections.abc import Callable
from typing import Any, Literal

import prometheus_client as prometheus

from didact.serving.engine.protocol import Delta, EngineStats
from didact.serving.metrics.labels import CappedLabels
from didact.serving.metrics.snapshots import Snapshot, snapshot_of

_COUNTED_MODELS = 1000
_TIMED_MODELS = 100
"""A model's histograms are about 170 series; its counters about ten."""

_BLOCK = 16
_PER_MODEL = ("model_name", "version", "engine")
_ENGINE = "0"
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640)
_GAPS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_WHOLE = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
_HISTOGRAMS = {
    "time_to_first_token_seconds": ("Seconds from arrival to the first token.", _FIRST),
    "inter_token_latency_seconds": ("Seconds between two tokens.", _GAPS),
    "request_time_per_output_token_seconds": ("Seconds a token after the first, mean of a request.", _GAPS),
    "e2e_request_latency_seconds": ("Seconds from arrival to the last token.", _WHOLE),
    "request_queue_time_seconds": ("Seconds in the engine's queue.", _WHOLE),
    "request_inference_time_seconds": ("Seconds from the queue's end to the last token.", _WHOLE),
    "request_prefill_time_seconds": ("Seconds from the queue's end to the first token.", _WHOLE),
    "request_decode_time_seconds": ("Seconds from the first token to the last.", _WHOLE),
    "request_prompt_tokens": ("Tokens of a prompt.", _TOKENS),
    "request_generation_tokens": ("Tokens of an answer.", _TOKENS),
}
Ending = Literal["stop", "length", "abort", "error"]


class AnswerMetrics:
    """Counts a replica's answers. Used on one event loop.

    Args:
        base: the base's name in the API.
        clock: in seconds.
    """

    def __init__(self, base: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._base = base
        self.clock = clock
        self._counted, self._timed = CappedLabels(_COUNTED_MODELS), CappedLabels(_TIMED_MODELS)
        self._registry = registry = prometheus.CollectorRegistry()
        self.in_flight: Counts[tuple[tuple[str, ...], bool]] = Counts()
        """(names of an adapter, whether it is in generation) -> requests."""

        def counter(name: str, told: str, *labels: str) -> prometheus.Counter:
            return prometheus.Counter(f"vllm:{name}", told, [*_PER_MODEL, *labels], registry=registry)

        self.prompt_tokens = counter("prompt_tokens", "Tokens of prompts.")
        self.generation_tokens = counter("generation_tokens", "Tokens of answers.")
        self.endings = counter("request_success", "Requests that ended, by how.", "finished_reason")
        self.histograms = {
            name: prometheus.Histogram(f"vllm:{name}", told, _PER_MODEL, buckets=buckets, registry=registry)
            for name, (told, buckets) in _HISTOGRAMS.items()
        }

    def begin(self, model: str | None, version: str, names: tuple[str, ...]) -> "Meter":
        """A request has arrived.

        Args:
            model: registered name of the adapter; None for the base.
            version: its number, empty for the base.
            names: all that the adapter may be asked by.
        """
        pair = (model or self._base, version)
        return Meter(self, (*self._counted.of(*pair), _ENGINE), (*self._timed.of(*pair), _ENGINE), names)

    def snapshot(self, replica: str, stats: EngineStats, context_length: int) -> Snapshot:
        """All figures now.

        Args:
            replica: a name that no other replica has.
            stats: what its engine does.
            context_length: positions of the base.
        """
        registry = prometheus.CollectorRegistry()
        self._set_engine(registry, stats, context_length)
        self._set_adapters(registry, stats)
        return snapshot_of(replica, self._registry, registry)

    def _set_engine(self, registry: Any, stats: EngineStats, context_length: int) -> None:
        labels = {"model_name": self._base, "engine": _ENGINE}

        def gauge(name: str, told: str, value: float, **more: str) -> None:
            named = {**more, **labels}
            prometheus.Gauge(name, told, list(named), registry=registry).labels(**named).set(value)

        def counter(name: str, told: str, value: float) -> None:
            prometheus.Counter(name, told, list(labels), registry=registry).labels(**labels).inc(value)

        gauge("vllm:num_requests_running", "Requests in generation.", stats.num_running)
        gauge("vllm:num_requests_waiting", "Requests that wait.", stats.num_waiting)
        gauge("vllm:kv_cache_usage_perc", "Memory of keys and values in use, 1 for all.", stats.cache_usage)
        blocks = str(stats.max_running * context_length // _BLOCK)
        gauge("vllm:cache_config_info", "Its size.", 1, block_size=str(_BLOCK), num_gpu_blocks=blocks)
        asked = stats.prompt_tokens + stats.cached_prompt_tokens
        counter("vllm:prefix_cache_queries", "Tokens of prompts that were looked for.", asked)
        counter("vllm:prefix_cache_hits", "Tokens of prompts that an earlier one had.", stats.cached_prompt_tokens)
        drafted, right = stats.drafted_tokens, stats.right_drafted_tokens
        counter("vllm:spec_decode_num_drafts", "Guesses of tokens that come next.", stats.num_drafts)
        counter("vllm:spec_decode_num_draft_tokens", "Tokens that were guessed.", drafted)
        counter("vllm:spec_decode_num_accepted_tokens", "Guessed tokens that the model chose as well.", right)
        counter("didact:adapter_loads", "Adapters brought into memory.", stats.adapter_loads)
        counter("didact:adapter_evictions", "Adapters dropped for others.", stats.adapter_evictions)

    def _set_adapters(self, registry: Any, stats: EngineStats) -> None:
        running = {name for (names, runs), count in self.in_flight.items() if runs and count for name in names}
        waiting = {name for (names, runs), count in self.in_flight.items() if not runs and count for name in names}
        info = prometheus.Gauge(
            "vllm:lora_requests_info",
            "Adapters with requests; the value is the time.",
            ["max_lora", "running_lora_adapters", "waiting_lora_adapters"],
            registry=registry,
        )
        told = (str(stats.max_adapters), ",".join(sorted(running)), ",".join(sorted(waiting)))
        info.labels(*told).set(time.time())
        loaded = prometheus.Gauge(
            "vllm:lora_adapter_loaded", "Adapters in memory.", ["adapter_name", "level", "pinned"], registry=registry
        )
        for version_id in stats.adapters:
            loaded.labels(version_id.partition("#")[0], "gpu", "false").set(1)
        for name, value in [("num_gpu_loaded", len(stats.adapters)), ("max_gpu", stats.max_adapters)]:
            prometheus.Gauge(f"vllm:{name}_lora_adapters", "Places for adapters.", registry=registry).set(value)


class Meter:
    """One request on its way: times and counts it."""

    def __init__(
        self, metrics: AnswerMetrics, counted: tuple[str, ...], timed: tuple[str, ...], names: tuple[str, ...]
    ) -> None:
        self._metrics, self._counted, self._timed, self._names = metrics, counted, timed, names
        self._arrived = metrics.clock()
        self._begun: float | None = None
        self._first: float | None = None
        self._last = self._arrived
        self._tokens = 0
        self._state: tuple[tuple[str, ...], bool] | None = None

    def queued(self, num_prompt_tokens: int) -> None:
        """It is in the engine's queue."""
        self._metrics.prompt_tokens.labels(*self._counted).inc(num_prompt_tokens)
        self._observe("request_prompt_tokens", num_prompt_tokens)
        self._move((self._names, False))

    def piece(self, delta: Delta) -> None:
        """A piece of the answer has come."""
        now = self._metrics.clock()
        if self._first is None:
            self._first, self._begun = now, self._arrived + (delta.queued_seconds or 0.0)
            self._observe("time_to_first_token_seconds", now - self._arrived)
            self._observe("request_queue_time_seconds", delta.queued_seconds or 0.0)
            self._observe("request_prefill_time_seconds", max(now - self._begun, 0.0))
            self._move((self._names, True))
        else:
            self._observe("inter_token_latency_seconds", now - self._last)
        self._last = now
        self._tokens += len(delta.token_ids)
        self._metrics.generation_tokens.labels(*self._counted).inc(len(delta.token_ids))
        if delta.finish_reason is not None:
            self.end(delta.finish_reason)

    def end(self, ending: Ending) -> None:
        """It is over; what is said after that, or of a request that no queue had, does not count."""
        if self._state is None:
            return
        self._move(None)
        self._metrics.endings.labels(*self._counted, ending).inc()
        if self._first is None or self._begun is None or ending in ("abort", "error"):
            return
        decode = self._last - self._first
        self._observe("request_generation_tokens", self._tokens)
        self._observe("e2e_request_latency_seconds", self._last - self._arrived)
        self._observe("request_inference_time_seconds", max(self._last - self._begun, 0.0))
        self._observe("request_decode_time_seconds", decode)
        if self._tokens > 1:
            self._observe("request_time_per_output_token_seconds", decode / (self._tokens - 1))

    def _move(self, state: tuple[tuple[str, ...], bool] | None) -> None:
        flight = self._metrics.in_flight
        if self._state is not None:
            flight[self._state] -= 1
            if not flight[self._state]:
                del flight[self._state]
        if state is not None:
            flight[state] += 1
        self._state = state

    def _observe(self, name: str, value: float) -> None:
        self._metrics.histograms[name].labels(*self._timed).observe(value)
