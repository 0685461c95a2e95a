"""`Converse` over a scripted pipeline and scripted ears: turns, answers, interruptions, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import PIL.Image
import pytest

from omni.v1 import content_pb2, converse_pb2, omni_service_pb2_grpc
from omni_server.config import MediaLimits, Settings
from omni_server.door import Door
from omni_server.errors import DecodeFailed
from omni_server.media import MediaLoader
from omni_server.rpc import RpcServer
from omni_server.types import (
    AudioDelta,
    AudioPart,
    Calling,
    Done,
    Failed,
    Heard,
    ImagePart,
    ImagePreview,
    ImageProgress,
    ImageReady,
    Modality,
    ReasoningDelta,
    SpanClosed,
    SpanOpened,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCalled,
    Usage,
)
from tests.doubles import Forever, LoudEars, ScriptedPipeline
from tests.media_samples import png_of
from tests.rpc.doors import Client, error_info

RATE = 16_000
SECOND = np.full(24_000, 0.25, np.float32)
ANSWER = (
    SpanOpened(0, Modality.TEXT),
    TextDelta(0, "one two"),
    SpanClosed(0),
    SpanOpened(1, Modality.AUDIO),
    AudioDelta(1, SECOND, 24_000),
    SpanClosed(1),
    Done("stop", Usage(prompt_tokens=5), {"total": 0.1}),
)
Request = converse_pb2.ConverseRequest
OPUS: Any = {"encoding": content_pb2.AUDIO_ENCODING_OPUS}
BY_HAND = converse_pb2.TurnDetection(type=converse_pb2.TURN_DETECTION_TYPE_NONE)


def frames(*levels: tuple[float, float]) -> list[Request]:
    """(level, seconds) as frames of 40 ms."""
    samples = np.concatenate([np.full(round(seconds * RATE), level * 32767, "<i2") for level, seconds in levels])
    return [
        Request(audio=converse_pb2.AudioFrame(audio=samples[at : at + 640].tobytes())) for at in range(0, len(samples), 640)
    ]


TURN = frames((0.0, 0.4), (0.5, 0.6), (0.0, 0.8))


@asynccontextmanager
async def door(pipeline: Any, shutdown_seconds: int = 0) -> AsyncIterator[tuple[Client, LoudEars]]:
    ears = LoudEars()
    server = RpcServer(Door(pipeline, Settings(shutdown_seconds=shutdown_seconds)), ears)
    await server.start(0)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Client(server, channel, omni_service_pb2_grpc.OmniServiceStub(channel)), ears  # type: ignore[no-untyped-call]
    finally:
        await server.drain(0.0)
        ears.lane.close()


async def held(pipeline: Any, messages: Sequence[Request], **config: Any) -> list[converse_pb2.ConverseResponse]:
    """One call: everything is sent at once, then half-closed; all that comes back but `ready`."""
    async with door(pipeline) as (client, ears):
        sent = [Request(config=converse_pb2.ConverseConfig(**config)), *messages]
        replies = [reply async for reply in client.stub.Converse(iter(sent))]
        assert [reply.sequence for reply in replies] == list(range(1, len(replies) + 1))
        assert replies[0].HasField("ready")
        assert ears.opened == 0
    return replies[1:]


def kinds(replies: Sequence[converse_pb2.ConverseResponse]) -> list[str]:
    return [str(reply.WhichOneof("message")) for reply in replies]


def only(replies: Sequence[converse_pb2.ConverseResponse], kind: str) -> list[Any]:
    return [getattr(reply, kind) for reply in replies if reply.HasField(kind)]  # type: ignore[arg-type]


async def test_a_turn_is_heard_and_answered() -> None:
    """Would catch an event that is lost or out of order between the microphone and the loudspeaker."""
    pipeline = ScriptedPipeline(*ANSWER)
    replies = await held(pipeline, TURN)
    assert kinds(replies) == [
        *("speech_started", "speech_stopped", "turn_committed", "response_started", "span_opened", "transcript", "span_closed"),
        *("span_opened", "audio_delta", "span_closed", "transcript", "response_done", "turn_complete"),
    ]
    (stopped,), (done,) = only(replies, "speech_stopped"), only(replies, "response_done")
    assert stopped.end.ToTimedelta().total_seconds() == pytest.approx(1.0, abs=0.04)
    assert done.status == converse_pb2.RESPONSE_STATUS_COMPLETED and done.usage.prompt_tokens == 5
    assert done.audio.ToTimedelta().total_seconds() == 1.0 and done.HasField("turn_to_first_audio")
    assert [(text.text, text.is_final) for text in only(replies, "transcript")] == [("one two", False), ("one two", True)]
    (delta,) = only(replies, "audio_delta")
    assert (len(delta.audio), delta.end.seconds) == (48_000, 1)
    (heard,) = pipeline.requests[-1].messages[-1].parts
    assert isinstance(heard, AudioPart)


async def test_the_answer_is_begun_in_the_pause_and_only_once() -> None:
    """Would catch an answer that is made twice for one turn, or a history that is read only when the turn is over."""
    pipeline = ScriptedPipeline(*ANSWER)
    await held(pipeline, TURN, instructions="be brief")
    assert len(pipeline.requests) == 1 and len(pipeline.warmed) == 1


async def test_who_goes_on_after_a_pause_is_answered_once_with_everything() -> None:
    """Would catch an answer to half a sentence."""
    pipeline = ScriptedPipeline(*ANSWER)
    replies = await held(pipeline, frames((0.5, 0.6), (0.0, 0.3), (0.5, 0.6), (0.0, 0.8)))
    assert kinds(replies).count("response_started") == 1
    (part,) = pipeline.requests[-1].messages[-1].parts
    assert isinstance(part, AudioPart) and part.source.data is not None
    assert len(part.source.data) / 2 / RATE == pytest.approx(1.66, abs=0.1)
    assert pipeline.running == 0


async def test_silence_and_noise_of_a_room_are_never_answered() -> None:
    """Would catch a model that talks to itself."""
    pipeline = ScriptedPipeline(*ANSWER)
    assert await held(pipeline, frames((0.0, 3.0), (0.05, 3.0))) == []
    assert pipeline.requests == []


async def test_half_an_hour_of_sound_in_one_call() -> None:
    """Would catch a call that slows down, or that answers what nobody said."""
    pipeline = ScriptedPipeline(*ANSWER)
    second = Request(audio=converse_pb2.AudioFrame(audio=bytes(2 * RATE)))
    replies = await held(pipeline, [second] * 1800 + TURN)
    (started,) = only(replies, "speech_started")
    assert started.start.ToTimedelta().total_seconds() == pytest.approx(1800.1, abs=0.05)
    assert len(pipeline.requests) == 1


async def test_turns_by_hand_with_words_and_a_picture() -> None:
    """Would catch words or a picture that do not reach the model, or stand in another order."""
    pipeline = ScriptedPipeline(*ANSWER, loader=MediaLoader(MediaLimits(1 << 20, 1 << 20, 60.0), fetch=None))  # type: ignore[arg-type]
    picture = Request(image=content_pb2.Media(data=png_of(PIL.Image.new("RGB", (8, 8)))))
    said = [picture, *frames((0.1, 0.4)), Request(text="what is it?"), Request(end_turn=converse_pb2.EndTurn())]
    replies = await held(pipeline, said, turn_detection=BY_HAND)
    assert kinds(replies)[:2] == ["turn_committed", "response_started"]
    parts = pipeline.requests[-1].messages[-1].parts
    assert [type(part) for part in parts] == [ImagePart, AudioPart, TextPart]


async def test_a_picture_of_the_wrong_type_is_told_and_the_conversation_goes_on() -> None:
    """Would catch a call that ends because of one bad file, or a bad file that is passed over in silence."""
    pipeline = ScriptedPipeline(*ANSWER, loader=MediaLoader(MediaLimits(1 << 20, 1 << 20, 60.0), fetch=None))  # type: ignore[arg-type]
    said = [Request(image=content_pb2.Media(data=b"GIF? no")), Request(text="hi"), Request(end_turn=converse_pb2.EndTurn())]
    replies = await held(pipeline, said)
    (problem,) = only(replies, "problem")
    assert (problem.reason, problem.field) == ("INVALID_MEDIA", "image")
    assert kinds(replies)[-1] == "turn_complete"
    assert [type(part) for part in pipeline.requests[-1].messages[-1].parts] == [TextPart]


async def test_the_end_of_an_empty_turn_is_told() -> None:
    """Would catch an answer to nothing."""
    replies = await held(ScriptedPipeline(*ANSWER), [Request(end_turn=converse_pb2.EndTurn())])
    assert kinds(replies) == ["problem"]


async def test_an_answer_that_fails_does_not_end_the_call() -> None:
    """Would catch a conversation that dies with one answer, or an answer without an ending."""
    said = [Request(text="a"), Request(end_turn=converse_pb2.EndTurn())] * 2
    one_after_another = converse_pb2.TurnDetection(interrupt_response=False)
    replies = await held(ScriptedPipeline(Failed(DecodeFailed("no"))), said, turn_detection=one_after_another)
    done = only(replies, "response_done")
    assert [each.status for each in done] == [converse_pb2.RESPONSE_STATUS_FAILED] * 2
    assert done[0].problem.reason == "DECODE_FAILED"


@pytest.mark.parametrize(
    ("messages", "code", "field"),
    [
        (frames((0.0, 0.04)), "INVALID_ARGUMENT", "config"),
        ([Request(config=converse_pb2.ConverseConfig())] * 2, "FAILED_PRECONDITION", "config"),
        ([Request(config=converse_pb2.ConverseConfig(model="nobody"))], "NOT_FOUND", "model"),
        (
            [Request(config=converse_pb2.ConverseConfig(input_audio=content_pb2.AudioFormat(sample_rate_hertz=4000)))],
            "INVALID_ARGUMENT",
            "input_audio.sample_rate_hertz",
        ),
        (
            [Request(config=converse_pb2.ConverseConfig(input_audio=content_pb2.AudioFormat(encoding=4)))],  # type: ignore[arg-type]
            "INVALID_ARGUMENT",
            "input_audio.encoding",
        ),
        (
            [Request(config=converse_pb2.ConverseConfig(output_audio=content_pb2.AudioFormat(encoding=3)))],  # type: ignore[arg-type]
            "INVALID_ARGUMENT",
            "output_audio.encoding",
        ),
        (
            [Request(config=converse_pb2.ConverseConfig(tool_choice=content_pb2.ToolChoice(use=9)))],  # type: ignore[arg-type]
            "INVALID_ARGUMENT",
            "tool_choice.use",
        ),
        (
            [Request(config=converse_pb2.ConverseConfig(turn_detection=converse_pb2.TurnDetection(threshold=2)))],
            "INVALID_ARGUMENT",
            "turn_detection.threshold",
        ),
        (
            [
                Request(config=converse_pb2.ConverseConfig()),
                *(Request(audio=converse_pb2.AudioFrame(audio=bytes(640), sequence=number)) for number in (1, 3, 2)),
            ],
            "FAILED_PRECONDITION",
            "audio.sequence",
        ),
        (
            [Request(config=converse_pb2.ConverseConfig()), Request(audio=converse_pb2.AudioFrame(audio=bytes(641)))],
            "INVALID_ARGUMENT",
            "audio",
        ),
        (
            [Request(config=converse_pb2.ConverseConfig()), Request(audio=converse_pb2.AudioFrame(audio=bytes(64_000)))],
            "INVALID_ARGUMENT",
            "audio",
        ),
        (
            [Request(config=converse_pb2.ConverseConfig(input_audio=OPUS | {"sample_rate_hertz": 11_025}))],
            "INVALID_ARGUMENT",
            "input_audio.sample_rate_hertz",
        ),
        (
            [Request(config=converse_pb2.ConverseConfig(output_audio=content_pb2.AudioFormat(sample_rate_hertz=96_000)))],
            "INVALID_ARGUMENT",
            "output_audio.sample_rate_hertz",
        ),
        (
            [
                Request(config=converse_pb2.ConverseConfig(input_audio=OPUS)),
                Request(audio=converse_pb2.AudioFrame(audio=b"no packet of Opus")),
            ],
            "INVALID_ARGUMENT",
            "audio",
        ),
        ([], "INVALID_ARGUMENT", "config"),
    ],
)
async def test_what_ends_a_call(messages: list[Request], code: str, field: str) -> None:
    """Would catch a broken client that is led to believe that it is understood."""
    async with door(ScriptedPipeline(*ANSWER)) as (client, ears):
        call = client.stub.Converse(iter(messages))
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in call:
                pass
        status, message, info, _ = await error_info(call)
        assert (status.name, info.metadata["field"]) == (code, field) and "`" in message
        assert ears.opened == 0


async def test_ready_says_what_holds() -> None:
    """Would catch a default that a client cannot find out."""
    async with door(ScriptedPipeline()) as (client, _):
        call = client.stub.Converse(iter([Request(config=converse_pb2.ConverseConfig())]))
        config = (await call.read()).ready.config
    assert (config.model, config.voice) == ("omni-scripted", "mint")
    assert (config.input_audio.sample_rate_hertz, config.output_audio.sample_rate_hertz) == (16_000, 24_000)
    detection = config.turn_detection
    assert (detection.threshold, detection.prefix_padding_ms, detection.silence_duration_ms) == (0.5, 300, 500)
    assert detection.interrupt_response


@asynccontextmanager
async def calling(client: Client, **config: Any) -> AsyncIterator[Any]:
    call = client.stub.Converse()
    await call.write(Request(config=converse_pb2.ConverseConfig(**config)))
    assert (await call.read()).HasField("ready")
    yield call
    call.cancel()


async def until(call: Any, kind: str) -> Any:
    while (reply := await call.read()) is not grpc.aio.EOF:
        if reply.HasField(kind):
            return getattr(reply, kind)
    raise AssertionError(f"the call ended without {kind}")


async def test_speaking_over_the_answer_stops_it_and_the_next_one_knows_what_was_heard() -> None:
    """Would catch an answer that goes on while the person speaks, or a model that believes that all of it was heard."""
    long = (*ANSWER[:5], *[AudioDelta(1, SECOND, 24_000)] * 20, Forever())
    pipeline = ScriptedPipeline(*long)
    async with door(pipeline) as (client, _), calling(client) as call:
        for frame in TURN:
            await call.write(frame)
        started = await until(call, "response_started")
        await until(call, "audio_delta")
        await call.write(Request(playback=converse_pb2.Playback(response_id=started.response_id, heard={"nanos": 600_000_000})))
        for frame in TURN:
            await call.write(frame)
        interrupted = await until(call, "interrupted")
        assert (interrupted.response_id, interrupted.text) == (started.response_id, "")
        done = await until(call, "response_done")
        assert done.status == converse_pb2.RESPONSE_STATUS_INTERRUPTED
        assert (await until(call, "turn_complete")).response_id == started.response_id
        second = await until(call, "response_started")
        assert second.response_id != started.response_id
        assert pipeline.running == 1
    roles = [message.role for message in pipeline.requests[-1].messages]
    assert roles == ["user"]  # nothing whole was heard, so both turns of the person are one


async def test_an_answer_that_was_made_may_still_be_interrupted_while_it_is_heard() -> None:
    """Would catch `response_done` taken for the end of the model's turn."""
    pipeline = ScriptedPipeline(*ANSWER[:5], *[AudioDelta(1, SECOND, 24_000)] * 3, *ANSWER[5:])
    async with door(pipeline) as (client, _), calling(client) as call:
        for frame in TURN:
            await call.write(frame)
        done = await until(call, "response_done")
        assert done.status == converse_pb2.RESPONSE_STATUS_COMPLETED
        await call.write(Request(playback=converse_pb2.Playback(response_id=done.response_id, heard={"seconds": 2})))
        for frame in TURN:
            await call.write(frame)
        interrupted = await until(call, "interrupted")
        assert (interrupted.heard.seconds, interrupted.text) == (2, "one")
        await until(call, "response_started")
    assert [part.text for part in pipeline.requests[-1].messages[1].parts] == ["one"]  # type: ignore[union-attr]


