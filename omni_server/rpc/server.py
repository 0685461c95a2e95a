"""Steps 1 and 8. The gRPC server around the services: its limits, its health and its end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from omni.compat import riva_asr_pb2_grpc, riva_tts_pb2_grpc
from omni.v1 import omni_service_pb2, omni_service_pb2_grpc
from omni_server.config import Settings
from omni_server.door import Door
from omni_server.errors import ConfigError
from omni_server.rpc.access import AccessInterceptor
from omni_server.rpc.riva import RivaRecognition, RivaSynthesis
from omni_server.rpc.service import OmniService
from omni_server.rpc.unreadable import ReadingInterceptor
from omni_server.vad import Ears

SERVICE = omni_service_pb2.DESCRIPTOR.services_by_name["OmniService"].full_name
HEALTH_SECONDS = 1.0  # how old the state of a modality may be
PING_SECONDS = 20  # a client may ask this often whether the server is there; gRPC's own limit of 5 minutes is too slow
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class RpcServer:
    """Answers from `start` to `drain`."""

    def __init__(self, door: Door, ears: Ears) -> None:
        self._door = door
        self._server = grpc.aio.server(
            options=options_of(door.settings), interceptors=[AccessInterceptor(door), ReadingInterceptor()]
        )
        self._health = health.aio.HealthServicer()
        self._watch: asyncio.Task[None] | None = None
        self.port: int | None = None
        self._service = OmniService(door, ears)
        omni_service_pb2_grpc.add_OmniServiceServicer_to_server(self._service, self._server)
        calls = self._service.calls
        recognition, synthesis = RivaRecognition(door, ears, calls), RivaSynthesis(door, calls)
        riva_asr_pb2_grpc.add_RivaSpeechRecognitionServicer_to_server(recognition, self._server)
        riva_tts_pb2_grpc.add_RivaSpeechSynthesisServicer_to_server(synthesis, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if door.settings.grpc_reflection:
            add_reflection(self._server, SERVICE, health.SERVICE_NAME)

    async def start(self, port: int) -> None:
        """Port 0 takes a free one. Raises ConfigError where it cannot listen."""
        self.port = listen(self._server, self._door.settings, port)
        await self._server.start()
        self._watch = asyncio.create_task(watch_health(self._door, self._health))

    @property
    def busy(self) -> bool:
        """Calls are under way."""
        return bool(self._service.calls)

    async def drain(self, seconds: float) -> None:
        """Takes nothing new; calls under way get so many seconds, and are told. May be called twice."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        self._door.pipeline.drain.begin(seconds)
        await self._health.enter_graceful_shutdown()
        await self._server.stop(seconds)
        if self._service.calls:  # cancelled by now; what they stand on must outlive their clean-up
            await asyncio.wait(self._service.calls)
        self._door.packets.close()


def options_of(settings: Settings) -> list[tuple[str, Any]]:
    alive, age = settings.grpc_keepalive_seconds, settings.grpc_connection_seconds
    return [
        # Calls under way end as they would; grpc spreads the age by a tenth, so that not all come back at once.
        *([("grpc.max_connection_age_ms", round(age * 1000))] if age is not None else []),
        ("grpc.so_reuseport", 0),  # two servers on one port would share its callers
        ("grpc.max_receive_message_length", settings.max_body_bytes),  # pictures and recordings arrive inside a message
        ("grpc.max_send_message_length", settings.max_body_bytes),
        # A client that is gone without a word is found out, and its conversation ended.
        ("grpc.keepalive_time_ms", round(alive * 1000)),
        ("grpc.keepalive_timeout_ms", round(alive * 1000)),
        ("grpc.http2.ping_timeout_ms", round(alive * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_SECONDS * 1000),
    ]


def listen(server: grpc.aio.Server, settings: Settings, port: int) -> int:
    host = settings.host
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if settings.tls_cert is None or settings.tls_key is None:
            return int(server.add_insecure_port(address))
        pair = (read_pem(settings.tls_key, "--tls-key"), read_pem(settings.tls_cert, "--tls-cert"))
        return int(server.add_secure_port(address, grpc.ssl_server_credentials([pair])))
    except RuntimeError as failed:
        raise ConfigError(
            f"gRPC cannot listen on `{address}`; expected a free port in --grpc-port, or 0 for no gRPC"
        ) from failed


def read_pem(path: Path, flag: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise ConfigError(
            f"{flag} is `{path}`, which cannot be read: {problem.strerror}; expected a PEM file", param=flag
        ) from None


async def watch_health(door: Door, healthy: Any) -> None:
    """Says for the server, for its service and for each modality whether it can be served now."""
    while True:
        modalities = await door.pipeline.ready()
        states = {f"modality/{modality}": ready for modality, ready in modalities.items()}
        for name in ("", SERVICE):
            states[name] = modalities.get("text", False)
        for name, ready in states.items():
            await healthy.set(name, SERVING if ready else NOT_SERVING)
        await asyncio.sleep(HEALTH_SECONDS)


def add_reflection(server: grpc.aio.Server, *services: str) -> None:
    """`v1alpha` as the library has it, and `v1`, which differs in nothing but its name."""
    names = (*services, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    servicer = reflection.aio.ReflectionServicer(service_names=names)
    messages = reflection._reflection_pb2
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=messages.ServerReflectionRequest.FromString,
        response_serializer=messages.ServerReflectionResponse.SerializeToString,
    )
    name = reflection.SERVICE_NAME.replace("v1alpha", "v1")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler}),))
