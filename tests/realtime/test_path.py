"""The way of a spoken turn, of a written one, and of what is wrong, with the stock `openai` client."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
import websockets

from omni_server.config import MediaLimits, UrlPolicy
from omni_server.errors import DecodeFailed
from omni_server.fetch import UrlFetcher
from omni_server.logs import REFUSED
from omni_server.media import MediaLoader
from omni_server.types import AudioPart, Done, Failed, ImagePart, Modality, SpanClosed, SpanOpened, TextDelta, TextPart, Usage
from tests.doubles import Forever, ScriptedCheckpoint, ScriptedPipeline
from tests.realtime.doors import MODEL, SECOND, TURN, Call, calling, connected, loudness, served, spoken
from tests.rest.scripts import png_url

WRITTEN = (
    SpanOpened(0, Modality.TEXT),
    TextDelta(0, "one "),
    TextDelta(0, "two"),
    SpanClosed(0),
    Done("stop", Usage(3, 0, 0, 0, 2)),
)
BY_HAND = {"input": {"turn_detection": None}}


async def test_a_spoken_turn_is_heard_and_answered() -> None:
    """Would catch an event that is lost, misnamed or out of order between the microphone and the loudspeaker."""
    async with calling(*spoken()) as call:
        await call.hear(TURN)
        done = await call.until("response.done")
    assert call.types() == [
        *("session.created", "conversation.created"),
        *("input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped", "input_audio_buffer.committed"),
        *("conversation.item.added", "conversation.item.done", "response.created", "response.output_item.added"),
        *("conversation.item.added", "response.content_part.added", "response.output_audio_transcript.delta"),
        *("response.output_audio.delta", "response.output_audio.done", "response.output_audio_transcript.done"),
        *("response.content_part.done", "conversation.item.done", "response.output_item.done", "response.done"),
    ]
    assert len({event.event_id for event in call.events}) == len(call.events)
    (started,), (stopped,) = call.only("input_audio_buffer.speech_started"), call.only("input_audio_buffer.speech_stopped")
    assert started.audio_start_ms == pytest.approx(100, abs=40) and stopped.audio_end_ms == pytest.approx(1000, abs=40)
    heard, answered = call.only("conversation.item.added")
    assert heard.item.id == started.item_id and heard.previous_item_id is None and answered.previous_item_id == heard.item.id
    assert len(call.sound()) == 48_000
    response = done.response
    assert (response.status, response.output[0].content[0].transcript) == ("completed", "one two")
    assert (response.usage.total_tokens, response.usage.input_token_details.audio_tokens) == (17, 4)
    assert response.usage.output_token_details.text_tokens == 3
    (part,) = call.pipeline.requests[-1].messages[-1].parts
    assert isinstance(part, AudioPart) and call.pipeline.running == 0


async def test_a_written_turn_is_answered_in_writing() -> None:
    """Would catch words that reach the model as something else, or a response that waits for a voice."""
    async with calling(*WRITTEN, output_modalities=["text"], instructions="be brief") as call:
        item = await call.say("hello")
        await call.connection.response.create()
        done = await call.until("response.done")
    assert item.content[0].text == "hello"
    assert [event.delta for event in call.only("response.output_text.delta")] == ["one ", "two"]
    assert call.only("response.output_text.done")[0].text == "one two"
    assert done.response.output[0].content[0].type == "output_text" and done.response.audio is None
    (request,) = call.pipeline.requests
    assert [message.role for message in request.messages] == ["system", "user"]
    assert request.modalities == {Modality.TEXT} and request.messages[1].parts == (TextPart("hello"),)


async def test_pictures_and_recordings_in_an_item() -> None:
    """Would catch media that are not looked at before they are in the conversation, or sound of the wrong rate."""
    pipeline = ScriptedPipeline(*spoken(), loader=MediaLoader(MediaLimits(1 << 22, 1 << 20, 10), UrlFetcher(UrlPolicy())))
    recording = base64.b64encode(loudness((0.5, 1.5))).decode()
    content: Any = [{"type": "input_image", "image_url": png_url()}, {"type": "input_audio", "audio": recording}]
    async with calling(pipeline) as call:
        await call.connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        assert (await call.until("conversation.item.added")).item.content[1].audio is None
        wrong: Any = [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]
        await call.connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": wrong}, event_id="e1"
        )
        error = await refused(call)
        await call.connection.response.create()
        await call.until("response.done")
    assert (error.event_id, error.code, error.param) == ("e1", "invalid_media", "item.content[0].image_url")
    picture, sound = call.pipeline.requests[-1].messages[-1].parts
    assert isinstance(picture, ImagePart) and isinstance(sound, AudioPart)
    assert call.pipeline.media[-1].seconds == pytest.approx(1.5)


async def refused(call: Call) -> Any:
    """The next error."""
    async with asyncio.timeout(20):
        while (event := await call.connection.recv()).type != "error":
            call.events.append(event)
    return event.error


async def test_turns_by_hand() -> None:
    """Would catch a silence that is answered although the client says when a turn ends, or a commit that answers."""
    async with calling(*spoken(), audio=BY_HAND) as call:
        await call.hear(loudness((0.5, 1.0), (0.0, 2.0)))
        await call.connection.input_audio_buffer.clear()
        await call.until("input_audio_buffer.cleared")
        await call.connection.input_audio_buffer.commit(event_id="empty")
        assert (await refused(call)).code == "input_audio_buffer_commit_empty"
        await call.hear(loudness((0.5, 0.5)))
        await call.connection.input_audio_buffer.commit()
        committed = await call.until("input_audio_buffer.committed")
        assert (await call.until("conversation.item.done")).item.id == committed.item_id
        assert call.pipeline.requests == []
        await call.connection.response.create()
        await call.until("response.done")
    assert "input_audio_buffer.speech_started" not in call.types()
    (part,) = call.pipeline.requests[-1].messages[-1].parts
    assert isinstance(part, AudioPart) and part.source.data is not None and len(part.source.data) == 24_000 + 44


async def test_what_the_person_said_is_written_down() -> None:
    """Would catch a transcript that belongs to no item, or one that fails and takes the call with it."""
    pipeline = ScriptedPipeline(*WRITTEN)
    pipeline.checkpoint = ScriptedCheckpoint(prompts={"transcription": {"en": "write down"}})
    transcribed = {"input": {"transcription": {"model": "whisper-1", "language": "en"}}}
    async with calling(pipeline, audio=transcribed, output_modalities=["text"]) as call:
        await call.hear(TURN)
        completed = await call.until("conversation.item.input_audio_transcription.completed")
        if not call.only("response.done"):
            await call.until("response.done")
        pipeline.script = (Failed(DecodeFailed("no")),)
        await call.hear(TURN)
        failed = await call.until("conversation.item.input_audio_transcription.failed")
    assert completed.transcript == "one two" and completed.item_id == call.only("input_audio_buffer.committed")[0].item_id
    assert "".join(e.delta for e in call.only("conversation.item.input_audio_transcription.delta")) == "one two"
    assert failed.error.code == "decode_failed" and failed.item_id == call.only("input_audio_buffer.committed")[1].item_id


async def test_a_response_is_cancelled() -> None:
    """Would catch a response that goes on, or that never ends for the client."""
    async with calling(*spoken()[:5], Forever()) as call:
        await call.say("hello")
        await call.connection.response.create()
        await call.until("response.output_audio.delta")
        await call.connection.response.create(event_id="second")
        assert (await refused(call)).code == "conversation_already_has_active_response"
        await call.connection.response.cancel()
        done = await call.until("response.done")
        assert (done.response.status, done.response.status_details.reason) == ("cancelled", "client_cancelled")
        assert call.pipeline.running == 0
        await call.connection.response.cancel(event_id="again")
        error = await refused(call)
    assert (error.code, error.event_id) == ("response_cancel_not_active", "again")
    assert done.response.output[0].status == "incomplete" and error.message.startswith("Cancellation failed")


async def test_how_a_response_can_end() -> None:
    """Would catch a failure or a cut that looks like a good answer."""
    async with calling(*spoken(finish="length")) as call:
        await call.say("hello")
        await call.connection.response.create()
        done = await call.until("response.done")
        call.pipeline.script = (Failed(DecodeFailed("no voice")),)
        await call.connection.response.create()
        failed = await call.until("response.done")
    assert (done.response.status, done.response.status_details.reason) == ("incomplete", "max_output_tokens")
    assert (failed.response.status, failed.response.status_details.error.code) == ("failed", "decode_failed")


async def test_a_turn_that_cannot_be_answered_is_forgotten() -> None:
    """Would catch one bad recording that makes every later answer fail, or a client that still counts on it."""
    pipeline = ScriptedPipeline(Failed(DecodeFailed("no")))
    async with calling(pipeline) as call:
        await call.hear(TURN)
        deleted = await call.until("conversation.item.deleted")
        assert (await call.until("response.done")).response.status == "failed"
        pipeline.script = spoken()
        await call.say("hello")
        await call.connection.response.create()
        await call.until("response.done")
    assert deleted.item_id == call.only("input_audio_buffer.committed")[0].item_id
    assert pipeline.requests[-1].messages[0].parts == (TextPart("hello"),)


def update(field: str) -> str:
    return f'{{"type": "session.update", "event_id": "e", "session": {{{field}}}}}'


@pytest.mark.parametrize(
    ("message", "param", "part"),
    [
        ('{"type": "session.upgrade", "event_id": "e"}', "type", "session.update"),
        ('{"event_id": "e"}', "type", "null"),
        ('{"type": "session.update", "event_id": "e", "session": {"voice": "x"}}', "session.voice", "not a field"),
        ('{"type": "session.update", "event_id": "e", "session": {"model": "x"}}', "session.model", MODEL),
        (
            '{"type": "session.update", "event_id": "e", "session": {"output_modalities": ["text", "audio"]}}',
            "session.output_modalities",
            "one of them",
        ),
        ('{"type": "session.update", "event_id": "e", "session": {"max_output_tokens": 0}}', None, "greater"),
        (
            '{"type": "session.update", "event_id": "e", "session": {"audio": {"input": {"format": {"type": "mp3"}}}}}',
            "session.audio.input.format.type",
            "audio/pcm",
        ),
        (update('"prompt": {"id": "p"}'), "session.prompt", "left out"),
        (update('"include": ["item.input_audio_transcription.logprobs"]'), "session.include", "left out"),
        (update('"truncation": "disabled"'), "session.truncation", "auto"),
        (update('"tool_choice": "always"'), "session.tool_choice", "required"),
        (update('"tool_choice": {"type": "function", "name": "f"}'), "session.tool_choice", "expected one of the `tools`"),
        (update('"tool_choice": {"type": "mcp", "server_label": "x"}'), "session.tool_choice", "`function`"),
        (update('"tools": [{"type": "mcp", "server_label": "x"}]'), "session.tools[0].type", "function"),
        (update('"type": "transcription"'), "session.type", "realtime"),
        (
            update('"audio": {"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 5000}}}'),
            "session.audio.input.turn_detection.idle_timeout_ms",
            "left out",
        ),
        ('{"type": "input_audio_buffer.append", "event_id": "e", "audio": "=!"}', "audio", "base64"),
        ('{"type": "input_audio_buffer.append", "event_id": "e", "audio": "AAAA"}', "audio", "whole samples"),
        ('{"type": "conversation.item.delete", "event_id": "e", "item_id": "x"}', "item_id", "not in the conversation"),
        ('{"type": "response.create", "event_id": "e"}', None, "nothing to answer"),
        ('{"type": "output_audio_buffer.clear", "event_id": "e"}', "type", "WebRTC"),
        ("{", None, "JSON object"),
        ("[1]", None, "JSON object"),
    ],
)
async def test_what_is_wrong_is_told_and_the_call_goes_on(message: str, param: str | None, part: str) -> None:
    """Would catch a bad message that ends the call, or one that is silently dropped."""
    async with calling(*spoken()) as call:
        await call.connection.send_raw(message)
        error = await refused(call)
        assert error.type == "invalid_request_error" and part in error.message
        assert param is None or error.param == param
        assert error.event_id == ("e" if '"e"' in message else None)
        await call.update(instructions="be brief")


async def test_a_wrong_model_is_refused_before_the_call(capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a call that is taken and then cannot be answered, and a refusal that stands in the log as an error."""
    pipeline = ScriptedPipeline()
    async with served(pipeline) as url:
        with pytest.raises(websockets.InvalidStatus) as refusal:
            async with connected(url, pipeline, "gpt-realtime"):
                pass
        assert refusal.value.response.status_code == 404
        assert json.loads(refusal.value.response.body)["error"]["code"] == "model_not_found"
        socket = url.replace("http", "ws") + "/realtime"
        async with websockets.connect(socket, subprotocols=["realtime", "openai-insecure-api-key.x"]) as plain:  # type: ignore[list-item]
            assert plain.subprotocol == "realtime" and json.loads(await plain.recv())["session"]["model"] == MODEL
    assert [line for line in capsys.readouterr().err.splitlines() if "ERROR" in line] == [
        f"ERROR:    {REFUSED}"
    ]  # left out by `logs`


