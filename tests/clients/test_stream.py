"""A reply while it is being made, sync and async: against the server's own chunks, and against connections that break."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from omni_client import (
    APIError,
    APITimeoutError,
    AsyncOmniClient,
    AudioDelta,
    BadRequestError,
    Done,
    Heard,
    ImageReady,
    NotFoundError,
    OmniClient,
    OmniError,
    ReasoningDelta,
    ReplyFailedError,
    ResponseFormatError,
    SpanClosed,
    SpanError,
    SpanOpened,
    StreamBrokenError,
    TextDelta,
    ToolCalled,
)
from omni_client.chat_events import ChatEvents
from omni_client.reply import ReplyBuilder
from omni_server import types
from omni_server.audio_format import to_pcm16
from omni_server.errors import DecodeFailed, EngineUnavailable, Overloaded, RequestError
from tests.clients.both import Both, until
from tests.doubles import Forever, ScriptedPipeline
from tests.incremental import assert_split_invariant
from tests.rest.scripts import done, picture, served, tone, voice, words

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
MODEL = "omni-scripted"
WISHES: dict[str, Any] = {"model": MODEL, "voice": "mint", "modalities": ["text", "image", "audio"]}
FAILED = DecodeFailed("the image could not be made: no paint")
# A slow picture: it opens first, and is finished after the words and the voice that follow it.
SLOW_PICTURE = picture(1)
REPLY = [
    *words(0, "A fox ", "for you. 여우"), SLOW_PICTURE[0], *voice(2, tone(0.3)), *words(3, " Bye."), *SLOW_PICTURE[1:],
    types.SpanOpened(4, types.Modality.IMAGE), types.SpanClosed(4, FAILED), *voice(5, tone(0.1)), done(),
]  # fmt: skip


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(ScriptedPipeline(*REPLY)) as url:
        yield url


@KINDS
async def test_events(kind: str, url: str) -> None:
    """Catches an event that is lost, that comes in another order, or that belongs to another span."""
    events, reply, problem = await Both(kind, url).stream("hi", **WISHES)
    assert problem is None
    sound = [event for event in events if isinstance(event, AudioDelta)]
    assert b"".join(event.pcm for event in sound) == to_pcm16(tone(0.3)) + to_pcm16(tone(0.1))
    assert [event.start for event in sound] == [sum(len(e.pcm) for e in sound[:n]) / 48_000 for n in range(len(sound))]
    others = [event for event in events if not isinstance(event, AudioDelta)]
    (ready,) = [event for event in others if isinstance(event, ImageReady)]
    (ended,) = [event for event in others if isinstance(event, Done)]
    assert others == [
        SpanOpened(0, "text"), TextDelta(0, "A fox "), TextDelta(0, "for you. 여우"), SpanClosed(0), SpanOpened(1, "image"),
        SpanOpened(2, "audio"), SpanClosed(2, seconds=0.3), SpanOpened(3, "text"), TextDelta(3, " Bye."), SpanClosed(3),
        ready, SpanClosed(1), SpanOpened(4, "image"), SpanClosed(4, SpanError(FAILED.message, "server_error", "decode_failed")),
        SpanOpened(5, "audio"), SpanClosed(5, seconds=0.1), ended,
    ]  # fmt: skip
    assert ready.index == 1
    assert ready.picture.image.getpixel((0, 0)) == (255, 0, 0)
    assert ended.usage is not None
    assert (ended.usage.total_tokens, ended.usage.completion_audio_tokens, ended.finish_reason) == (100, 40, "stop")
    assert ended.seconds == {"total": 0.5}
    assert reply.errors == (SpanError(FAILED.message, "server_error", "decode_failed"),)


@KINDS
async def test_the_whole_of_a_stream_is_the_whole_of_an_answer(kind: str, url: str) -> None:
    """Catches a reply that depends on whether it was streamed."""
    client = Both(kind, url)
    whole = await client.call("generate", "hi", **WISHES)
    _, streamed, problem = await client.stream("hi", **WISHES)
    assert problem is None
    assert whole.audio is not None and streamed.audio is not None
    assert whole.audio == streamed.audio
    assert whole.text == streamed.text == "A fox for you. 여우 Bye."
    assert whole.pictures == streamed.pictures
    assert whole.segments == streamed.segments
    assert (whole.usage, whole.finish_reason, whole.seconds) == (streamed.usage, streamed.finish_reason, streamed.seconds)
    assert [segment.modality for segment in whole.segments] == ["text", "image", "audio", "text", "image", "audio"]
    assert whole.segments[3].text == " Bye."
    assert whole.segments[1].picture == whole.picture
    assert (whole.id.startswith("chatcmpl-"), whole.model) == (True, MODEL)


async def test_the_views_share_one_pass(url: str) -> None:
    """Catches words or sound that are swallowed by the other view, and a `final` that forgets what was read before."""

    def sync() -> None:
        with OmniClient(url) as client, client.stream("hi", **WISHES) as stream:
            assert next(stream.text) == "A fox "
            assert stream.snapshot.text == "A fox "
            assert stream.snapshot.finish_reason == ""
            pcm = b"".join(stream.audio)
            reply = stream.final()
            assert reply.audio is not None
            assert pcm == reply.audio.pcm
            assert reply.text == "A fox for you. 여우 Bye."
        assert stream.final() == reply

    await asyncio.to_thread(sync)
    async with AsyncOmniClient(url) as client, client.stream("hi", **WISHES) as stream:
        assert await anext(stream.text) == "A fox "
        pcm = b"".join([piece async for piece in stream.audio])
        reply = await stream.final()
        assert reply.audio is not None
        assert pcm == reply.audio.pcm
        assert reply.text == "A fox for you. 여우 Bye."


def test_cut_anywhere(url: str) -> None:
    """Catches events that depend on how a network cuts the bytes."""
    body = {
        "model": MODEL, "messages": [{"role": "user", "content": "hi"}], "modalities": ["text", "image", "audio"],
        "audio": {"format": "pcm16"}, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    sent = httpx.post(f"{url}/v1/chat/completions", json=body).content
    events = ChatEvents().feed(sent)
    assert isinstance(events[-1], Done)
    assert_split_invariant(ChatEvents, sent, list, cuts=60)


def chunk(delta: dict[str, Any], **more: Any) -> bytes:
    body = {"id": "chatcmpl-1", "model": "m", "choices": [{"index": 0, "delta": delta}], **more}
    return f"data: {json.dumps(body)}\n\n".encode()


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Pieces of a body, and then a fault."""

    def __init__(self, pieces: list[bytes], fault: Exception | None) -> None:
        self.pieces, self.fault = pieces, fault
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        if self.fault is not None:
            raise self.fault

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


