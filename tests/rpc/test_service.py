"""`OmniService` over a scripted pipeline: what goes in, what comes out, and how each call ends."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import numpy as np
import PIL.Image
import pytest

from omni.v1 import content_pb2, events_pb2, omni_service_pb2
from omni_server import errors
from omni_server.errors import DecodeFailed, OmniError, Overloaded
from omni_server.rpc.calls import code_of, reason_of
from omni_server.types import (
    AudioDelta,
    Calling,
    Done,
    Failed,
    Heard,
    ImageReady,
    Message,
    Modality,
    ReasoningDelta,
    SpanClosed,
    SpanOpened,
    TextDelta,
    TextPart,
    Thinking,
    ToolCall,
    ToolCalled,
    Usage,
    VideoPart,
)
from tests.doubles import Forever, ScriptedPipeline
from tests.rpc.doors import error_info, rpc_client
from tests.test_cloned_voices import add

TONE = (np.sin(np.arange(2400) / 12) * 0.5).astype(np.float32)
DONE = Done("stop", Usage(prompt_tokens=7, completion_tokens=9, completion_audio_tokens=3), {"prompt": 0.01, "total": 1.5})
SPOKEN = (
    SpanOpened(0, Modality.TEXT),
    TextDelta(0, "hello"),
    SpanClosed(0),
    SpanOpened(1, Modality.AUDIO),
    AudioDelta(1, TONE[:1000], 24000),
    AudioDelta(1, TONE[1000:], 24000),
    SpanClosed(1),
    DONE,
)


def asked(text: str = "hi", **more: Any) -> omni_service_pb2.GenerateRequest:
    message = content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text=text)])
    return omni_service_pb2.GenerateRequest(messages=[message], **more)


def pcm_of(deltas: list[events_pb2.AudioDelta]) -> bytes:
    return b"".join(delta.audio for delta in deltas)


async def test_generate_sends_every_kind_of_event() -> None:
    """Would catch an event that is lost, out of order, or without its numbers."""
    picture = PIL.Image.new("RGB", (8, 4), "red")
    script = (*SPOKEN[:-1], SpanOpened(2, Modality.IMAGE), ImageReady(2, picture), SpanClosed(2, DecodeFailed("no")), DONE)
    async with rpc_client(ScriptedPipeline(*script)) as client:
        replies = [reply async for reply in client.stub.Generate(asked())]
    kinds = [reply.WhichOneof("event") for reply in replies]
    assert kinds == [
        *("span_opened", "text_delta", "span_closed", "span_opened", "audio_delta", "audio_delta", "span_closed"),
        *("span_opened", "image_ready", "span_closed", "done"),
    ]
    assert [reply.sequence for reply in replies] == list(range(1, 12))
    sound = [reply.audio_delta for reply in replies if reply.HasField("audio_delta")]
    assert pcm_of(sound) == np.round(TONE * 32767).astype("<i2").tobytes()
    assert [round(delta.end.ToTimedelta().total_seconds(), 4) for delta in sound] == [0.0417, 0.1]
    assert (replies[8].image_ready.width, replies[8].image_ready.height) == (8, 4)
    assert replies[9].span_closed.problem.reason == "DECODE_FAILED"
    done = replies[10].done
    assert done.finish_reason == events_pb2.FINISH_REASON_STOP and done.usage.completion_audio_tokens == 3
    assert done.timing.total.ToTimedelta().total_seconds() == 1.5 and not done.timing.HasField("first_audio")


async def test_a_request_is_read_whole() -> None:
    """Would catch a field that is accepted and forgotten."""
    pipeline = ScriptedPipeline(DONE)
    sampling = content_pb2.Sampling(temperature=0.7, top_p=0.9, top_k=5, seed=3, max_tokens=11, stop=["x"])
    modalities = [content_pb2.MODALITY_AUDIO]
    async with rpc_client(pipeline) as client:
        request = asked(sampling=sampling, voice="sage", modalities=modalities)
        request.messages.add(role=content_pb2.ROLE_ASSISTANT).parts.add(image=content_pb2.Media(data=b"png"))
        async for _ in client.stub.Generate(request):
            pass
    (seen,) = pipeline.requests
    assert (seen.sampling.temperature, seen.sampling.top_p, seen.sampling.top_k) == (0.7, 0.9, 5)
    assert (seen.sampling.seed, seen.sampling.max_tokens, seen.sampling.stop, seen.decode.seed) == (3, 11, ("x",), 3)
    assert seen.decode.voice == "sage" and seen.modalities == {Modality.TEXT, Modality.AUDIO}
    assert [message.role for message in seen.messages] == ["user", "assistant"]
    assert seen.messages[1].parts[0].source.data == b"png"  # type: ignore[union-attr]


async def test_tools_thoughts_and_drawing_are_read() -> None:
    """Would catch a tool, a thought or a wish for a picture that gRPC callers set in vain."""
    pipeline = ScriptedPipeline(DONE)
    async with rpc_client(pipeline) as client:
        request = asked(
            tools=[content_pb2.Tool(name="look", description="looks", parameters='{"type": "object"}')],
            tool_choice=content_pb2.ToolChoice(use=content_pb2.TOOL_USE_AUTO),
            thinking=content_pb2.Thinking(enabled=True, budget_tokens=9),
            drawing=content_pb2.Drawing(ratio="4:3", steps=2, previews=1),
        )
        call = content_pb2.ToolCall(name="look", arguments='{"at": 1}')
        request.messages.add(role=content_pb2.ROLE_ASSISTANT, reasoning="so", tool_calls=[call])
        request.messages.add(role=content_pb2.ROLE_TOOL, tool="look").parts.add(text="a cat")
        request.messages.add(role=content_pb2.ROLE_USER).parts.add(video=content_pb2.Media(data=b"mp4"))
        async for _ in client.stub.Generate(request):
            pass
    (seen,) = pipeline.requests
    function = {"name": "look", "description": "looks", "parameters": {"type": "object"}}
    assert seen.tools == ({"type": "function", "function": function},)
    assert seen.thinking == Thinking(True, 9)
    assert (seen.decode.ratio, seen.decode.steps, seen.decode.previews) == ("4:3", 2, 1)
    assert seen.messages[1] == Message("assistant", (), "so", (ToolCall("look", {"at": 1}),))
    assert seen.messages[2] == Message("tool", (TextPart("a cat"),), tool="look")
    assert isinstance(seen.messages[3].parts[0], VideoPart)


async def test_tools_may_be_kept_back() -> None:
    """Would catch a choice that is read and not followed."""
    pipeline = ScriptedPipeline(DONE)
    request = asked(tools=[content_pb2.Tool(name="look")], tool_choice=content_pb2.ToolChoice(use=content_pb2.TOOL_USE_NONE))
    async with rpc_client(pipeline) as client:
        async for _ in client.stub.Generate(request):
            pass
    assert pipeline.requests[0].tools == ()


async def test_a_call_may_be_asked_for() -> None:
    """Would catch a call that must be made and is left to the model, or a tool that there is not."""
    tools = [content_pb2.Tool(name="look"), content_pb2.Tool(name="go")]
    choices = [
        (content_pb2.ToolChoice(), Calling()),
        (content_pb2.ToolChoice(use=content_pb2.TOOL_USE_REQUIRED), Calling(required=True)),
        (content_pb2.ToolChoice(use=content_pb2.TOOL_USE_AUTO, one_call=True), Calling(several=False)),
        (content_pb2.ToolChoice(use=content_pb2.TOOL_USE_REQUIRED, name="go"), Calling(True, "go", several=False)),
    ]
    pipeline = ScriptedPipeline(DONE)
    async with rpc_client(pipeline) as client:
        for choice, _ in choices:
            async for _ in client.stub.Generate(asked(tools=tools, tool_choice=choice)):
                pass
    assert [request.calling for request in pipeline.requests] == [calling for _, calling in choices]


async def test_what_is_apart_from_spans_is_sent() -> None:
    """Would catch a call of a tool, or thoughts, that only REST callers learn of."""
    script = (Heard("a cat?"), ReasoningDelta("hm"), ToolCalled(0, "look", '{"at": 1}'), Done("tool_calls", Usage()))
    async with rpc_client(ScriptedPipeline(*script)) as client:
        replies = [reply async for reply in client.stub.Generate(asked())]
    assert [reply.WhichOneof("event") for reply in replies] == ["heard", "reasoning_delta", "tool_called", "done"]
    assert (replies[0].heard.text, replies[1].reasoning_delta.text) == ("a cat?", "hm")
    assert replies[2].tool_called.call == content_pb2.ToolCall(name="look", arguments='{"at": 1}')
    assert replies[3].done.finish_reason == events_pb2.FINISH_REASON_TOOL_CALLS


async def test_sound_of_spans_that_overlap_is_one_line() -> None:
    """Would catch the second span's sound in the middle of the first's."""
    script = (
        SpanOpened(0, Modality.AUDIO),
        SpanOpened(1, Modality.AUDIO),
        AudioDelta(1, TONE[1000:], 24000),
        SpanClosed(1),
        AudioDelta(0, TONE[:1000], 24000),
        SpanClosed(0),
        DONE,
    )
    async with rpc_client(ScriptedPipeline(*script)) as client:
        replies = [reply async for reply in client.stub.Generate(asked())]
    sound = [reply.audio_delta for reply in replies if reply.HasField("audio_delta")]
    assert [delta.index for delta in sound] == [0, 1]
    assert pcm_of(sound) == np.round(TONE * 32767).astype("<i2").tobytes()


@pytest.mark.parametrize("encoding", content_pb2.AudioEncoding.values()[1:])
async def test_synthesize_streams_in_every_format(encoding: int) -> None:
    """Would catch a format that is in the wire's definition and fails when asked for."""
    pipeline = ScriptedPipeline(*SPOKEN)
    pipeline.checkpoint.prompts["speech"] = {"en": "say {input}"}  # type: ignore[index]
    format = content_pb2.AudioFormat(encoding=encoding, sample_rate_hertz=48000)  # type: ignore[arg-type]
    async with rpc_client(pipeline) as client:
        request = omni_service_pb2.SynthesizeRequest(text="hello", voice="mint", audio=format)
        replies = [reply async for reply in client.stub.Synthesize(request)]
    assert replies[-1].HasField("done")
    assert pcm_of([reply.audio_delta for reply in replies])
    assert "".join(reply.text_delta.text for reply in replies) == "hello"
    assert pipeline.requests[0].messages[0].parts[0].text == "say hello"  # type: ignore[union-attr]


