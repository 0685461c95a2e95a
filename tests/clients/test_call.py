"""Live conversations, sync and async: what goes up, what comes down, and every way in which a call can end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import numpy as np
import PIL.Image
import pytest
from google.protobuf.duration_pb2 import Duration

from omni.v1 import content_pb2, converse_pb2, events_pb2
from omni_client import (
    APIConnectionError,
    APIError,
    AsyncOmniClient,
    Audio,
    AudioDelta,
    AuthenticationError,
    BadRequestError,
    Caption,
    GoAway,
    Heard,
    ImagePreview,
    ImageReady,
    InternalServerError,
    Interrupted,
    MediaError,
    Message,
    OmniClient,
    OmniError,
    RateLimitError,
    Ready,
    ReasoningDelta,
    Refused,
    Reply,
    ResponseDone,
    ResponseStarted,
    SpanClosed,
    SpanError,
    SpanOpened,
    SpeechStarted,
    SpeechStopped,
    StreamBrokenError,
    ToolCalled,
    Truncated,
    TurnCommitted,
    TurnComplete,
    Usage,
)
from omni_client.sound import Frames, Paced
from tests.clients.both import until
from tests.clients.scripted_service import ScriptedService, refuse, service
from tests.incremental import assert_split_invariant
from tests.media_samples import png_of

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
PNG = png_of(PIL.Image.new("RGB", (8, 6), "red"))
URL = "http://127.0.0.1:9"  # nothing is asked over REST here


class BothCalls:
    """A call of either client with one face: the sync one runs in a thread."""

    def __init__(self, kind: str, target: str, source: Any = None, **wishes: Any) -> None:
        self.sync = kind == "sync"
        client: Any = OmniClient if self.sync else AsyncOmniClient
        self.client = client(URL, grpc_target=target, api_key="key")
        self.call = self.client.converse(source, **wishes)

    async def __aenter__(self) -> BothCalls:
        await (asyncio.to_thread(self.call.__enter__) if self.sync else self.call.__aenter__())
        return self

    async def __aexit__(self, *error: Any) -> None:
        await (asyncio.to_thread(self.call.__exit__, *error) if self.sync else self.call.__aexit__(*error))
        await (asyncio.to_thread(self.client.close) if self.sync else self.client.close())

    async def do(self, name: str, *given: Any) -> None:
        method = getattr(self.call, name)
        await (asyncio.to_thread(method, *given) if self.sync else method(*given))

    async def next(self) -> Any:
        """The next event, or `None` at the end."""
        return await (asyncio.to_thread(next, self.call, None) if self.sync else anext(self.call, None))

    async def rest(self) -> list[Any]:
        events = []
        while (event := await self.next()) is not None:
            events.append(event)
        return events


def seconds(number: float) -> Duration:
    return Duration(seconds=int(number), nanos=round(number % 1 * 1e9))


@KINDS
async def test_what_goes_up(kind: str) -> None:
    """Catches a wish, a sound or a word that does not arrive, or arrives as something else."""

    async def script(scripted: ScriptedService, context: Any) -> None:
        await scripted.begin(context)
        while await scripted.receive(context) is not None:
            pass

    wishes: Any = {
        "voice": "heart", "system": "Be kind.", "modalities": ["text", "audio"], "temperature": 0.0, "seed": 3, "stop": "x",
        "max_tokens": 9, "sample_rate": 8000, "output_sample_rate": 16_000, "turns": "client", "silence_duration_ms": 300,
        "interrupt_response": False, "captions": True, "model": "m",
        "history": [
            Message("user", ["look", PNG]), Reply("A fox.", tool_calls=(ToolCalled(0, "c1", "look", "{}"),)),
            {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
        ],
        "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
        "tool_choice": "none", "reasoning_effort": "none", "ratio": "4:3", "previews": 2,
    }  # fmt: skip
    async with service(script) as (scripted, target), BothCalls(kind, target, **wishes) as call:
        assert call.call.ready == Ready("session-1", "m", "heart", ("text", "audio"), 8000, 16_000)
        await call.do("send", b"\1\0\2")
        await call.do("send", b"\0")
        await call.do("send_text", "hello")
        await call.do("send_picture", PNG)
        await call.do("send_tool_result", "c2", "a dog")
        await call.do("end_turn")
        await call.do("interrupt")
        await call.do("truncate", "r1", 1.25)
        await call.do("played", "r1", 0.5)
        await call.do("finish")
        await call.do("finish")  # once is enough, twice is no fault
        await call.do("played", "r1", 0.75)  # of no use any more, and no fault
        assert await call.rest() == []
        with pytest.raises(OmniError, match="over"):
            await call.do("send_text", "too late")
    assert scripted.metadata["authorization"] == "Bearer key"
    assert scripted.metadata["x-request-id"] == call.call.request_id
    config = scripted.received[0].config
    assert (config.model, config.voice, config.instructions) == ("m", "heart", "Be kind.")
    assert [*config.modalities] == [content_pb2.MODALITY_TEXT, content_pb2.MODALITY_AUDIO]
    sampling = config.sampling
    assert (sampling.temperature, sampling.HasField("temperature"), sampling.HasField("top_p")) == (0.0, True, False)
    assert (sampling.seed, [*sampling.stop], sampling.max_tokens) == (3, ["x"], 9)
    assert (config.input_audio.sample_rate_hertz, config.output_audio.sample_rate_hertz) == (8000, 16_000)
    assert config.turn_detection == converse_pb2.TurnDetection(
        type=converse_pb2.TURN_DETECTION_TYPE_NONE, silence_duration_ms=300, interrupt_response=False
    )
    assert config.input_transcription
    roles = [content_pb2.ROLE_USER, content_pb2.ROLE_ASSISTANT, content_pb2.ROLE_TOOL]
    assert [message.role for message in config.history] == roles
    assert [*config.history[1].tool_calls] == [content_pb2.ToolCall(name="look", arguments="{}")]
    assert config.history[2].tool == "look"  # this wire tells a tool's answer by the tool's name
    assert [*config.tools] == [content_pb2.Tool(name="look", parameters='{"type": "object"}')]
    assert config.tool_choice == content_pb2.ToolChoice(use=content_pb2.TOOL_USE_NONE)
    assert config.thinking == content_pb2.Thinking(enabled=False)
    assert config.drawing == content_pb2.Drawing(ratio="4:3", previews=2)
    assert config.history[0].parts[1].image.url.startswith("data:image/png;base64,")
    sent = scripted.received[1:]
    assert [message.WhichOneof("message") for message in sent] == [
        "audio", "audio", "text", "image", "tool_result", "end_turn", "cancel", "truncate", "playback"
    ]  # fmt: skip
    assert [(m.audio.audio, m.audio.sequence) for m in sent[:2]] == [(b"\1\0", 1), (b"\2\0", 2)]
    assert sent[3].image.data == PNG
    assert sent[4].tool_result == converse_pb2.ToolResult(call_id="c2", output="a dog")
    assert sent[7].truncate == converse_pb2.Truncate(response_id="r1", heard=seconds(1.25))


DOWN: list[tuple[dict[str, Any], Any]] = [
    ({"speech_started": converse_pb2.SpeechStarted(turn_id="t", start=seconds(0.5))}, SpeechStarted("t", 0.5)),
    ({"speech_stopped": converse_pb2.SpeechStopped(turn_id="t", end=seconds(1.5))}, SpeechStopped("t", 1.5)),
    ({"turn_committed": converse_pb2.TurnCommitted(turn_id="t", audio=seconds(1))}, TurnCommitted("t", 1.0)),
    (
        {"transcript": converse_pb2.Transcript(id="t", role=content_pb2.ROLE_USER, text="여우", is_final=True)},
        Caption("t", "user", "여우", True),
    ),
    ({"response_started": converse_pb2.ResponseStarted(response_id="r", turn_id="t")}, ResponseStarted("r", "t")),
    ({"span_opened": events_pb2.SpanOpened(index=0, modality=content_pb2.MODALITY_AUDIO)}, SpanOpened(0, "audio")),
    ({"audio_delta": events_pb2.AudioDelta(index=0, audio=b"\1\0", start=seconds(0.25))}, AudioDelta(b"\1\0", 24_000, 0.25)),
    ({"image_preview": events_pb2.ImagePreview(index=1, image=PNG, progress=0.5)}, ImagePreview),
    ({"image_ready": events_pb2.ImageReady(index=1, image=PNG)}, ImageReady),
    ({"heard": events_pb2.Heard(text="a cat?")}, Heard("a cat?")),
    ({"reasoning_delta": events_pb2.ReasoningDelta(text="hm")}, ReasoningDelta("hm")),
    (
        {
            "tool_called": events_pb2.ToolCalled(
                index=0, call=content_pb2.ToolCall(name="look", arguments="{}"), call_id="c1"
            )
        },
        ToolCalled(0, "c1", "look", "{}"),
    ),
    ({"span_closed": events_pb2.SpanClosed(index=0)}, SpanClosed(0)),
    (
        {"span_closed": events_pb2.SpanClosed(index=1, problem=events_pb2.Problem(reason="DECODE_FAILED", message="no paint"))},
        SpanClosed(1, SpanError("no paint", code="decode_failed")),
    ),
    (
        {
            "response_done": converse_pb2.ResponseDone(
                response_id="r", status=converse_pb2.RESPONSE_STATUS_COMPLETED,
                usage=events_pb2.Usage(prompt_tokens=3, completion_tokens=4),
                timing=events_pb2.Timing(total=seconds(2)), turn_to_first_audio=seconds(0.5), audio=seconds(1.5),
            )
        },
        ResponseDone("r", "completed", Usage(prompt_tokens=3, completion_tokens=4), {"total": 2.0}, 0.5, 1.5),
    ),
    (
        {"response_done": converse_pb2.ResponseDone(response_id="r", status=converse_pb2.RESPONSE_STATUS_INTERRUPTED)},
        ResponseDone("r", "interrupted"),
    ),
    ({"interrupted": converse_pb2.Interrupted(response_id="r", heard=seconds(0.5), text="A")}, Interrupted("r", 0.5, "A")),
    ({"turn_complete": converse_pb2.TurnComplete(response_id="r")}, TurnComplete("r")),
    ({"truncated": converse_pb2.Truncated(response_id="r", heard=seconds(1), text="A")}, Truncated("r", 1.0, "A")),
    (
        {"problem": events_pb2.Problem(reason="INVALID_MEDIA", message="no picture", field="image")},
        Refused("no picture", "invalid_media", "image"),
    ),
    ({"go_away": converse_pb2.GoAway(time_left=seconds(30))}, GoAway(30.0)),
]  # fmt: skip


@KINDS
async def test_what_comes_down(kind: str) -> None:
    """Catches a message that becomes another event, or none."""

    async def script(scripted: ScriptedService, context: Any) -> None:
        await scripted.begin(context)
        for message, _ in DOWN:
            await scripted.send(context, **message)
        await scripted.send(context)  # of a kind that is not invented yet

    async with service(script) as (_, target), BothCalls(kind, target) as call:
        events = await call.rest()
    assert len(events) == len(DOWN)
    for event, (_, expected) in zip(events, DOWN, strict=True):
        if isinstance(expected, type):
            assert isinstance(event, expected) and event.picture.data == PNG
        else:
            assert event == expected


def test_every_message_is_known() -> None:
    """Catches a message that the wire learns and the SDK does not."""
    on_the_wire = {field.name for field in converse_pb2.ConverseResponse.DESCRIPTOR.oneofs_by_name["message"].fields}
    assert on_the_wire == {name for message, _ in DOWN for name in message} | {"ready"}


def pieces(count: int = 5) -> Iterator[bytes]:
    for number in range(count):
        yield bytes([number, 0])


async def slowly(count: int = 5) -> AsyncIterator[bytes]:
    for piece in pieces(count):
        await asyncio.sleep(0)
        yield piece


@pytest.mark.parametrize(("kind", "source"), [("sync", pieces), ("async", pieces), ("async", slowly)])
async def test_a_source_is_sent_to_its_end(kind: str, source: Callable[[], Any]) -> None:
    """Catches sound that is lost or out of order, and a turn that never ends because nobody said that the sound has."""

    async def script(scripted: ScriptedService, context: Any) -> None:
        await scripted.begin(context)
        while await scripted.receive(context) is not None:
            pass
        await scripted.send(context, turn_complete=converse_pb2.TurnComplete(response_id="r"))

    async with service(script) as (scripted, target), BothCalls(kind, target, source()) as call:
        assert (await call.rest())[-1] == TurnComplete("r")
    assert [m.audio.audio for m in scripted.received[1:]] == [*pieces()]


@KINDS
async def test_a_recording_is_sent_as_fast_as_it_is_spoken(kind: str) -> None:
    """Catches a recording at the wrong rate, and one that arrives all at once, which no microphone does."""

    async def script(scripted: ScriptedService, context: Any) -> None:
        await scripted.begin(context)
        while await scripted.receive(context) is not None:
            pass

    audio = Audio.from_waveform(np.linspace(-1, 1, 3200), 8000)  # 0.4 s
    async with service(script) as (scripted, target):
        start = time.monotonic()
        async with BothCalls(kind, target, audio) as call:
            await call.rest()
        assert time.monotonic() - start >= 0.4  # at least; how much longer is the machine's affair
    assert scripted.received[0].config.input_audio.sample_rate_hertz == 8000
    assert b"".join(m.audio.audio for m in scripted.received[1:]) == audio.pcm
    assert len(scripted.received) == 1 + 20


@KINDS
async def test_a_source_that_fails(kind: str) -> None:
    """Catches a microphone that is unplugged in silence."""

    def failing() -> Iterator[bytes]:
        yield b"\0\0"
        raise OSError("unplugged")

    async def script(scripted: ScriptedService, context: Any) -> None:
        await scripted.begin(context)
        while await scripted.receive(context) is not None:
            pass
        await asyncio.sleep(60)

    async with service(script) as (_, target), BothCalls(kind, target, failing()) as call:
        with pytest.raises(OmniError, match="unplugged"):
            await call.rest()


@KINDS
@pytest.mark.parametrize(
    ("code", "reason", "error", "status"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_VALUE", BadRequestError, 400),
        (grpc.StatusCode.UNIMPLEMENTED, "UNSUPPORTED_MODALITY", BadRequestError, 400),
        (grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY", AuthenticationError, 401),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMIT_EXCEEDED", RateLimitError, 429),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", InternalServerError, 503),
        (grpc.StatusCode.UNAVAILABLE, "ENGINE_UNAVAILABLE", InternalServerError, 503),
        (grpc.StatusCode.INTERNAL, "INTERNAL_ERROR", InternalServerError, 500),
    ],
)
@pytest.mark.parametrize("begun", [False, True])
async def test_statuses_are_typed_errors(
    kind: str, code: grpc.StatusCode, reason: str, error: type[APIError], status: int, begun: bool
) -> None:
    """Catches an error whose class depends on the door, or that loses its field or its id in the server's log."""

    async def script(scripted: ScriptedService, context: Any) -> None:
        if begun:
            await scripted.begin(context)
        await refuse(context, code, "what was wrong", reason, "voice")

    async with service(script) as (_, target):
        with pytest.raises(error) as caught:
            async with BothCalls(kind, target) as call:
                await call.rest()
        problem: Any = caught.value
        assert type(problem) is error
        assert (str(problem), problem.status_code, problem.code) == ("what was wrong", status, reason.lower())
        assert (problem.param, problem.request_id) == ("voice", "req_theirs")