def broken(kind: str, *pieces: bytes, fault: Exception | None = None) -> tuple[Both, list[httpx.Request], Body]:
    asked: list[httpx.Request] = []
    body = Body([*pieces], fault)

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, stream=body)

    return Both(kind, "http://box", answer, model="m"), asked, body


ERROR = b'data: {"error": {"message": "the engine is gone", "type": "server_error", "code": "engine_unavailable"}}\n\n'


@KINDS
@pytest.mark.parametrize(
    ("pieces", "fault", "error", "words"),
    [
        ([], None, StreamBrokenError, "ended inside"),
        ([b'data: {"choi'], None, StreamBrokenError, "ended inside"),
        ([], httpx.RemoteProtocolError("peer closed"), StreamBrokenError, "peer closed"),
        ([], httpx.ReadError(""), StreamBrokenError, "ReadError"),
        ([], httpx.ReadTimeout(""), APITimeoutError, "silent"),
        ([ERROR], None, ReplyFailedError, "the engine is gone"),
        ([b"data: <html>\n\n"], None, ResponseFormatError, "chunk"),
        ([b'data: {"object": "ping"}\n\n'], None, ResponseFormatError, "chunk"),
        ([chunk({"images": [{"image_url": {"url": "data:image/png;base64,aGVsbG8="}}]})], None, ResponseFormatError, "hello"),
    ],
)
async def test_a_reply_that_breaks_raises(
    kind: str, pieces: list[bytes], fault: Exception | None, error: type[APIError], words: str
) -> None:
    """Catches half a reply that passes for a whole one, and a second request behind the user's back."""
    client, asked, body = broken(kind, chunk({"content": "Half"}), *pieces, fault=fault)
    events, arrived, problem = await client.stream("hi")
    assert type(problem) is error and words in str(problem)
    assert isinstance(problem, APIError) and problem.request_id == asked[0].headers["x-request-id"]
    assert events == [TextDelta(0, "Half")]
    assert (arrived.text, arrived.finish_reason) == ("Half", "")
    assert len(asked) == 1
    assert body.closed == 1