async def test_a_server_that_leaves_says_so_and_lets_the_answer_end() -> None:
    """Would catch a call that breaks off in the middle of a word, one that ends without a reason, and one that never ends."""
    pipeline = ScriptedPipeline(*spoken("one two", *[SECOND] * 4))
    async with served(pipeline) as url, connected(url, pipeline) as call:
        await call.hear(TURN)
        await call.until("response.output_audio.delta")
        pipeline.drain.begin(5.0)
        rest: list[Any] = []
        with pytest.raises(websockets.ConnectionClosedOK) as over:
            async with asyncio.timeout(30):
                while True:
                    rest.append(await call.connection.recv())
        assert over.value.rcvd is not None and over.value.rcvd.code == 1001
        (error,) = [event.error for event in rest if event.type == "error"]
        assert error.code == "server_stopping" and "`5` seconds" in error.message
        (done,) = [event.response for event in rest if event.type == "response.done"]
        assert done.status == "completed"
        with pytest.raises(websockets.InvalidStatus) as refusal:
            async with connected(url, pipeline):
                pass
        assert refusal.value.response.status_code == 503


async def test_a_client_that_leaves_frees_everything() -> None:
    """Would catch a slot, a network or a task that outlives its caller."""
    pipeline = ScriptedPipeline(*spoken()[:5], Forever())
    async with served(pipeline) as url:
        async with connected(url, pipeline) as call:
            await call.hear(TURN)
            await call.until("response.output_audio.delta")
        for _ in range(200):
            if not pipeline.running:
                break
            await asyncio.sleep(0.01)
    assert pipeline.running == 0
