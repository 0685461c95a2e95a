"""The composition root opens and drains the gRPC door, or leaves it shut."""

from __future__ import annotations

from typing import Any

import grpc

from omni.v1 import omni_service_pb2, omni_service_pb2_grpc
from omni_server.app import open_ears, open_rpc
from omni_server.config import Settings
from tests.doubles import ScriptedPipeline


async def test_the_grpc_door_opens_and_shuts_with_the_server() -> None:
    """Would catch a port that stays open after the end, or that never opens."""
    pipeline: Any = ScriptedPipeline()
    async with open_ears(Settings()) as ears, open_rpc(pipeline, Settings(port=0, shutdown_seconds=0), ears) as rpc:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{rpc.port}") as channel:
            stub = omni_service_pb2_grpc.OmniServiceStub(channel)  # type: ignore[no-untyped-call]
            assert (await stub.ListVoices(omni_service_pb2.ListVoicesRequest())).voices
        address = f"127.0.0.1:{rpc.port}"
    async with grpc.aio.insecure_channel(address) as channel:
        call = omni_service_pb2_grpc.OmniServiceStub(channel).ListVoices(omni_service_pb2.ListVoicesRequest())  # type: ignore[no-untyped-call]
        assert await call.code() is grpc.StatusCode.UNAVAILABLE


async def test_grpc_can_be_left_out() -> None:
    """Would catch a server that cannot stop because one of its doors was never opened."""
    pipeline: Any = ScriptedPipeline()
    async with open_ears(Settings()) as ears, open_rpc(pipeline, Settings(grpc_port=0), ears) as rpc:
        assert rpc.port is None