@KINDS
async def test_a_fault_after_the_end_is_none(kind: str) -> None:
    """Catches a complete reply that is thrown away because the connection was not closed politely."""
    end = chunk({}, choices=[{"index": 0, "delta": {}, "finish_reason": "length"}])
    client, _, _ = broken(kind, chunk({"content": "All"}), end, b"data: [DONE]\n\n", fault=httpx.ReadError("reset"))
    events, reply, problem = await client.stream("hi")
    assert problem is None
    assert events == [TextDelta(0, "All"), Done("length")]
    assert (reply.text, reply.finish_reason) == ("All", "length")


CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Seoul"}'}}


@KINDS
async def test_thoughts_tools_and_what_was_heard(kind: str) -> None:
    """Catches a thought that is read aloud as an answer, a tool that is never called, and a history without its call."""
    pieces = (
        chunk({"omni": {"user_transcript": "날씨"}}),
        chunk({"reasoning_content": "Hm, "}), chunk({"reasoning_content": "Seoul."}),
        chunk({"tool_calls": [{"index": 0, **CALL}]}),
        chunk({}, choices=[{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]), b"data: [DONE]\n\n",
    )  # fmt: skip
    called = ToolCalled(0, "call_1", "weather", '{"city": "Seoul"}')
    events, reply, problem = await broken(kind, *pieces)[0].stream("hi", tools=[{"type": "function"}], reasoning_effort="low")
    assert problem is None
    assert events == [Heard("날씨"), ReasoningDelta("Hm, "), ReasoningDelta("Seoul."), called, Done("tool_calls")]
    assert (reply.text, reply.reasoning, reply.tool_calls, reply.heard) == ("", "Hm, Seoul.", (called,), "날씨")
    assert reply.as_message() == {"role": "assistant", "content": None, "tool_calls": [CALL]}
    asked: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        message = {
            "content": None,
            "reasoning_content": "Hm, Seoul.",
            "tool_calls": [CALL],
            "omni": {"user_transcript": "날씨"},
        }
        return httpx.Response(200, json={"choices": [{"message": message, "finish_reason": "tool_calls"}]})

    result = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
    whole = await Both(kind, "http://box", answer, model="m").call(
        "generate", ["weather?", reply, result], reasoning_effort="low"
    )
    assert (whole.text, whole.reasoning, whole.tool_calls, whole.heard) == ("", "Hm, Seoul.", (called,), "날씨")
    assert asked[0]["reasoning_effort"] == "low"
    assert asked[0]["messages"] == [{"role": "user", "content": "weather?"}, reply.as_message(), result]


def test_a_bad_end_is_not_forgotten() -> None:
    """Catches a second look at a broken stream that finds a short, good one."""
    client, _, _ = broken("sync", chunk({"content": "Half"}))
    with client.client.stream("hi") as stream:
        for _ in range(2):
            with pytest.raises(StreamBrokenError):
                stream.final()
    with pytest.raises(OmniError, match="not open"):
        next(client.client.stream("hi"))


@KINDS
async def test_what_is_wrong_with_the_request_is_raised_on_entering(kind: str, url: str) -> None:
    """Catches a wrong request that looks like an empty reply."""
    with pytest.raises(NotFoundError):
        await Both(kind, url).stream("hi", model="nobody")


async def test_failing_midway_on_a_real_socket() -> None:
    """Catches a failure that only a mock transport reports well."""
    with served(ScriptedPipeline(*words(0, "Hi"), types.Failed(EngineUnavailable("the engine is gone")))) as url:
        for kind in ("sync", "async"):
            events, arrived, problem = await Both(kind, url).stream("hi", model=MODEL)
            assert isinstance(problem, ReplyFailedError)
            assert problem.code == "engine_unavailable"
            assert TextDelta(0, "Hi") in events
            assert arrived.text == "Hi"


@KINDS
@pytest.mark.parametrize("told_length", [False, True])
async def test_a_connection_that_is_cut(kind: str, told_length: bool) -> None:
    """Catches a cut that looks like an end on a real socket, whichever way the length of the body was told."""
    half = chunk({"content": "Half"})
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.append(1)
        if told_length:
            writer.write(head + b"content-length: 9999\r\n\r\n" + half)
        else:
            writer.write(head + b"transfer-encoding: chunked\r\n\r\n" + b"%x\r\n" % len(half) + half + b"\r\n9")
        await writer.drain()
        writer.close()

    asked: list[int] = []
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        events, arrived, problem = await Both(kind, f"http://127.0.0.1:{port}").stream("hi", model="m")
    assert isinstance(problem, StreamBrokenError)
    assert events == [TextDelta(0, "Half")]
    assert (arrived.text, len(asked)) == ("Half", 1)


@KINDS
async def test_a_full_server_is_asked_again(kind: str) -> None:
    """Catches a server and an SDK that do not mean the same by `x-should-retry` and `retry-after`."""
    pipeline = ScriptedPipeline(*words(0, "Hi"), done(), refusal=Overloaded("the queue is full"))
    with served(pipeline) as url:
        asking = asyncio.create_task(Both(kind, url).stream("hi", model=MODEL))
        await until(lambda: len(pipeline.requests) == 1)
        pipeline.refusal = None
        _, reply, problem = await asking
        assert (reply.text, problem, len(pipeline.requests)) == ("Hi", None, 2)
        pipeline.refusal = RequestError("no")
        with pytest.raises(BadRequestError):
            await Both(kind, url).stream("hi", model=MODEL)
        assert len(pipeline.requests) == 3


@KINDS
async def test_leaving_cancels(kind: str) -> None:
    """Catches work that goes on in the server for a client who has left the block, by its end or by an error."""
    pipeline = ScriptedPipeline(*words(0, "Hi"), Forever())
    with served(pipeline) as url:

        def leave() -> None:
            with OmniClient(url) as client, client.stream("hi", model=MODEL) as stream:
                assert next(stream.text) == "Hi"
                assert pipeline.running == 1

        if kind == "sync":
            await asyncio.to_thread(leave)
        else:
            async with AsyncOmniClient(url) as client:
                task = asyncio.create_task(read_on(client, arrived := asyncio.Event()))
                await arrived.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        await until(lambda: pipeline.left == 1)
    assert pipeline.running == 0


async def read_on(client: AsyncOmniClient, arrived: asyncio.Event) -> None:
    async with client.stream("hi", model=MODEL) as stream:
        async for _ in stream.text:
            arrived.set()


def test_previews_do_not_count_as_pictures() -> None:
    """Catches an unfinished picture in the finished reply."""
    from omni_client import ImagePreview, Picture

    builder = ReplyBuilder()
    for event in (SpanOpened(0, "image"), ImagePreview(0, Picture(b"1"), 0.5), ImageReady(0, Picture(b"2")), SpanClosed(0)):
        builder.feed(event)
    assert [picture.data for picture in builder.reply().pictures] == [b"2"]