async def test_cancel_stops_the_answer_and_not_the_call() -> None:
    """Would catch a stop button that hangs up, or does nothing."""
    pipeline = ScriptedPipeline(*ANSWER[:5], Forever())
    async with door(pipeline) as (client, _), calling(client) as call:
        for text in ("a", "b"):
            await call.write(Request(text=text))
            await call.write(Request(end_turn=converse_pb2.EndTurn()))
            await until(call, "audio_delta")
            await call.write(Request(cancel=converse_pb2.Cancel()))
            assert (await until(call, "response_done")).status == converse_pb2.RESPONSE_STATUS_CANCELLED
            await until(call, "turn_complete")
    assert pipeline.running == 0


async def test_truncate_cuts_the_history() -> None:
    """Would catch a history that keeps what the player says was never heard."""
    pipeline = ScriptedPipeline(*ANSWER)
    async with door(pipeline) as (client, _), calling(client) as call:
        await call.write(Request(text="a"))
        await call.write(Request(end_turn=converse_pb2.EndTurn()))
        done = await until(call, "response_done")
        await call.write(Request(truncate=converse_pb2.Truncate(response_id=done.response_id, heard={"nanos": 600_000_000})))
        truncated = await until(call, "truncated")
        assert truncated.text == "one"
        await call.write(Request(truncate=converse_pb2.Truncate(response_id="nobody")))
        assert "nobody" in (await until(call, "problem")).message
        await call.write(Request(text="b"))
        await call.write(Request(end_turn=converse_pb2.EndTurn()))
        await until(call, "response_done")
    assert [part.text for part in pipeline.requests[-1].messages[1].parts] == ["one"]  # type: ignore[union-attr]