async def test_models_and_voices_are_listed() -> None:
    """Would catch a client that cannot find out what to ask for, or finds the voices of others."""
    pipeline = ScriptedPipeline()
    mine, _hers = add(pipeline.cloned, ""), add(pipeline.cloned, "ann")
    async with rpc_client(pipeline) as client:
        (model,) = (await client.stub.ListModels(omni_service_pb2.ListModelsRequest())).models
        voices = (await client.stub.ListVoices(omni_service_pb2.ListVoicesRequest())).voices
    assert model.name == "omni-scripted" and len(model.modalities_in) == 3 and model.sample_rate_hertz == 24000
    assert [each.name for each in voices] == [mine.id, "mint", "sage"]


def all_errors(kind: type[OmniError]) -> list[type[OmniError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in all_errors(child))]


@pytest.mark.parametrize("kind", all_errors(OmniError))
def test_the_drawn_table_is_what_the_classes_say(kind: type[OmniError]) -> None:
    """Would catch a code at one door that is not the one at the other, or a table that lies."""
    assert errors.__doc__ is not None
    (row,) = [line for line in errors.__doc__.splitlines() if line.strip("│├└─ ").startswith(kind.__name__ + " ")]
    if "start-up only" not in row:
        assert row.strip("│├└─ ").split()[1:3] == [str(kind.http_status), kind.grpc_code]
    assert code_of(kind("x")).name == kind.grpc_code
    assert reason_of(kind("x")).lower() == kind.code


