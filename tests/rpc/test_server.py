"""The gRPC server around the service: health, reflection, TLS, ports, and its end."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from omni.v1 import omni_service_pb2, omni_service_pb2_grpc
from omni_server.config import Settings, read_settings
from omni_server.door import Door
from omni_server.errors import ConfigError
from omni_server.rpc import RpcServer
from omni_server.types import Done, Modality, SpanOpened, Usage
from tests.doubles import Forever, ScriptedPipeline
from tests.rpc.doors import EARS, Client, rpc_client
from tests.rpc.test_service import asked

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def health_of(client: Client, name: str) -> int:
    stub = health_pb2_grpc.HealthStub(client.channel)  # type: ignore[no-untyped-call]
    return int((await stub.Check(health_pb2.HealthCheckRequest(service=name))).status)


async def test_health_is_told_per_service_and_per_modality() -> None:
    """Would catch a vocoder that is down behind a server that says it is well."""
    pipeline = ScriptedPipeline(modalities={"text": True, "image": True, "audio": False})
    async with rpc_client(pipeline) as client:
        names = ("", "omni.v1.OmniService", "modality/text", "modality/image", "modality/audio")
        assert [await health_of(client, name) for name in names] == [SERVING] * 4 + [NOT_SERVING]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health_of(client, "modality/smell")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_draining_is_told_and_lets_calls_end() -> None:
    """Would catch a call that is cut off by a stop, or a server that looks well while it takes nothing."""
    pipeline = ScriptedPipeline(SpanOpened(0, Modality.TEXT), Forever())
    async with rpc_client(pipeline, Settings(shutdown_seconds=1)) as client:
        watch = health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest())  # type: ignore[no-untyped-call]
        assert (await watch.read()).status == SERVING
        call = client.stub.Generate(asked())
        await call.read()
        drained = asyncio.create_task(client.server.drain(1.0))
        assert (await watch.read()).status == NOT_SERVING
        assert pipeline.running == 1 and not drained.done()
        await drained
        assert pipeline.running == 0
        assert await call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
@pytest.mark.parametrize("wanted", [True, False])
async def test_reflection_tells_the_methods_and_can_be_switched_off(version: str, wanted: bool) -> None:
    """Would catch grpcurl finding nothing, or finding what was to be kept quiet."""
    async with rpc_client(ScriptedPipeline(), Settings(shutdown_seconds=0, grpc_reflection=wanted)) as client:
        ask = client.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        call = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        if wanted:
            listed = (await call.read()).list_services_response.service
            assert "omni.v1.OmniService" in [service.name for service in listed]
        else:
            assert await call.code() is grpc.StatusCode.UNIMPLEMENTED


def certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    today = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "key.pem").write_bytes(pem)
    return folder / "cert.pem", folder / "key.pem"


async def test_tls(tmp_path: Path) -> None:
    """Would catch a server that speaks in the clear although it was given a certificate."""
    cert, key = certificate(tmp_path)
    settings = Settings(shutdown_seconds=0, tls_cert=cert, tls_key=key)
    trusted = grpc.ssl_channel_credentials(cert.read_bytes())
    async with rpc_client(ScriptedPipeline(), settings, trusted) as client:
        assert (await client.stub.ListModels(omni_service_pb2.ListModelsRequest())).models
        async with grpc.aio.insecure_channel(f"127.0.0.1:{client.server.port}") as clear:
            ask = health_pb2_grpc.HealthStub(clear)  # type: ignore[no-untyped-call]
            with pytest.raises(grpc.aio.AioRpcError):
                await ask.Check(health_pb2.HealthCheckRequest(), timeout=5)


def test_half_of_a_certificate_is_refused() -> None:
    """Would catch a server that falls back to no TLS because one flag was forgotten."""
    with pytest.raises(ConfigError, match="--tls-key"):
        read_settings({"tls_cert": "a.pem"}, {})


async def test_a_missing_certificate_and_a_taken_port_are_told(tmp_path: Path) -> None:
    """Would catch two servers that share a port, each with half of the callers."""
    missing = Settings(tls_cert=tmp_path / "a.pem", tls_key=tmp_path / "b.pem")
    with pytest.raises(ConfigError, match="--tls-key"):
        await RpcServer(Door(ScriptedPipeline(), missing), EARS).start(0)
    async with rpc_client(ScriptedPipeline()) as client:
        assert client.server.port is not None
        with pytest.raises(ConfigError, match="--grpc-port"):
            await RpcServer(Door(ScriptedPipeline(), Settings()), EARS).start(client.server.port)


def test_which_port_grpc_takes() -> None:
    """Would catch two servers of one machine that fight for one gRPC port, or gRPC that cannot be turned off."""
    assert Settings(port=8000).rpc_port == 8001
    assert Settings(port=0).rpc_port == 0
    assert Settings(grpc_port=50051).rpc_port == 50051
    assert Settings(grpc_port=0).rpc_port is None


async def test_a_message_over_the_limit_is_refused_alone() -> None:
    """Would catch a request that fills the memory, or that takes the connection down with it."""
    async with rpc_client(ScriptedPipeline(Done("stop", Usage())), Settings(shutdown_seconds=0, max_body_bytes=1000)) as client:
        call = client.stub.Generate(asked("x" * 2000))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await client.stub.Generate(asked("x")).read()).HasField("done")


async def gone_silently(port: int, pipeline: ScriptedPipeline) -> None:
    """A caller whose network goes dark midway: bytes neither come nor go, and no connection is closed."""
    dark = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []
    writers: list[asyncio.StreamWriter] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            if dark.is_set():
                await asyncio.Event().wait()
            writer.write(data)
            await writer.drain()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        writers.extend((writer, back))
        tasks.extend((asyncio.create_task(carry(reader, back)), asyncio.create_task(carry(there, writer))))

    relay = await asyncio.start_server(meet, "127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{relay.sockets[0].getsockname()[1]}") as channel:
        call = omni_service_pb2_grpc.OmniServiceStub(channel).Generate(asked())  # type: ignore[no-untyped-call]
        await call.read()
        assert pipeline.running == 1
        dark.set()
        for _ in range(400):
            if not pipeline.running:
                break
            await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for writer in writers:
        writer.close()
    relay.close()
    await asyncio.sleep(0.05)


async def test_a_dead_client_is_found_out() -> None:
    """Would catch a conversation that stays in the engine because its caller's network went dark without a word."""
    pipeline = ScriptedPipeline(SpanOpened(0, Modality.TEXT), Forever())
    async with rpc_client(pipeline, Settings(shutdown_seconds=0, grpc_keepalive_seconds=1.0)) as client:
        assert client.server.port is not None
        await gone_silently(client.server.port, pipeline)
        assert pipeline.running == 0


async def test_an_old_connection_is_renewed_and_its_call_goes_on() -> None:
    """Would catch clients that stay on one server for ever behind a balancer, and a call that is cut by the age."""
    pipeline = ScriptedPipeline(SpanOpened(0, Modality.TEXT), Forever())
    async with rpc_client(pipeline, Settings(shutdown_seconds=0, grpc_connection_seconds=0.2)) as client:
        call = client.stub.Generate(asked())
        assert (await call.read()).HasField("span_opened")
        async with asyncio.timeout(10):
            while (state := client.channel.get_state()) == grpc.ChannelConnectivity.READY:  # until the server asks to go
                await client.channel.wait_for_state_change(state)
        await client.stub.ListModels(omni_service_pb2.ListModelsRequest())
        assert pipeline.running == 1 and not call.done()
        call.cancel()