async def test_both_sides_are_written_down() -> None:
    """Would catch a person's words that nobody can read, or interim words that are called final."""
    pipeline = ScriptedPipeline(SpanOpened(0, Modality.TEXT), TextDelta(0, "heard"), SpanClosed(0), ANSWER[-1])
    pipeline.checkpoint.prompts["transcription"] = {"en": "write it down"}  # type: ignore[index]
    replies = await held(pipeline, frames((0.5, 2.5), (0.0, 0.8)), input_transcription=True)
    of_user = [text for text in only(replies, "transcript") if text.role == content_pb2.ROLE_USER]
    assert [text.is_final for text in of_user].count(True) == 1 and len(of_user) >= 2


async def test_opus_both_ways() -> None:
    """Would catch a codec that is in the wire's definition and was never connected."""
    from omni_server.live_audio import FrameWriter, OpusReader

    loud = np.sin(np.arange(RATE) / 5).astype(np.float32) * 0.5
    packets = FrameWriter("opus_packets", RATE, RATE).feed(np.concatenate([loud, np.zeros(RATE, np.float32)]))
    opus = content_pb2.AudioFormat(encoding=content_pb2.AUDIO_ENCODING_OPUS)
    said = [Request(audio=converse_pb2.AudioFrame(audio=packet)) for packet in packets]
    replies = await held(ScriptedPipeline(*ANSWER), said, input_audio=opus, output_audio=opus)
    reader = OpusReader()
    samples = sum(len(reader.feed(delta.audio)) for delta in only(replies, "audio_delta"))
    assert samples / 48_000 == pytest.approx(1.0, abs=0.05)


