"""A gRPC service on loopback that plays a script: what the real one does only when something goes wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from omni.v1 import converse_pb2, omni_service_pb2_grpc
from omni.v1.converse_pb2 import ConverseRequest, ConverseResponse

Script = Callable[["ScriptedService", Any], Awaitable[None]]


class ScriptedService(omni_service_pb2_grpc.OmniServiceServicer):
    """`script(service, context)` holds the conversation, with `await service.receive(context)` and `service.send`."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.received: list[ConverseRequest] = []
        self.metadata: dict[str, str] = {}
        self.running = 0
        self.server: Any = None
        self._sequence = 0

    async def stop(self) -> None:
        """The server is gone, without a word."""
        await self.server.stop(None)

    async def Converse(self, request_iterator: Any, context: Any) -> None:
        self.metadata = dict(context.invocation_metadata())
        self.running += 1
        try:
            await self.script(self, context)
        finally:
            self.running -= 1

    async def receive(self, context: Any) -> ConverseRequest | None:
        """The next message, or `None` where nothing more comes."""
        message = await context.read()
        if message is grpc.aio.EOF:
            return None
        self.received.append(message)
        return message

    async def send(self, context: Any, **message: Any) -> None:
        self._sequence += 1
        await context.write(ConverseResponse(sequence=self._sequence, **message))

    async def begin(self, context: Any, output_rate: int = 24_000) -> converse_pb2.ConverseConfig:
        """Takes the config, and says that it holds."""
        first = await self.receive(context)
        assert first is not None
        config = converse_pb2.ConverseConfig()
        config.CopyFrom(first.config)
        config.output_audio.sample_rate_hertz = config.output_audio.sample_rate_hertz or output_rate
        await self.send(context, ready=converse_pb2.Ready(session_id="session-1", config=config))
        return config


async def refuse(context: Any, code: grpc.StatusCode, message: str, reason: str, field: str = "") -> None:
    """Ends the call the way the server does: the error's details stand in the trailing metadata."""
    told = error_details_pb2.ErrorInfo(reason=reason, domain="omni.v1", metadata={"field": field} if field else {})
    packed = any_pb2.Any()
    packed.Pack(told)
    status = status_pb2.Status(code=code.value[0], message=message, details=[packed])
    trailers = (("x-request-id", "req_theirs"), ("grpc-status-details-bin", status.SerializeToString()))
    await context.abort(code, message, trailers)


@asynccontextmanager
async def service(
    script: Script, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[tuple[ScriptedService, str]]:
    """The service, and its host and port."""
    server = grpc.aio.server()
    scripted = ScriptedService(script)
    scripted.server = server
    omni_service_pb2_grpc.add_OmniServiceServicer_to_server(scripted, server)
    here = "127.0.0.1:0"
    port = server.add_insecure_port(here) if credentials is None else server.add_secure_port(here, credentials)
    await server.start()
    try:
        yield scripted, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
