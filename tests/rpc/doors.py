"""A gRPC door on a free port of loopback, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status.rpc_status import aio as status_of_call

from omni.v1 import omni_service_pb2_grpc
from omni_server.config import Settings
from omni_server.door import Door
from omni_server.drain import Drain
from omni_server.rpc import RpcServer
from omni_server.vad import SileroEars

EARS = SileroEars()  # networks are made once for all tests


@dataclass(frozen=True, slots=True)
class Client:
    server: RpcServer
    channel: grpc.aio.Channel
    stub: omni_service_pb2_grpc.OmniServiceStub


@asynccontextmanager
async def rpc_client(pipeline: Any, settings: Settings | None = None, credentials: Any = None) -> AsyncIterator[Client]:
    server = RpcServer(Door(pipeline, settings or Settings(shutdown_seconds=0)), EARS)
    await server.start(0)
    address = f"127.0.0.1:{server.port}"
    insecure = grpc.aio.insecure_channel(address)
    channel = insecure if credentials is None else grpc.aio.secure_channel(f"localhost:{server.port}", credentials)
    try:
        async with channel:
            yield Client(server, channel, omni_service_pb2_grpc.OmniServiceStub(channel))  # type: ignore[no-untyped-call]
    finally:
        await server.drain(0.0)
        pipeline.drain = Drain()  # a door's end is the server's end; in tests the pipeline has other doors yet


async def error_info(call: Any) -> tuple[grpc.StatusCode, str, error_details_pb2.ErrorInfo, bool]:
    """Code, message, ErrorInfo, and whether the call may be tried again."""
    status = await status_of_call.from_call(call)
    assert status is not None
    info, retry = error_details_pb2.ErrorInfo(), False
    for detail in status.details:
        retry = retry or detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
    return await call.code(), status.message, info, retry