async def test_a_stopping_server_says_so() -> None:
    """Would catch callers who are cut off without a word."""
    async with door(ScriptedPipeline(*ANSWER), shutdown_seconds=1) as (client, _), calling(client) as call:
        draining = asyncio.create_task(client.server.drain(1.0))
        await until(call, "go_away")
        await draining


LOOK = content_pb2.Tool(name="look", description="looks", parameters='{"type": "object"}')
CALLED = Done("tool_calls", Usage(), {})


async def said(call: Any, text: str) -> None:
    await call.write(Request(text=text))
    await call.write(Request(end_turn=converse_pb2.EndTurn()))


def result(call_id: str, output: str) -> Request:
    return Request(tool_result=converse_pb2.ToolResult(call_id=call_id, output=output))


async def test_a_tool_is_called_and_the_model_goes_on_with_its_result() -> None:
    """Would catch a call that never reaches the client, and a result that reaches the model as words, late or not at all."""
    pipeline = ScriptedPipeline(ToolCalled(0, "look", '{"at": 1}'), ToolCalled(1, "look", '{"at": 2}'), CALLED)
    config = {
        "tools": [LOOK],
        "tool_choice": content_pb2.ToolChoice(use=content_pb2.TOOL_USE_REQUIRED),
        "thinking": content_pb2.Thinking(enabled=True),
    }
    async with door(pipeline) as (client, _), calling(client, **config) as call:
        await said(call, "what is there?")
        first, second = await until(call, "tool_called"), await until(call, "tool_called")
        assert (first.index, second.index, first.call.name, first.call.arguments) == (0, 1, "look", '{"at": 1}')
        assert (await until(call, "response_done")).status == converse_pb2.RESPONSE_STATUS_COMPLETED
        await until(call, "turn_complete")
        pipeline.script = ANSWER
        await call.write(result(second.call_id, "a dog"))
        await call.write(result(second.call_id, "a dog"))
        assert "no result yet" in (await until(call, "problem")).message
        assert len(pipeline.requests) == 1  # one of the two is still to come
        await call.write(result(first.call_id, "a cat"))
        started = await until(call, "response_started")
        assert (await until(call, "response_done")).response_id == started.response_id
    asked, again = pipeline.requests
    function = {"name": "look", "description": "looks", "parameters": {"type": "object"}}
    assert asked.tools == ({"type": "function", "function": function},) and asked.thinking.wanted
    assert (asked.calling, again.calling) == (Calling(required=True), Calling())  # or it would call for ever
    question, calls, *results = again.messages
    assert (question.role, calls.tool_calls) == ("user", (ToolCall("look", {"at": 1}), ToolCall("look", {"at": 2})))
    assert [(message.role, message.tool, message.parts) for message in results] == [
        ("tool", "look", (TextPart("a dog"),)),
        ("tool", "look", (TextPart("a cat"),)),
    ]


