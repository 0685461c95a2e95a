"""Step 2: the Opus of a live call is decoded where it can harm that call alone."""

from __future__ import annotations

import ast
import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import omni_server
from omni.v1 import content_pb2, converse_pb2, omni_service_pb2, omni_service_pb2_grpc
from omni_server.config import Settings
from omni_server.door import Door
from omni_server.errors import MediaError
from omni_server.live_audio import FrameWriter, OpusReader
from omni_server.packets import LARGEST_PACKET, PacketProcesses, PacketReader
from omni_server.rpc import RpcServer
from tests.doubles import LoudEars, ScriptedPipeline
from tests.rest.scripts import done, words
from tests.rest.worded import recordings_of, worded
from tests.rpc.doors import error_info, rpc_client
from tests.rpc.test_converse import ANSWER, BY_HAND

TONE = (np.sin(np.arange(24_000) * 2 * np.pi * 440 / 24_000) * 0.5).astype(np.float32)
PACKETS = FrameWriter("opus_packets", 24_000, 24_000).feed(TONE)


@asynccontextmanager
async def processes(seconds: float = 20.0) -> AsyncIterator[PacketProcesses]:
    made = PacketProcesses(seconds)
    try:
        yield made
    finally:
        made.close()


def process_of(reader: PacketReader) -> int:
    lines = Path(f"/proc/self/fdinfo/{reader._process}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))


def memory_of(process: int) -> dict[str, str]:
    return dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())


async def gone(process: int) -> None:
    async with asyncio.timeout(20):
        while os.access(f"/proc/{process}", os.F_OK):
            await asyncio.sleep(0.01)


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


async def test_what_comes_out_is_what_is_read_here() -> None:
    """Catches samples that are lost, doubled or of another call, and a state that calls share."""
    async with processes() as made:
        first, second = await made.open(), await made.open()
        here = OpusReader()
        for packet in PACKETS[:20]:
            expected = here.feed(packet).astype("<i2").tobytes()
            assert await first.read(packet) == expected
        fresh = OpusReader().feed(PACKETS[20]).astype("<i2").tobytes()
        assert await second.read(PACKETS[20]) == fresh != await first.read(PACKETS[20])
        assert await first.read(b"") == b""
        first.close()
        second.close()


@pytest.mark.parametrize("fault", ["hangs", "crashes"])
async def test_a_packet_that_ends_its_decoder_ends_that_call_alone(fault: str) -> None:
    """Catches a call that waits for ever, an error without a type, and calls that share a decoder or wait for one another."""
    async with processes(2.0) as made:
        bad, good = await made.open(), await made.open()
        broken = process_of(bad)
        assert await bad.read(PACKETS[0]) and await good.read(PACKETS[0])
        os.kill(broken, signal.SIGSTOP)  # as a packet that its decoder never comes back from
        reading = asyncio.create_task(bad.read(PACKETS[1]))
        for packet in PACKETS[1:20]:
            assert len(await good.read(packet)) == 1920
        assert not reading.done()
        if fault == "crashes":
            os.kill(broken, signal.SIGKILL)
        words = "could not be decoded within 2 seconds" if fault == "hangs" else "cannot be decoded"
        with pytest.raises(MediaError, match=words) as caught:
            await reading
        assert caught.value.param == "audio"
        await gone(broken)
        assert len(await good.read(PACKETS[20])) == 1920
        new = await made.open()
        assert await new.read(PACKETS[0])
        good.close()
        new.close()


async def test_what_is_no_packet_is_said_and_the_call_could_go_on() -> None:
    """Catches a bad packet that costs its decoder, and one whose size nobody looks at."""
    async with processes() as made:
        reader = await made.open()
        with pytest.raises(MediaError, match="`audio` is not a packet of Opus"):
            await reader.read(b"\xff" * 1000)
        with pytest.raises(MediaError, match=f"`{LARGEST_PACKET + 1}` bytes; expected a packet of Opus"):
            await reader.read(bytes(LARGEST_PACKET + 1))
        assert len(await reader.read(PACKETS[0])) > 0
        reader.close()


async def test_no_packet_harms_the_decoder_or_grows_it() -> None:
    """Catches a flipped, cut or random packet that crashes, hangs or makes more sound than a packet can hold."""
    chance = random.Random(7)
    async with processes() as made:
        reader = await made.open()
        process = process_of(reader)
        for number in range(600):
            packet = bytearray(chance.choice(PACKETS))
            for _ in range(chance.randrange(1, 6)):
                packet[chance.randrange(len(packet))] = chance.randrange(256)
            sent = (
                bytes(packet[: chance.randrange(1, len(packet) + 1)])
                if number % 2
                else chance.randbytes(chance.randrange(1, 1500))
            )
            with suppress(MediaError):
                assert len(await reader.read(sent)) <= 11_520
            if number == 200:
                settled = int(memory_of(process)["VmRSS"].split()[0])
        assert process_of(reader) == process and not reader._channel._closed  # type: ignore[attr-defined]
        assert int(memory_of(process)["VmRSS"].split()[0]) < settled * 1.1
        reader.close()


