"""What is measured, logged, timed and traced of a reply, on the real pipeline with scripted models."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from omni.v1 import content_pb2, omni_service_pb2
from omni_server import logs
from omni_server.call import Call, under
from omni_server.checkpoint import Checkpoint
from omni_server.errors import EngineUnavailable, RequestError
from omni_server.measures import Measures
from omni_server.pipeline import Pipeline
from omni_server.timeline import Timeline
from omni_server.traces import SpanTracer, open_tracer
from omni_server.types import DecodeOptions
from omni_server.watch import Player, Watch
from tests.doubles import Forever, ScriptedBackbone, ScriptedDecoder
from tests.rest.scripts import ask, door, png_url
from tests.rpc.doors import rpc_client
from tests.test_pipeline import END, build, checkpoint, collect, picture, request, speech

__all__ = ["checkpoint"]
DASHBOARD = Path(__file__).parent.parent / "docs" / "grafana.json"


def measured(measures: Measures) -> dict[str, float]:
    """Every sample of the exposition, by name and labels."""
    lines = measures.exposition().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}


def spoken(checkpoint: Checkpoint, **decoders: Any) -> Pipeline:
    tokens = [[104, 105], picture(checkpoint), speech(checkpoint, 1, 2, 3), [END]]
    return build(checkpoint, ScriptedBackbone(*tokens), **decoders)


async def test_one_good_reply_is_counted_everywhere_once(checkpoint: Checkpoint) -> None:
    """Would catch a metric that nobody feeds, or that is fed twice."""
    pipeline = spoken(checkpoint)
    await collect(pipeline, request())
    found = measured(pipeline.measures)
    expected = {
        'vllm:request_success_total{finished_reason="stop",model_name=""}': 1,
        'vllm:num_requests_running{model_name=""}': 0,
        'vllm:time_to_first_token_seconds_count{model_name=""}': 1,
        'vllm:e2e_request_latency_seconds_count{model_name=""}': 1,
        "omni_time_to_first_audio_seconds_count": 1,
        "omni_audio_real_time_factor_count": 1,
        "omni_pictures_total": 1,
        **{f'omni_stage_seconds_count{{stage="{name}"}}': 1 for name in ("prompt", "backbone", "decode_audio", "decode_image")},
    }
    assert {name: found[name] for name in expected} == expected
    assert found['vllm:generation_tokens_total{model_name=""}'] > 0 and found["omni_audio_seconds_total"] > 0


async def test_refused_failed_and_left_replies_are_told_apart(checkpoint: Checkpoint) -> None:
    """Would catch an abort that counts as a success, a refusal that counts as a reply, or a gauge that never falls."""
    pipeline = build(checkpoint, ScriptedBackbone([104], EngineUnavailable("gone")))
    await collect(pipeline, request())
    with pytest.raises(RequestError):
        await collect(pipeline, request(decode=DecodeOptions(voice="nobody")))
    pipeline.backbone.chunks = ([104], speech(checkpoint, 1)[:2], Forever())  # type: ignore[attr-defined]
    async with pipeline.respond(request()) as events:
        await anext(events)
        assert measured(pipeline.measures)['vllm:num_requests_running{model_name=""}'] == 1
    found = measured(pipeline.measures)
    ended = {name: value for name, value in found.items() if name.startswith("vllm:request_success_total")}
    assert ended == {
        f'vllm:request_success_total{{finished_reason="{reason}",model_name=""}}': 1 for reason in ("error", "abort")
    }
    assert found['omni_rejections_total{reason="invalid_value"}'] == 1
    assert found['omni_failures_total{reason="engine_unavailable"}'] == 1
    assert found['vllm:num_requests_running{model_name=""}'] == 0


async def test_a_span_that_failed_is_counted(checkpoint: Checkpoint) -> None:
    """Would catch a vocoder that fails in every reply and is seen by no alarm, because the replies succeed."""
    pipeline = spoken(checkpoint, audio=ScriptedDecoder(fault=RuntimeError("boom")))
    await collect(pipeline, request())
    assert measured(pipeline.measures)['omni_failures_total{reason="decode_failed"}'] == 1


async def test_encoder_cache(checkpoint: Checkpoint) -> None:
    """Would catch hits and misses that are swapped."""
    pipeline = build(checkpoint, ScriptedBackbone([104, END]))
    async with door(pipeline) as client:  # type: ignore[arg-type]
        content = [{"type": "image_url", "image_url": {"url": png_url()}}]
        for _ in range(3):
            asked = ask(content) | {"model": checkpoint.name}
            assert (await client.post("/v1/chat/completions", json=asked)).status_code == 200
    found = measured(pipeline.measures)
    assert found['omni_encoder_cache_queries_total{modality="image"}'] == 3
    assert found['omni_encoder_cache_hits_total{modality="image"}'] == 2


def test_underruns() -> None:
    """Would catch a slow reader that is counted as a slow server, and silence after the last sound that is counted at all."""
    player = Player()
    player.open()
    player.pass_time(asked=0.0, now=5.0)
    assert not player.feed(1.0)  # played until 6
    player.pass_time(asked=5.0, now=5.9)
    assert not player.feed(1.0)  # until 7
    player.pass_time(asked=9.0, now=9.0)  # the reader came late, not the sound
    assert not player.feed(1.0)  # until 10
    player.pass_time(asked=9.0, now=10.5)
    assert player.feed(1.0)  # half a second too late
    player.pass_time(asked=10.5, now=20.0)  # nothing more to say, until another span
    player.open()
    player.pass_time(asked=20.0, now=21.0)
    assert not player.feed(1.0)


def test_a_timeline_adds_up_what_runs_side_by_side() -> None:
    """Would catch a stage whose second piece of work hides the first."""
    now = 10.0
    timeline = Timeline(lambda: now)
    with timeline.stage("encode"):
        now = 12.0
        with timeline.stage("encode"):
            now = 13.0
    timeline.mark("first_token")
    now = 20.0
    timeline.mark("first_token")
    stage = timeline.stages["encode"]
    assert (stage.start, stage.end, stage.worked) == (0.0, 3.0, 4.0)
    assert timeline.moments == {"first_token": 3.0}


async def test_rest_tells_the_stages(checkpoint: Checkpoint) -> None:
    """Would catch a waterfall that is lost between the pipeline and the header, or a stream whose end does not tell it."""
    pipeline = spoken(checkpoint)
    asked = ask() | {"model": checkpoint.name, "modalities": ["text", "image", "audio"], "audio": {"format": "wav"}}
    async with door(pipeline) as client:  # type: ignore[arg-type]
        wrong = await client.post("/v1/chat/completions", json=asked | {"audio": {"format": "wav", "voice": "nobody"}})
        models = await client.get("/v1/models")
        metrics = await client.get("/metrics")
    assert "server-timing" not in wrong.headers and "server-timing" not in models.headers
    assert metrics.headers["content-type"].startswith("text/plain") and "omni_rejections_total" in metrics.text
    assert "\nomni_tasks 0.0" not in metrics.text and "\nomni_tasks " in metrics.text
    call = Call("r1")
    with under(call):
        await collect(pipeline, request())
    names = [each.split(";")[0] for each in call.server_timing().split(", ")]
    assert names[:2] == ["prompt", "backbone"] and set(names) == {"prompt", "backbone", "decode_audio", "decode_image"}


async def test_server_timing_on_both_wires(checkpoint: Checkpoint) -> None:
    """Would catch a header or a trailer that is set on one wire only, or too early to hold anything."""
    pipeline = build(checkpoint, ScriptedBackbone([104, 105, END]))
    asked = ask() | {"model": checkpoint.name}
    async with door(pipeline) as client:  # type: ignore[arg-type]
        plain = await client.post("/v1/chat/completions", json=asked)
        streamed = await client.post("/v1/chat/completions", json=asked | {"stream": True})
    assert re.fullmatch(r"prompt;dur=[\d.]+;start=[\d.]+, backbone;dur=[\d.]+;start=[\d.]+", plain.headers["server-timing"])
    assert "prompt;dur=" in streamed.headers["server-timing"]
    assert streamed.text.rstrip().splitlines()[-1].startswith(": server-timing prompt;dur=")
    async with rpc_client(pipeline) as client:
        text = content_pb2.Part(text="hi")
        message = content_pb2.Message(role=content_pb2.ROLE_USER, parts=[text])
        call = client.stub.Generate(omni_service_pb2.GenerateRequest(messages=[message]))
        assert [event async for event in call]
        assert dict(await call.trailing_metadata())["server-timing"].startswith("prompt;dur=")


def test_log_lines_name_the_request(capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a line that no program can read, or that cannot be matched with the answer that it is about."""
    root, ours = logging.getLogger(), logging.getLogger("omni_server")
    before = root.handlers[:], root.level, ours.level
    try:
        logs.set_up("json", "info")
        with under(Call("req_1")):
            logging.getLogger("omni_server.x").info("said\n%s", "안녕", extra={"fields": {"seconds": 0.5}})
        try:
            raise ValueError("boom")
        except ValueError:
            logging.getLogger("omni_server.x").exception("failed")
        logging.getLogger("httpx").info("GET https://example.com/?token=secret")
        first, second = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        logs.set_up("text", "warning")
        logging.getLogger("omni_server.x").info("not wanted")
        with under(Call("req_2")):
            logging.getLogger("omni_server.x").warning("wanted")
        logging.getLogger("uvicorn.error").error(logs.REFUSED)
        text = capsys.readouterr().err
    finally:
        root.handlers[:], root.level, ours.level = before
    assert (first["request_id"], first["message"], first["seconds"]) == ("req_1", "said\n안녕", 0.5)
    assert (second["request_id"], second["level"]) == ("-", "error") and "ValueError: boom" in second["error"]
    assert "not wanted" not in text and "[req_2] wanted" in text and logs.REFUSED not in text