async def test_a_result_that_comes_while_the_model_speaks_is_answered_after_that() -> None:
    """Would catch two answers at once, or a result that is never answered because the person went on talking."""
    pipeline = ScriptedPipeline(ToolCalled(0, "look", "{}"), CALLED)
    async with door(pipeline) as (client, _), calling(client, tools=[LOOK]) as call:
        await said(call, "what is there?")
        made = await until(call, "tool_called")
        await until(call, "turn_complete")
        pipeline.script = (*ANSWER[:5], Forever())
        await said(call, "are you there?")
        await until(call, "audio_delta")
        pipeline.script = ANSWER
        await call.write(result(made.call_id, "a cat"))
        await call.write(Request(text=" "))  # is answered with a problem: everything before it has been taken
        await until(call, "problem")
        assert len(pipeline.requests) == 2
        await call.write(Request(cancel=converse_pb2.Cancel()))
        await until(call, "turn_complete")
        assert (await until(call, "response_started")).turn_id == ""
        await until(call, "response_done")
    assert pipeline.requests[-1].messages[-1].tool == "look" and pipeline.running == 0


async def test_a_result_that_nobody_asked_for_is_told() -> None:
    """Would catch a result that is passed over in silence, or that ends the call."""
    replies = await held(ScriptedPipeline(*ANSWER), [result("call-1", "x"), *TURN], tools=[LOOK])
    (problem,) = only(replies, "problem")
    assert problem.field == "tool_result.call_id" and "`call-1`" in problem.message
    assert kinds(replies)[-1] == "turn_complete"