@pytest.mark.parametrize(
    "kind", [kind for kind in all_errors(OmniError) if kind.__name__ not in ("ConfigError", "CheckpointError")]
)
@pytest.mark.parametrize("midway", [False, True])
async def test_every_error_arrives_with_its_code_and_reason(kind: type[OmniError], midway: bool) -> None:
    """Would catch an error that reaches the client as UNKNOWN, before the first event or after it."""
    error = kind("what was wrong", param="messages[0]")
    pipeline = ScriptedPipeline(*SPOKEN[:2], Failed(error)) if midway else ScriptedPipeline(refusal=error)
    async with rpc_client(pipeline) as client:
        call = client.stub.Generate(asked())
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in call:
                pass
        code, message, info, retry = await error_info(call)
    assert (code.name, message, retry) == (kind.grpc_code, "what was wrong", kind.retry)
    assert (info.reason, info.domain, dict(info.metadata)) == ((kind.code or "").upper(), "omni.v1", {"field": "messages[0]"})


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (omni_service_pb2.GenerateRequest(), "messages"),
        (asked(model="nobody"), "model"),
        (asked(modalities=[77]), "modalities"),
        (asked(sampling=content_pb2.Sampling(temperature=9)), "sampling.temperature"),
        (asked(sampling=content_pb2.Sampling(top_p=0)), "sampling.top_p"),
        (asked(sampling=content_pb2.Sampling(stop=[""])), "sampling.stop"),
        (asked(audio=content_pb2.AudioFormat(encoding=99)), "audio.encoding"),  # type: ignore[arg-type]
        (asked(audio=content_pb2.AudioFormat(sample_rate_hertz=7)), "audio.sample_rate_hertz"),
        (asked(audio=content_pb2.AudioFormat(encoding=2, sample_rate_hertz=44100)), "audio.sample_rate_hertz"),  # type: ignore[arg-type]
        (omni_service_pb2.GenerateRequest(messages=[content_pb2.Message(role=2)]), "messages[0].parts"),  # type: ignore[arg-type]
        (omni_service_pb2.GenerateRequest(messages=[content_pb2.Message()]), "messages[0].role"),
        (asked(tools=[content_pb2.Tool()]), "tools[0].name"),
        (asked(tool_choice=content_pb2.ToolChoice(use=content_pb2.TOOL_USE_REQUIRED, name="go")), "tool_choice.name"),
        (asked(tools=[content_pb2.Tool(name="go")], tool_choice=content_pb2.ToolChoice(name="go")), "tool_choice.name"),
        (asked(tools=[content_pb2.Tool(name="look", parameters="[]")]), "tools[0].parameters"),
        (asked(thinking=content_pb2.Thinking(budget_tokens=-1)), "thinking.budget_tokens"),
        (asked(drawing=content_pb2.Drawing(ratio="wide")), "drawing.ratio"),
        (asked(drawing=content_pb2.Drawing(steps=0)), "drawing.steps"),
        (asked(drawing=content_pb2.Drawing(previews=4)), "drawing.previews"),
        (
            omni_service_pb2.GenerateRequest(
                messages=[content_pb2.Message(role=content_pb2.ROLE_USER, parts=[content_pb2.Part(text="a")], reasoning="hm")]
            ),
            "messages[0].reasoning",
        ),
        (
            omni_service_pb2.GenerateRequest(messages=[content_pb2.Message(role=2, parts=[content_pb2.Part()])]),  # type: ignore[arg-type]
            "messages[0].parts[0]",
        ),
    ],
)
async def test_wrong_fields_are_named(request_: omni_service_pb2.GenerateRequest, field: str) -> None:
    """Would catch a wrong value that passes in silence, or an error that does not say where."""
    async with rpc_client(ScriptedPipeline(DONE)) as client:
        call = client.stub.Generate(request_)
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()
        code, _, info, _ = await error_info(call)
    assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert info.metadata["field"] == field