@KINDS
async def test_a_server_that_disappears(kind: str) -> None:
    """Catches a conversation that ends well although it was cut."""

    async def script(scripted: ScriptedService, context: Any) -> None:
        await scripted.begin(context)
        await asyncio.sleep(60)

    with pytest.raises(StreamBrokenError):
        async with service(script) as (scripted, target), BothCalls(kind, target) as call:
            stopping = asyncio.create_task(scripted.stop())
            try:
                await call.rest()
            finally:
                await stopping


@KINDS
async def test_no_server(kind: str) -> None:
    """Catches a call that waits for ever, and an error that does not say where the server was looked for."""
    with pytest.raises(APIConnectionError, match=r"127\.0\.0\.1:9, where gRPC"):
        async with BothCalls(kind, "127.0.0.1:9"):
            pass


@KINDS
async def test_leaving_ends_the_call(kind: str) -> None:
    """Catches a conversation that goes on in the server after the block was left, with its source still running."""

    async def script(scripted: ScriptedService, context: Any) -> None:
        await scripted.begin(context)
        while await scripted.receive(context) is not None:
            pass
        await asyncio.sleep(60)

    sent = []

    def endless() -> Iterator[bytes]:
        while True:
            sent.append(1)
            time.sleep(0.005)
            yield b"\0\0"

    async with service(script) as (scripted, target):
        async with BothCalls(kind, target, endless()):
            await until(lambda: len(scripted.received) > 3)
            assert scripted.running == 1
        await until(lambda: scripted.running == 0)
        count = len(sent)
        await asyncio.sleep(0.05)
        assert len(sent) <= count + 1