async def test_tools_may_be_kept_back() -> None:
    """Would catch a choice that is read and not followed."""
    pipeline = ScriptedPipeline(*ANSWER)
    await held(pipeline, TURN, tools=[LOOK], tool_choice=content_pb2.ToolChoice(use=content_pb2.TOOL_USE_NONE))
    assert pipeline.requests[0].tools == ()


async def test_thoughts_what_was_heard_and_pictures_on_the_way() -> None:
    """Would catch an event of the wire's definition that no live conversation can have."""
    picture = PIL.Image.new("RGB", (8, 8))
    drawn = (
        *(SpanOpened(0, Modality.IMAGE), ImageProgress(0, 1, 4), ImagePreview(0, picture)),
        *(ImageReady(0, picture), SpanClosed(0), ANSWER[-1]),
    )
    pipeline = ScriptedPipeline(Heard("a cat?"), ReasoningDelta("hm"), *drawn)
    drawing = content_pb2.Drawing(ratio="4:3", previews=1)
    replies = await held(pipeline, TURN, drawing=drawing, sampling=content_pb2.Sampling(seed=3))
    assert (only(replies, "heard")[0].text, only(replies, "reasoning_delta")[0].text) == ("a cat?", "hm")
    assert only(replies, "image_preview")[0].progress == 0.25 and only(replies, "image_ready")
    decode = pipeline.requests[0].decode
    assert (decode.ratio, decode.previews, decode.seed, decode.voice) == ("4:3", 1, 3, "mint")
