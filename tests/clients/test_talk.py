"""`omni-server talk`: a recording or a microphone in, a speaker or a recording out."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import PIL.Image
import pytest
from google.protobuf.duration_pb2 import Duration

import omni_client.cli
from omni.v1 import content_pb2, converse_pb2, events_pb2
from omni_client import Audio, MissingDependency, Picture
from omni_client.sound import Microphone, Speaker
from tests.clients.command import run
from tests.clients.scripted_service import ScriptedService, refuse, service
from tests.media_samples import png_of

PNG = png_of(PIL.Image.new("RGB", (8, 6), "red"))
VOICE = b"\1\0" * 2400
QUESTION = Audio.from_pcm(b"\2\0" * 1600, 16_000)
URL = "http://127.0.0.1:9"  # nothing is asked over REST here


async def answer(scripted: ScriptedService, context: Any) -> None:
    """Hears everything, then says, shows and tells one of everything."""
    await scripted.begin(context)
    while await scripted.receive(context) is not None:
        pass
    user, model = content_pb2.ROLE_USER, content_pb2.ROLE_ASSISTANT
    problem = events_pb2.Problem(reason="DECODE_FAILED", message="no paint")
    for message in (
        {"transcript": converse_pb2.Transcript(id="t", role=user, text="hel")},
        {"transcript": converse_pb2.Transcript(id="t", role=user, text="hello", is_final=True)},
        {"response_started": converse_pb2.ResponseStarted(response_id="r", turn_id="t")},
        {"audio_delta": events_pb2.AudioDelta(audio=VOICE)},
        {"image_ready": events_pb2.ImageReady(index=1, image=PNG)},
        {"span_closed": events_pb2.SpanClosed(index=2, problem=problem)},
        {"transcript": converse_pb2.Transcript(id="r", role=model, text="hi", is_final=True)},
        {"problem": events_pb2.Problem(reason="INVALID_MEDIA", message="no picture")},
        {"interrupted": converse_pb2.Interrupted(response_id="r")},
        {"go_away": converse_pb2.GoAway()},
    ):
        await scripted.send(context, **message)
    done = converse_pb2.ResponseDone(
        response_id="r", status=converse_pb2.RESPONSE_STATUS_COMPLETED, turn_to_first_audio=Duration(nanos=250_000_000)
    )
    await scripted.send(context, response_done=done)


def talk(target: str, *more: str) -> tuple[str, ...]:
    return ("-m", "omni_server", "talk", "--grpc", target, *more)


async def test_a_recording_in_and_out(tmp_path: Path) -> None:
    """Catches sound that is lost, pictures that are not kept, and anything that the server tells and nobody sees."""
    QUESTION.save(tmp_path / "question.wav")
    async with service(answer) as (scripted, target):
        ran = await run(*talk(target, "question.wav", "--voice", "heart", "--captions"), url=URL, folder=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "you: hello", "[picture: talk-1.png]", "[no paint]", "it: hi", "[no picture]", "[interrupted]",
        "[the server stops in 0 s]", "[first sound after 0.25 s]", "[0.10 s of voice: answer.wav]",
    ]  # fmt: skip
    assert Audio.open(tmp_path / "answer.wav").pcm == VOICE
    assert Picture.open(tmp_path / "talk-1.png").data == PNG
    config = scripted.received[0].config
    assert (config.voice, config.input_transcription, config.input_audio.sample_rate_hertz) == ("heart", True, 16_000)
    assert b"".join(message.audio.audio for message in scripted.received[1:]) == QUESTION.pcm


async def test_a_long_recording_says_how_long_it_takes(tmp_path: Path) -> None:
    """Catches somebody who waits and does not know what for: a recording is not sent faster than it is spoken."""
    Audio.from_pcm(bytes(2 * 16_000 * 21 // 10), 16_000).save(tmp_path / "long.wav")
    async with service(answer) as (_, target):
        ran = await run(*talk(target, "long.wav"), url=URL, folder=tmp_path)
    assert ran.out.splitlines()[0] == "[long.wav: 2.1 s, sent as fast as it is spoken]"


async def test_an_answer_that_fails(tmp_path: Path) -> None:
    """Catches a script that takes a failed answer for a good one, and sound that is thrown away because of a later fault."""

    async def fail(scripted: ScriptedService, context: Any) -> None:
        await scripted.begin(context)
        await scripted.send(context, audio_delta=events_pb2.AudioDelta(audio=VOICE))
        problem = events_pb2.Problem(reason="INTERNAL_ERROR", message="no voice left")
        failed = converse_pb2.ResponseDone(status=converse_pb2.RESPONSE_STATUS_FAILED, problem=problem)
        await scripted.send(context, response_done=failed)
        if broken:
            await refuse(context, grpc.StatusCode.INTERNAL, "it is gone.", "INTERNAL_ERROR")

    QUESTION.save(tmp_path / "question.wav")
    for broken, told in ((False, ""), (True, "omni-server: it is gone.\n")):
        name = f"out-{broken}.wav"
        async with service(fail) as (_, target):
            ran = await run(*talk(target, "question.wav", "-o", name), url=URL, folder=tmp_path)
        assert (ran.code, ran.err) == (1, told)
        assert ran.out.splitlines() == ["[the answer failed: no voice left]", f"[0.10 s of voice: {name}]"]
        assert Audio.open(tmp_path / name).pcm == VOICE


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["question.wav"], "no server answers at"),
        (["nothing.wav"], "cannot be read"),
        (["question.wav", "-o", "x.mp3"], "`.wav`"),
    ],
)
async def test_what_is_wrong_is_told(arguments: list[str], words: str, tmp_path: Path) -> None:
    """Catches a traceback for a misspelt name or a server that is not there."""
    QUESTION.save(tmp_path / "question.wav")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{taken.getsockname()[1]}"  # nobody listens there
        ran = await run(*talk(target, *arguments), url=URL, folder=tmp_path)
    assert ran.code == 1
    assert words in ran.err and ran.err.startswith("omni-server: ")
    assert ("omni-server serve" in ran.err) == ("no server" in words)


class Devices:
    """What `sounddevice` gives: a microphone that hears `heard` again and again, and a speaker that asks for sound."""

    def __init__(self, heard: bytes = b"") -> None:
        self.heard = heard
        self.opened: list[dict[str, Any]] = []
        self.ask: Callable[[bytearray], None] = lambda out: None

    def RawInputStream(self, callback: Any, **given: Any) -> Any:
        self.opened.append(given)
        for _ in range(3):
            callback(self.heard, len(self.heard) // 2, None, None)
        return self

    def RawOutputStream(self, callback: Any, **given: Any) -> Any:
        self.opened.append(given)
        self.ask = lambda out: callback(out, len(out) // 2, None, None)
        return self

    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...
    def start(self) -> None: ...
    def close(self) -> None: ...


def test_microphone_and_speaker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches sound at the wrong rate, gaps that are not silent, and an answer that is heard on after an interruption."""
    devices = Devices(b"\3\0" * 320)
    monkeypatch.setitem(sys.modules, "sounddevice", devices)
    hearing = iter(Microphone())
    assert [next(hearing) for _ in range(3)] == [devices.heard] * 3
    assert devices.opened[0] == {"samplerate": 16_000, "blocksize": 320, "channels": 1, "dtype": "int16"}
    speaker = Speaker(24_000)
    assert devices.opened[1] == {"samplerate": 24_000, "channels": 1, "dtype": "int16"}
    speaker.play(b"\1\0" * 3)
    out = bytearray(b"\7" * 4)
    devices.ask(out)
    assert out == b"\1\0\1\0"
    devices.ask(out)
    assert out == b"\1\0\0\0"
    assert speaker.heard == 3 / 24_000
    speaker.play(b"\1\0" * 9)
    speaker.drop()
    devices.ask(out)
    assert out == bytes(4)
    speaker.begin()
    assert speaker.heard == 0


async def test_the_microphone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a microphone whose sound does not arrive, and an answer that is not played or not reported as heard."""

    async def hear(scripted: ScriptedService, context: Any) -> None:
        await scripted.begin(context)
        while b"".join(message.audio.audio for message in scripted.received) != devices.heard * 3:
            await scripted.receive(context)
        await scripted.send(context, response_started=converse_pb2.ResponseStarted(response_id="r"))
        await scripted.send(context, audio_delta=events_pb2.AudioDelta(audio=VOICE))
        await scripted.receive(context)

    devices = Devices(b"\3\0" * 320)
    monkeypatch.setitem(sys.modules, "sounddevice", devices)
    async with service(hear) as (scripted, target):
        assert await asyncio.to_thread(omni_client.cli.main, ["talk", "--url", URL, "--grpc", target]) == 0
    assert scripted.received[-1].playback.response_id == "r"
    assert "Ctrl-C" in capsys.readouterr().out
    out = bytearray(len(VOICE))
    devices.ask(out)
    assert out == VOICE


def test_without_a_sound_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an OSError of PortAudio, where the package is there and the library is not."""
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MissingDependency, match="pip install sounddevice"):
        next(iter(Microphone()))
    with pytest.raises(MissingDependency):
        Speaker(24_000)