@KINDS
async def test_misuse_is_told(kind: str) -> None:
    """Catches a wish that is dropped in silence, and an AttributeError for a call that was not entered."""
    with pytest.raises(TypeError, match="voise"):
        BothCalls(kind, "127.0.0.1:9", voise="heart")
    with pytest.raises(OmniError, match="not open"):
        await BothCalls(kind, "127.0.0.1:9").next()

    async def script(scripted: ScriptedService, context: Any) -> None:
        await scripted.begin(context)
        await asyncio.sleep(60)

    async with service(script) as (_, target), BothCalls(kind, target) as call:
        with pytest.raises(MediaError):
            await call.do("send_picture", b"no picture")


def test_where_grpc_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a port that has to be named although the server's own is known."""
    for url, target in (("http://box:8000", "box:8001"), ("https://box", "box:444"), ("http://box/v1", "box:81")):
        assert OmniClient(url).converse()._setup.target == target
    monkeypatch.setenv("OMNI_GRPC_TARGET", "other:1")
    assert AsyncOmniClient(URL).converse()._setup.target == "other:1"
    assert OmniClient(URL, grpc_target="mine:2").converse()._setup.target == "mine:2"


def test_frames_cut_anywhere() -> None:
    """Catches a sample that is torn in two, and a frame longer than the server takes."""
    pcm = bytes(range(250)) * 40
    assert_split_invariant(lambda: Frames(8000), pcm, b"".join)
    assert [len(frame) for frame in Frames(8000).feed(bytes(20_001))] == [8000, 8000, 4000]


def test_paced_silence() -> None:
    """Catches a turn that the server never ends, because no silence follows the last word."""
    audio = Audio.from_pcm(b"\1\0" * 320, 16_000)
    assert b"".join(Paced(audio, silence=0.04)) == audio.pcm + bytes(2 * 640)