async def test_spans(checkpoint: Checkpoint) -> None:
    """Would catch a trace without its stages, outside of the client's own, or a failure that looks like a success."""
    exporter = InMemorySpanExporter()
    tracer = SpanTracer(exporter, "mini")
    pipeline = build(checkpoint, ScriptedBackbone([104], speech(checkpoint, 1), [END]))
    pipeline._watch = Watch(Measures(), tracer)
    with under(Call("req_1", "00-" + "a" * 32 + "-" + "b" * 16 + "-01")):
        await collect(pipeline, request())
    pipeline.backbone.chunks = ([104], EngineUnavailable("gone"))  # type: ignore[attr-defined]
    await collect(pipeline, request())
    tracer.close()
    spans = exporter.get_finished_spans()
    wholes = [span for span in spans if span.name == "chat mini"]
    parts = [span for span in spans if span.parent is not None and span.parent.span_id == wholes[0].context.span_id]
    assert {span.name for span in parts} == {"prompt", "backbone", "decode_audio"}
    assert wholes[0].parent is not None and f"{wholes[0].context.trace_id:x}" == "a" * 32
    assert wholes[0].attributes is not None and wholes[0].attributes["omni.request_id"] == "req_1"
    assert all(wholes[0].start_time <= span.start_time <= span.end_time <= wholes[0].end_time for span in parts)  # type: ignore[operator]
    assert wholes[0].status.is_ok or wholes[0].status.is_unset
    assert wholes[1].parent is None and not wholes[1].status.is_ok and wholes[1].attributes["error.type"] == "error"  # type: ignore[index]


