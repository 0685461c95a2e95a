"""A span for each reply and for each of its stages, sent to an OpenTelemetry collector. Needs the extra `otel`."""

from __future__ import annotations

from typing import Any

from omni_server import __version__
from omni_server.call import Call
from omni_server.errors import ConfigError
from omni_server.timeline import Timeline
from omni_server.types import Request, Usage

GOOD = ("stop", "length", "tool_calls", "abort")


class SpanTracer:
    """`exporter` is any of OpenTelemetry's; spans are sent in the background, and dropped where the collector is slow."""

    def __init__(self, exporter: Any, model: str) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create({"service.name": "omni-server", "service.version": __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("omni_server", __version__)
        self._model = model

    def record(self, request: Request, call: Call | None, timeline: Timeline, ending: str, usage: Usage) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {"traceparent": call.traceparent} if call is not None and call.traceparent else {}
        parent = TraceContextTextMapPropagator().extract(carrier)
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": self._model,
            "gen_ai.response.finish_reasons": [ending],
            "gen_ai.usage.input_tokens": usage.prompt_tokens,
            "gen_ai.usage.output_tokens": usage.completion_tokens,
            "gen_ai.response.id": request.request_id,
            "omni.modalities": sorted(request.modalities),
        }
        if call is not None:
            attributes["omni.request_id"] = call.request_id
        if ending not in GOOD:
            attributes["error.type"] = ending

        def at(seconds: float) -> int:
            return round((timeline.accepted_at + seconds) * 1e9)

        whole = self._tracer.start_span(
            f"chat {self._model}", parent, trace.SpanKind.SERVER, attributes=attributes, start_time=at(0.0)
        )
        if ending not in GOOD:
            whole.set_status(trace.StatusCode.ERROR, ending)
        inside = trace.set_span_in_context(whole, parent)
        for name, stage in timeline.stages.items():
            worked = {"omni.worked_seconds": stage.worked}
            span = self._tracer.start_span(name, inside, attributes=worked, start_time=at(stage.start))
            span.end(at(stage.end))
        for moment, seconds in timeline.moments.items():
            whole.add_event(moment, timestamp=at(seconds))
        whole.end(at(timeline.elapsed()))

    def close(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()


def open_tracer(endpoint: str, model: str) -> SpanTracer:
    """To the traces address of a collector, over HTTP."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as missing:
        raise ConfigError(
            "--otlp-endpoint is set and OpenTelemetry is not installed; expected `pip install 'omni-server[otel]'`",
            param="--otlp-endpoint",
        ) from missing
    return SpanTracer(OTLPSpanExporter(endpoint=endpoint), model)
