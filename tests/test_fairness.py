"""Voices of different length in one lane, and first sounds by the time that the client asks for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from omni_server.admission import Admission, Place, Scarce, Wish
from omni_server.call import Call, current_call, under
from omni_server.checkpoint import Checkpoint
from omni_server.errors import DeadlineExceeded, Overloaded
from omni_server.gate import Gate, kind_of
from omni_server.pipeline import Pipeline
from omni_server.reply import MOST_CODES
from omni_server.rest.errors import Calls
from omni_server.types import AudioDelta, DecodeOptions, Done, Modality, Request
from tests.doubles import ScriptedBackbone
from tests.rest.scripts import ask, door
from tests.test_pipeline import END, build, checkpoint, collect, request, speech

__all__ = ["checkpoint"]
SPOKEN = frozenset({Modality.TEXT, Modality.AUDIO})


class Lined:
    """One worker, whose first call waits for `gate`; notes which voice each call was for, and how many codes it got."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.calls: list[tuple[int, int]] = []
        self.options: list[DecodeOptions] = []

    def open(self, options: DecodeOptions) -> LinedVoice:
        self.options.append(options)
        return LinedVoice(self, len(self.options))


class LinedVoice:
    def __init__(self, decoder: Lined, number: int) -> None:
        self._decoder, self._number = decoder, number

    def feed(self, item: Sequence[int]) -> list[object]:
        assert self._decoder.gate.wait(10)
        self._decoder.calls.append((self._number, len(item)))
        return [list(item)]

    def finish(self) -> list[object]:
        return []


async def test_a_long_utterance_that_fell_behind_lets_a_short_one_in(checkpoint: Checkpoint) -> None:
    """Would catch a voice that makes all it owes in one call, while others, and its own listener, wait."""
    decoder = Lined()
    codes = speech(checkpoint, *([1] * 20 * MOST_CODES))
    backbone = ScriptedBackbone(*([code] for code in codes), [END])
    pipeline = build(checkpoint, backbone, audio=decoder)
    long = asyncio.create_task(collect(pipeline, request()))
    async with asyncio.timeout(10):
        while backbone.spoken < len(codes):
            await asyncio.sleep(0.005)
    backbone.chunks = (speech(checkpoint, 1, 2), [END])
    short = asyncio.create_task(collect(pipeline, request()))
    async with asyncio.timeout(10):
        while len(backbone.prompts) < 2 or backbone.unfinished:
            await asyncio.sleep(0.005)
    for _ in range(50):  # its span is on its way into the lane
        await asyncio.sleep(0)
    decoder.gate.set()
    events, _ = await long, await short
    assert sum(size for number, size in decoder.calls if number == 1) == 20 * MOST_CODES
    assert max(size for _, size in decoder.calls) <= MOST_CODES
    numbers = [number for number, _ in decoder.calls]
    assert numbers.index(2) < len(numbers) - 10, numbers
    assert sum(isinstance(event, AudioDelta) for event in events) >= 20


def speaking(checkpoint: Checkpoint, hurries: bool) -> tuple[Pipeline, Admission, Lined]:
    decoder = Lined()
    decoder.gate.set()
    pipeline = build(checkpoint, ScriptedBackbone(speech(checkpoint, 1, 2), [END]), audio=decoder)
    admission = Admission({Scarce.REPLIES: 4}, most=10, patience=10)
    pipeline._gate = Gate(admission, pipeline.measures, hurries)
    return pipeline, admission, decoder


def taught(admission: Admission, asked: Request, first: float) -> None:
    """It has seen replies of this kind, with their first sound after so many seconds of ten."""
    for _ in range(10):
        now = time.monotonic()
        place = admission.ask(Wish({Scarce.REPLIES: 1}, kind_of(asked), lambda: "x"), now)
        assert isinstance(place, Place)
        admission.leave(place, now + 10.0, 10, first)


async def test_a_first_sound_in_time_is_promised_as_it_is(checkpoint: Checkpoint) -> None:
    """Would catch quality that is given up where nobody needs it to be."""
    pipeline, admission, decoder = speaking(checkpoint, hurries=True)
    taught(admission, request(modalities=SPOKEN), first=0.5)
    with under(call := Call("r1", first_audio_within=5.0)):
        events = await collect(pipeline, request(modalities=SPOKEN))
    assert isinstance(events[-1], Done)
    assert call.plans == {"deployed"} and decoder.options[-1].look_ahead is None
    assert 'omni_first_audio_deadlines_total{met="yes"} 1.0' in pipeline.measures.exposition().decode()