def exported(measures: Measures) -> set[str]:
    """Names that a query may use."""
    names: set[str] = set()
    for line in measures.exposition().decode().splitlines():
        if line.startswith("# TYPE"):
            _, _, name, kind = line.split()
            names |= {f"{name}_{end}" for end in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return names


def test_the_dashboard_asks_for_what_there_is() -> None:
    """Would catch a panel that is empty for ever, because a metric was renamed, and a metric that no panel shows."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert queries
    words = {word for query in queries for word in re.findall(r"(?:vllm:|omni_|process_)\w+", query)}
    measures = Measures()
    measures.watch_encoders(dict)
    known = exported(measures)
    assert words <= known, words - known
    shown = {re.sub("_(bucket|sum|count)$", "", word) for word in words}
    ours = {re.sub("_(bucket|sum|count)$", "", name) for name in known if name.startswith(("vllm:", "omni_"))}
    assert not {name for name in ours - shown if not name.endswith("_created")}


async def test_spans_reach_a_collector(checkpoint: Checkpoint) -> None:
    """Would catch a setting that sends traces nowhere, or to another path than the one named."""
    posted: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        tracer = open_tracer(f"http://127.0.0.1:{collector.server_port}/v1/traces", "mini")
        pipeline = build(checkpoint, ScriptedBackbone([104, END]))
        pipeline._watch = Watch(Measures(), tracer)
        await collect(pipeline, request())
        await asyncio.to_thread(tracer.close)
        collector.shutdown()
    ((path, body),) = posted
    spans = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
    assert path == "/v1/traces" and b"chat mini" in spans and b"backbone" in spans
