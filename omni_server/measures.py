"""What the server counts and times, for Prometheus. vLLM's names where vLLM has one, so that its dashboards fit; ours begin
with `omni_`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from omni_server.admission import Admission

CONTENT_TYPE = CONTENT_TYPE_LATEST
# vLLM's own bounds of these histograms.
FIRST_TOKEN_BOUNDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
REPLY_BOUNDS = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0)
FACTOR_BOUNDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.85, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)


class Measures:
    """One for each model that is served; `model` is its name on every one of vLLM's metrics."""

    def __init__(self, model: str = "") -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.tasks = Gauge("omni_tasks", "Tasks of the event loop; a number that only grows is a leak.", registry=registry)
        model_name = ["model_name"]
        self._model = model
        self.running = Gauge("vllm:num_requests_running", "Replies that are being made.", model_name, registry=registry).labels(
            model
        )
        self._waiting = Gauge(
            "vllm:num_requests_waiting", "Requests that wait for room.", model_name, registry=registry
        ).labels(model)
        self._capacity = Gauge("omni_capacity", "How much there is of what is scarce.", ["thing"], registry=registry)
        self._held = Gauge("omni_held", "How much of it the replies being made hold.", ["thing"], registry=registry)
        self._ended = Counter(
            "vllm:request_success", "Replies that ended: stop, length, abort (the client left) or error.",
            [*model_name, "finished_reason"], registry=registry,
        )  # fmt: skip
        self.first_token = Histogram(
            "vllm:time_to_first_token_seconds", "From the acceptance of a request to the first event of its reply.",
            model_name, buckets=FIRST_TOKEN_BOUNDS, registry=registry,
        ).labels(model)  # fmt: skip
        self.whole = Histogram(
            "vllm:e2e_request_latency_seconds", "From the acceptance of a request to the end of its reply.",
            model_name, buckets=REPLY_BOUNDS, registry=registry,
        ).labels(model)  # fmt: skip
        tokens = {
            "prompt_tokens": "Tokens read.",
            "generation_tokens": "Tokens written.",
            "prefix_cache_queries": "Tokens that were looked up in the engine's prefix cache.",
            "prefix_cache_hits": "Of those, the ones found.",
        }
        self.tokens = {
            name: Counter(f"vllm:{name}", told, model_name, registry=registry).labels(model) for name, told in tokens.items()
        }
        self.first_audio = Histogram(
            "omni_time_to_first_audio_seconds", "From the acceptance of a request to its first sound.",
            buckets=FIRST_TOKEN_BOUNDS, registry=registry,
        )  # fmt: skip
        self.real_time_factor = Histogram(
            "omni_audio_real_time_factor", "From the acceptance of a request to its last sound, over the length of its sound.",
            buckets=FACTOR_BOUNDS, registry=registry,
        )  # fmt: skip
        self._first_audio_deadlines = Counter(
            "omni_first_audio_deadlines", "First sounds that a client had given a time for.", ["met"], registry=registry
        )
        self.audio_seconds = Counter("omni_audio_seconds", "Sound made.", registry=registry)
        self.underruns = Counter(
            "omni_audio_underruns",
            "Silences that a player without a buffer would hear, because the server was late.",
            registry=registry,
        )
        self.pictures = Counter("omni_pictures", "Pictures drawn.", registry=registry)
        self._stages = Histogram(
            "omni_stage_seconds", "For how long one reply waited for a stage, its lane included.",
            ["stage"], buckets=FIRST_TOKEN_BOUNDS, registry=registry,
        )  # fmt: skip
        self._rejections = Counter(
            "omni_rejections", "Requests that no reply was begun for, by error code.", ["reason"], registry=registry
        )
        self._failures = Counter(
            "omni_failures", "Replies, or media within one, that failed, by error code.", ["reason"], registry=registry
        )

    def ended(self, finished_reason: str) -> None:
        self._ended.labels(self._model, finished_reason).inc()

    def stage(self, name: str, seconds: float) -> None:
        self._stages.labels(name).observe(seconds)

    def rejected(self, reason: str) -> None:
        self._rejections.labels(reason).inc()

    def failed(self, reason: str) -> None:
        self._failures.labels(reason).inc()

    def first_audio_deadline(self, met: bool) -> None:
        self._first_audio_deadlines.labels("yes" if met else "no").inc()

    def watch_encoders(self, counts: Callable[[], Mapping[str, tuple[int, int]]]) -> None:
        """`counts` gives, by modality, how many media were asked for and for how many of them the models had to run."""
        self._registry.register(_EncoderCache(counts))

    def watch_admission(self, admission: Admission) -> None:
        self.running.set_function(lambda: admission.running)
        self._waiting.set_function(lambda: admission.waiting)
        for thing, amount in admission.capacity.items():
            self._capacity.labels(thing).set(amount)
            self._held.labels(thing).set_function(partial(admission.held, thing))

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry)


class _EncoderCache(Collector):
    def __init__(self, counts: Callable[[], Mapping[str, tuple[int, int]]]) -> None:
        self._counts = counts

    def collect(self) -> Iterable[CounterMetricFamily]:
        asked = CounterMetricFamily("omni_encoder_cache_queries", "Media that were to be encoded.", labels=["modality"])
        found = CounterMetricFamily("omni_encoder_cache_hits", "Of those, the ones known already.", labels=["modality"])
        for modality, (queries, encoded) in self._counts().items():
            asked.add_metric([modality], queries)
            found.add_metric([modality], queries - encoded)
        return [asked, found]