async def test_it_ends_with_its_call_and_leaves_nothing() -> None:
    """Catches processes, sockets and files that stay behind, also of calls that are left while they begin."""
    async with processes() as made:
        (await made.open()).close()
        before = len(os.listdir("/proc/self/fd"))
        for number in range(20):
            if number % 2:
                opening = asyncio.create_task(made.open())
                await asyncio.sleep(0)
                opening.cancel()
                with suppress(asyncio.CancelledError):
                    await opening
                continue
            reader = await made.open()
            process = process_of(reader)
            reader.close()
            reader.close()
            await gone(process)
        await made.open()  # behind all that were left
        source = made.start().process
        async with asyncio.timeout(20):
            while len(os.listdir("/proc/self/fd")) > before + 2 or len(children_of(source.pid)) > 1:
                await asyncio.sleep(0.01)
    assert source.returncode is not None


async def test_a_source_that_is_gone_is_started_anew() -> None:
    """Catches a server that takes no Opus any more after one kill, and calls under way that end with it."""
    async with processes() as made:
        kept = await made.open()
        made.start().process.kill()
        made.start().process.wait()
        new = await made.open()
        for reader in (kept, new):
            assert await reader.read(PACKETS[0])
            reader.close()


async def test_the_process_has_no_secrets_and_writes_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a decoder that can be taken over and then finds the operator's keys, other calls or a disk."""
    monkeypatch.setenv("OMNI_SECRET", "sk-omni-secret")
    async with processes() as made:
        other, reader = await made.open(), await made.open()
        await reader.read(PACKETS[0])
        about = Path(f"/proc/{process_of(reader)}")
        assert b"sk-omni-secret" not in (about / "environ").read_bytes()
        limits = {line[:26].strip(): line[26:].split()[0] for line in (about / "limits").read_text().splitlines()[1:]}
        assert limits["Max file size"] == limits["Max core file size"] == "0"
        held = {os.readlink(file) for file in (about / "fd").iterdir()}
        assert sum(name.startswith("socket:") for name in held) == 1
        other.close()
        reader.close()


async def test_a_live_call_whose_decoder_ends_is_told_and_its_neighbour_is_answered() -> None:
    """Catches a door that ends every call for one packet, or one of them without a typed error."""
    opus = content_pb2.AudioFormat(encoding=content_pb2.AUDIO_ENCODING_OPUS)
    asked = converse_pb2.ConverseConfig(input_audio=opus, turn_detection=BY_HAND)
    config = converse_pb2.ConverseRequest(config=asked)
    turn = FrameWriter("opus_packets", 24_000, 24_000).feed(np.concatenate([TONE, 0 * TONE]))
    frames = [converse_pb2.ConverseRequest(audio=converse_pb2.AudioFrame(audio=packet)) for packet in turn]
    async with rpc_client(ScriptedPipeline(*ANSWER)) as client, asyncio.timeout(60):
        calls, processes_of = [], []
        source = client.server._door.packets.start().process.pid
        for _ in range(2):
            call: Any = client.stub.Converse()
            await call.write(config)
            assert (await call.read()).HasField("ready")
            processes_of.append(next(child for child in children_of(source) if child not in processes_of))
            calls.append(call)
        bad, good = calls
        await bad.write(frames[0])
        os.kill(processes_of[0], signal.SIGKILL)  # as a packet that crashes it
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await bad.write(frames[1])
            while await bad.read() is not grpc.aio.EOF:
                pass
        code, told, info, _ = await error_info(bad)
        assert (code, told, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "`audio` cannot be decoded", "INVALID_MEDIA")
        for frame in frames:
            await good.write(frame)
        await good.done_writing()
        kinds = []
        while (reply := await good.read()) is not grpc.aio.EOF:
            kinds.append(reply.WhichOneof("message"))
        assert kinds.count("response_done") == 1 and await good.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("by_utterance", [False, True])
async def test_a_recording_in_packets_is_read_as_packets(by_utterance: bool) -> None:
    """Catches packets that another method of the wire hears as samples."""
    format = content_pb2.AudioFormat(encoding=content_pb2.AUDIO_ENCODING_OPUS)
    turns = converse_pb2.TurnDetection() if by_utterance else None
    config = omni_service_pb2.TranscribeConfig(audio=format, turn_detection=turns)
    sound = FrameWriter("opus_packets", 24_000, 24_000).feed(np.concatenate([TONE, 0 * TONE]))
    pipeline = worded(*words(0, "heard"), done())
    ears = LoudEars()
    server = RpcServer(Door(pipeline, Settings(shutdown_seconds=0)), ears)
    await server.start(0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub: Any = omni_service_pb2_grpc.OmniServiceStub(channel)  # type: ignore[no-untyped-call]
        asked = [omni_service_pb2.TranscribeRequest(config=config)]
        asked += [omni_service_pb2.TranscribeRequest(audio=packet) for packet in sound]
        replies = [reply async for reply in stub.Transcribe(iter(asked))]
    await server.drain(0.0)
    ears.lane.close()
    assert [reply.utterance.text for reply in replies if reply.HasField("utterance")] == ["heard"]
    assert replies[-1].done.audio.ToTimedelta().total_seconds() == pytest.approx(2.0, abs=0.1)
    (recording,) = recordings_of(pipeline.requests[0])
    samples = np.frombuffer(recording[44:], "<i2")  # type: ignore[index]
    assert abs(int(np.abs(np.fft.rfft(samples[9_600:33_600])).argmax()) * 2 - 440) <= 4


def test_no_packet_is_decoded_in_the_server() -> None:
    """Catches a door that decodes a stranger's Opus in the server's own process again."""
    root = Path(omni_server.__file__).parent
    named = {
        file.name
        for file in root.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Name | ast.ClassDef | ast.alias)
        and getattr(node, "id", getattr(node, "name", "")) == "OpusReader"
    }
    assert named == {"live_audio.py", "packet_process.py"}