async def test_a_first_sound_is_hurried_where_it_would_be_late(checkpoint: Checkpoint) -> None:
    """Would catch a request that is refused though a shorter look-ahead would do, or one that is hurried in secret."""
    pipeline, admission, decoder = speaking(checkpoint, hurries=True)
    taught(admission, request(modalities=SPOKEN), first=5.0)
    with under(call := Call("r1", first_audio_within=1.0)):
        await collect(pipeline, request(modalities=SPOKEN))
    assert call.plans == {"low_latency"} and decoder.options[-1].look_ahead == "low_latency"


async def test_a_first_sound_that_cannot_be_in_time_is_refused(checkpoint: Checkpoint) -> None:
    """Would catch a promise that was known to be false, and a text reply that is refused for it."""
    pipeline, admission, _ = speaking(checkpoint, hurries=False)
    taught(admission, request(modalities=SPOKEN), first=5.0)
    with under(Call("r1", first_audio_within=1.0)):
        with pytest.raises(DeadlineExceeded):
            await collect(pipeline, request(modalities=SPOKEN))
        words = frozenset({Modality.TEXT})
        assert isinstance((await collect(pipeline, request(modalities=words)))[-1], Done)
    for number in range(4):
        admission.ask(Wish({Scarce.REPLIES: 1}, "other", lambda number=number: number), time.monotonic())  # type: ignore[misc]
    with under(Call("r1", first_audio_within=4.0)), pytest.raises(Overloaded):
        await collect(pipeline, request(modalities=SPOKEN))


async def test_a_promise_that_was_broken_is_counted(checkpoint: Checkpoint) -> None:
    """Would catch a server that keeps no account of the times it misses."""
    pipeline, _, _ = speaking(checkpoint, hurries=False)
    with under(Call("r1", first_audio_within=1e-6)):  # of this kind nothing is known, so it is tried
        assert isinstance((await collect(pipeline, request(modalities=SPOKEN)))[-1], Done)
    assert 'omni_first_audio_deadlines_total{met="no"} 1.0' in pipeline.measures.exposition().decode()


async def test_a_socket_is_a_call_too(checkpoint: Checkpoint) -> None:
    """Would catch a live conversation whose log lines name no request, and a time that is no time and passes for none."""
    calls: list[Call | None] = []
    sent: list[Mapping[str, Any]] = []

    async def app(scope: object, receive: object, send: object) -> None:
        calls.append(current_call())

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> Mapping[str, Any]:
        return {"type": "websocket.connect"}

    door = Calls(app)
    headers = [(b"x-request-id", b"mine"), (b"x-first-audio-by-ms", b"500"), (b"x-request-timeout-ms", b"9000")]
    await door({"type": "websocket", "headers": headers}, receive, send)
    (call,) = calls
    assert call is not None
    assert (call.request_id, call.first_audio_within, call.deadline) == ("mine", 0.5, None)
    await door({"type": "websocket", "headers": [(b"x-first-audio-by-ms", b"soon")]}, receive, send)
    assert len(calls) == 1 and sent[0]["type"] == "websocket.close" and "soon" in sent[0]["reason"]


async def test_the_answer_says_how_the_first_sound_was_met(checkpoint: Checkpoint) -> None:
    """Would catch a client that asked for a time and is not told at what price it got it."""
    pipeline, _, _ = speaking(checkpoint, hurries=True)
    asked = ask() | {"model": checkpoint.name, "modalities": ["text", "image"]}
    async with door(pipeline) as client:  # type: ignore[arg-type]
        wrong = await client.post("/v1/chat/completions", json=asked, headers={"x-first-audio-by-ms": "soon"})
        spoken = asked | {"modalities": ["text", "audio"], "audio": {"format": "pcm16"}, "stream": True}
        told = await client.post("/v1/chat/completions", json=spoken, headers={"x-first-audio-by-ms": "5000"})
        plain = await client.post("/v1/chat/completions", json=spoken)
    assert wrong.status_code == 400 and wrong.json()["error"]["param"] == "x-first-audio-by-ms"
    assert told.headers["x-first-audio-plan"] == "deployed"
    assert "x-first-audio-plan" not in plain.headers
