"""Step 1: who may come in over gRPC, and one ledger for both doors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
from google.rpc import error_details_pb2
from grpc_status.rpc_status import aio as status_of_call

from omni.v1 import omni_service_pb2, omni_service_pb2_grpc
from omni_server.access import Access
from omni_server.app import open_rpc
from omni_server.config import Settings
from omni_server.keys import KeyFile, Limits, add_key
from omni_server.rest import create_app
from omni_server.types import Modality, SpanOpened
from tests.doubles import Forever, HandClock, ScriptedPipeline
from tests.rpc.doors import EARS, error_info
from tests.rpc.test_server import health_of
from tests.rpc.test_service import SPOKEN, asked


class Keyed:
    def __init__(self, path: Path, **limits: Any) -> None:
        key = add_key(path / "keys", "ann", Limits(**limits))
        self.settings = Settings(port=0, shutdown_seconds=0, keys_file=path / "keys")
        self.access = Access(KeyFile(path / "keys"), HandClock())
        self.metadata = (("authorization", f"Bearer {key}"),)


@asynccontextmanager
async def both(pipeline: Any, keyed: Keyed) -> AsyncIterator[tuple[grpc.aio.Channel, httpx.AsyncClient]]:
    """A gRPC channel and a REST client of one server."""
    app = create_app(pipeline, keyed.settings, keyed.access)
    async with (
        open_rpc(pipeline, keyed.settings, EARS, keyed.access) as rpc,
        grpc.aio.insecure_channel(f"127.0.0.1:{rpc.port}") as channel,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://door") as client,
    ):
        yield channel, client


def stub(channel: grpc.aio.Channel) -> omni_service_pb2_grpc.OmniServiceStub:
    return omni_service_pb2_grpc.OmniServiceStub(channel)  # type: ignore[no-untyped-call]


async def retry_after(call: Any) -> float:
    status = await status_of_call.from_call(call)
    assert status is not None
    (wait,) = [detail for detail in status.details if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)]
    info = error_details_pb2.RetryInfo()
    wait.Unpack(info)
    return float(info.retry_delay.ToTimedelta().total_seconds())


async def test_without_a_key_only_health_is_answered(tmp_path: Path) -> None:
    """Catches a method that the key was forgotten at, on our service or on Riva's, and one that waits for a message first."""
    keyed, pipeline = Keyed(tmp_path), ScriptedPipeline(*SPOKEN)
    async with both(pipeline, keyed) as (channel, _):
        for metadata in ((), (("authorization", "Bearer wrong"),), (("authorization", "wrong"),)):
            for call in (
                stub(channel).Generate(asked(), metadata=metadata),
                stub(channel).Converse(metadata=metadata),
                channel.stream_stream("/nvidia.riva.asr.RivaSpeechRecognition/StreamingRecognize")(metadata=metadata),
                channel.unary_unary("/omni.v1.OmniService/Nothing")(b"", metadata=metadata),
            ):
                code, message, info, again = await error_info(call)
                assert (code, info.reason, again) == (grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY", False)
                assert "wrong" not in message
        assert not pipeline.requests
        assert (await stub(channel).ListModels(omni_service_pb2.ListModelsRequest(), metadata=keyed.metadata)).models
        health = type("HealthClient", (), {"channel": channel})()
        assert await health_of(health, "") == 1


async def test_both_doors_count_in_one_ledger(tmp_path: Path) -> None:
    """Catches a caller who gets each quota twice, and a reply over gRPC that nobody pays for."""
    keyed = Keyed(tmp_path, tokens_per_minute=10, images_per_minute=0)
    async with both(ScriptedPipeline(*SPOKEN), keyed) as (channel, client):
        async for _ in stub(channel).Generate(asked(), metadata=keyed.metadata):
            pass
        call = stub(channel).Generate(asked(), metadata=keyed.metadata)
        code, message, info, again = await error_info(call)
        assert (code, info.reason, again) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMIT_EXCEEDED", True)
        assert "tokens" in message
        assert await retry_after(call) == 42  # 16 were used of 10
        body = {"model": "omni-scripted", "messages": [{"role": "user", "content": "hi"}]}
        refused = await client.post("/v1/chat/completions", json=body, headers=dict(keyed.metadata))
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "42")


async def test_a_slot_is_held_as_long_as_its_call_and_no_longer(tmp_path: Path) -> None:
    """Catches a slot that is free while its call goes on, or that stays taken when its client has gone."""
    keyed, pipeline = Keyed(tmp_path, concurrency=1), ScriptedPipeline(SpanOpened(0, Modality.TEXT), Forever())
    async with both(pipeline, keyed) as (channel, client):
        call = stub(channel).Generate(asked(), metadata=keyed.metadata)
        await call.read()
        assert (await error_info(stub(channel).Generate(asked(), metadata=keyed.metadata)))[
            0
        ] is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await client.get("/v1/models", headers=dict(keyed.metadata))).status_code == 429
        call.cancel()
        while pipeline.running:
            await asyncio.sleep(0.01)
        for _ in range(3):
            assert (await stub(channel).ListVoices(omni_service_pb2.ListVoicesRequest(), metadata=keyed.metadata)).voices


async def test_an_open_server_asks_for_no_key() -> None:
    """Catches a server on a desk that cannot be tried without a file."""
    pipeline: Any = ScriptedPipeline(*SPOKEN)
    async with (
        open_rpc(pipeline, Settings(port=0, shutdown_seconds=0), EARS) as rpc,
        grpc.aio.insecure_channel(f"127.0.0.1:{rpc.port}") as channel,
    ):
        assert [message async for message in stub(channel).Generate(asked())]