async def test_a_fault_of_ours_is_internal_and_tells_nothing() -> None:
    """Would catch a traceback or a value of ours in a client's hands."""
    async with rpc_client(ScriptedPipeline(RuntimeError("secret"))) as client:
        call = client.stub.Generate(asked())
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()
        code, message, info, _ = await error_info(call)
    assert code is grpc.StatusCode.INTERNAL and info.reason == "INTERNAL_ERROR" and "secret" not in message


async def test_the_request_id_is_echoed() -> None:
    """Would catch an id that a client cannot find again in the server's log."""
    async with rpc_client(ScriptedPipeline(refusal=Overloaded("full"))) as client:
        call = client.stub.Generate(asked(), metadata=(("x-request-id", "abc-1"),))
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()
        assert dict(await call.initial_metadata())["x-request-id"] == "abc-1"
        assert dict(await call.trailing_metadata())["x-request-id"] == "abc-1"


@pytest.mark.parametrize("how", ["cancel", "deadline"])
async def test_leaving_ends_the_work(how: str) -> None:
    """Would catch a pipeline that goes on for a client who has left, or a deadline that nobody honours."""
    pipeline = ScriptedPipeline(*SPOKEN[:2], Forever())
    async with rpc_client(pipeline) as client:
        call = client.stub.Generate(asked(), timeout=0.5 if how == "deadline" else None)
        await call.read()
        assert pipeline.running == 1
        if how == "cancel":
            call.cancel()
        for _ in range(200):
            if not pipeline.running:
                break
            await asyncio.sleep(0.02)
        assert (pipeline.running, pipeline.left) == (0, 1)
        expected = grpc.StatusCode.CANCELLED if how == "cancel" else grpc.StatusCode.DEADLINE_EXCEEDED
        assert await call.code() is expected
