"""What a client does to a conversation by itself: interruptions, items, tools, answers apart; and the sound's forms."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import PIL.Image
import pytest

from omni_server.types import (
    AudioPart,
    Calling,
    Done,
    ImageReady,
    Modality,
    SpanClosed,
    SpanOpened,
    TextPart,
    ToolCall,
    ToolCalled,
    Usage,
)
from tests.doubles import Forever, ScriptedPipeline
from tests.realtime.doors import RATE, SECOND, TURN, Call, calling, loudness, spoken
from tests.realtime.test_path import BY_HAND, WRITTEN, refused

WEATHER: Any = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {"town": {}}}}


def texts(call: Call) -> list[tuple[str, str]]:
    """The last request's messages, as role and words."""
    messages = call.pipeline.requests[-1].messages
    return [(m.role, "".join(part.text for part in m.parts if isinstance(part, TextPart))) for m in messages]


async def test_speaking_over_an_answer_stops_it() -> None:
    """Would catch an answer that talks on, a model that believes it was heard, or a client that is not told what stays."""
    pipeline = ScriptedPipeline(*spoken("one two three four", *[SECOND] * 4)[:-1], Forever())
    async with calling(pipeline) as call:
        await call.hear(TURN)
        await call.until("response.output_audio.delta")
        await call.hear(loudness((0.5, 0.6)))
        done = await call.until("response.done")
        truncated = await call.until("conversation.item.truncated")
        pipeline.script = spoken("yes")
        await call.hear(loudness((0.0, 0.8)))
        await call.until("response.done")
    assert (done.response.status, done.response.status_details.reason) == ("cancelled", "turn_detected")
    assert truncated.item_id == done.response.output[0].id and 0 <= truncated.audio_end_ms < 4000
    said = [words for role, words in texts(call) if role == "assistant"]
    assert said in ([], ["one"]) and pipeline.running == 0


async def test_an_answer_that_must_not_be_interrupted() -> None:
    """Would catch `interrupt_response: false` that is read and not kept."""
    detection = {"type": "server_vad", "interrupt_response": False, "create_response": False}
    async with calling(*spoken(), audio={"input": {"turn_detection": detection}}) as call:
        await call.say("hello")
        await call.connection.response.create()
        await call.hear(TURN)
        await call.until("response.done")
        if not call.only("input_audio_buffer.committed"):
            await call.until("input_audio_buffer.committed")
        await call.connection.response.create()
        await call.until("response.done")
    assert [event.response.status for event in call.only("response.done")] == ["completed", "completed"]
    assert len(call.pipeline.requests) == 2, "a turn was answered although `create_response` is false"
    assert isinstance(call.pipeline.requests[-1].messages[-1].parts[0], AudioPart)


async def test_truncating_what_was_said() -> None:
    """Would catch a model that goes on from words that the client has thrown away."""
    async with calling(*spoken("one two three four", *[SECOND] * 4)) as call:
        await call.say("count")
        await call.connection.response.create()
        item = (await call.until("response.done")).response.output[0]
        await call.connection.conversation.item.truncate(item_id=item.id, content_index=0, audio_end_ms=2200)
        assert (await call.until("conversation.item.truncated")).audio_end_ms == 2200
        await call.say("go on")
        await call.connection.response.create()
        await call.until("response.done")
        await call.connection.conversation.item.truncate(item_id="x", content_index=0, audio_end_ms=1, event_id="e")
        assert (await refused(call)).code == "item_truncate_invalid_item_id"
    assert texts(call) == [("user", "count"), ("assistant", "one two"), ("user", "go on")]


async def test_items_go_where_the_client_says() -> None:
    """Would catch a history that reaches the model in another order than the client sees, or with what was deleted."""
    async with calling(*WRITTEN, output_modalities=["text"]) as call:
        second = await call.say("second")
        await call.say("first", previous_item_id="root")
        between: Any = {
            "type": "message",
            "id": "mine",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "hm"}],
        }
        await call.connection.conversation.item.create(item=between, previous_item_id=call.events[-1].item.id)
        placed = await call.until("conversation.item.done")
        assert (placed.item.id, placed.previous_item_id) == ("mine", call.only("conversation.item.done")[1].item.id)
        await call.connection.conversation.item.create(item=between, event_id="twice")
        assert (await refused(call)).code == "item_create_duplicate_item_id"
        await call.connection.conversation.item.create(item={**between, "id": "other"}, previous_item_id="nowhere")
        assert (await refused(call)).param == "previous_item_id"
        await call.connection.conversation.item.retrieve(item_id="mine")
        assert (await call.until("conversation.item.retrieved")).item.content[0].text == "hm"
        await call.connection.response.create()
        await call.until("response.done")
        assert texts(call) == [("user", "first"), ("assistant", "hm"), ("user", "second")]
        await call.connection.conversation.item.delete(item_id=second.id)
        await call.until("conversation.item.deleted")
        await call.connection.conversation.item.retrieve(item_id=second.id, event_id="rci_x")
        error = await refused(call)
        assert (error.code, error.event_id) == ("item_retrieve_invalid_item_id", "rci_x")
        await call.connection.conversation.item.delete(item_id=second.id)
        assert (await refused(call)).code == "item_delete_invalid_item_id"
        await call.connection.response.create()
        await call.until("response.done")
    assert texts(call) == [("user", "first"), ("assistant", "hmone two")]


async def test_a_tool_is_called_and_its_result_answered() -> None:
    """Would catch a call that the client cannot tell from words, or a result that does not reach the model as one."""
    pipeline = ScriptedPipeline(ToolCalled(0, "weather", '{"town": "Seoul"}'), Done("tool_calls", Usage(5, 0, 0, 0, 7)))
    async with calling(pipeline, tools=[WEATHER]) as call:
        await call.hear(TURN)
        done = await call.until("response.done")
        (made,) = call.only("response.function_call_arguments.done")
        pipeline.script = spoken("sunny")
        output: Any = {"type": "function_call_output", "call_id": made.call_id, "output": "sun"}
        await call.connection.conversation.item.create(item=output)
        result = await call.until("conversation.item.done")
        await call.connection.response.create()
        await call.until("response.done")
    (item,) = done.response.output
    assert (item.type, item.name, item.arguments, item.call_id) == ("function_call", "weather", made.arguments, made.call_id)
    assert "".join(event.delta for event in call.only("response.function_call_arguments.delta")) == made.arguments
    assert result.previous_item_id == item.id and made.item_id == item.id and result.item.output == "sun"
    request = pipeline.requests[-1]
    assert request.tools[0]["function"]["name"] == "weather"
    _, called, answer = request.messages
    assert called.tool_calls == (ToolCall("weather", {"town": "Seoul"}),)
    assert (answer.role, answer.tool, answer.parts) == ("tool", "weather", (TextPart("sun"),))


async def test_tools_of_a_history() -> None:
    """Would catch a client that resumes a conversation with tools in it and is refused."""
    async with calling(*WRITTEN, output_modalities=["text"], tools=[WEATHER], tool_choice="none") as call:
        await call.say("how is it")
        made: Any = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"town": "Busan"}'}
        await call.connection.conversation.item.create(item=made)
        await call.until("conversation.item.done")
        await call.connection.conversation.item.create(item={"type": "function_call_output", "call_id": "c1", "output": "rain"})
        await call.until("conversation.item.done")
        await call.connection.response.create(response={"tool_choice": "auto", "tools": [WEATHER]})
        await call.until("response.done")
        await call.connection.response.create()
        await call.until("response.done")
    first, second = call.pipeline.requests
    assert first.messages[-1].tool == "weather" and len(first.tools) == 1 and second.tools == ()


async def test_a_call_that_must_be_made() -> None:
    """Would catch a choice of tools that holds for one answer and is forgotten, or that outlives the answer it was made for."""
    named: Any = {"type": "function", "name": "weather"}
    async with calling(*WRITTEN, output_modalities=["text"], tools=[WEATHER], tool_choice="none") as call:
        session = await call.update(tool_choice="required", parallel_tool_calls=False)
        assert (session.tool_choice, session.parallel_tool_calls) == ("required", False)
        await call.say("how is it")
        for response in (None, {"tool_choice": named}, {"tool_choice": "auto", "parallel_tool_calls": True}, None):
            await call.connection.response.create(**({} if response is None else {"response": response}))
            await call.until("response.done")
        assert (await call.update(tool_choice=named)).tool_choice.name == "weather"
    required = Calling(required=True, several=False)
    assert [request.calling for request in call.pipeline.requests] == [
        required,
        Calling(required=True, named="weather", several=False),
        Calling(),
        required,
    ]
    assert all(len(request.tools) == 1 for request in call.pipeline.requests)


async def test_an_answer_apart_from_the_conversation() -> None:
    """Would catch a side question that the conversation remembers, or metadata that a client waits for in vain."""
    async with calling(*WRITTEN, output_modalities=["text"], instructions="be brief") as call:
        await call.say("hello")
        question: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "which topic?"}]}
        asked: Any = {"conversation": "none", "input": [question], "metadata": {"topic": "1"}, "instructions": "one word"}
        await call.connection.response.create(response=asked)
        done = await call.until("response.done")
        assert done.response.metadata == {"topic": "1"} and done.response.conversation_id is None
        assert call.only("response.created")[0].response.metadata == {"topic": "1"}
        assert texts(call) == [("system", "one word"), ("user", "which topic?")]
        added = len(call.only("conversation.item.added"))
        about: Any = {"type": "item_reference", "id": call.only("conversation.item.added")[0].item.id}
        await call.connection.response.create(response={**asked, "input": [about, question]})
        await call.until("response.done")
        assert texts(call) == [("system", "one word"), ("user", "hellowhich topic?")]
        await call.connection.response.create(response={"input": [{"type": "item_reference", "id": "nobody"}]})
        assert (await refused(call)).param == "response.input[0].id"
        await call.connection.response.create()
        await call.until("response.done")
    assert added == 1 and texts(call) == [("system", "be brief"), ("user", "hello")]


@pytest.mark.parametrize("law", ["audio/pcmu", "audio/pcma"])
async def test_telephone_sound_both_ways(law: str) -> None:
    """Would catch noise instead of a voice on a telephone line."""
    from omni_server.live_audio import FrameWriter, open_reader

    encoding: Any = {"audio/pcmu": "mulaw", "audio/pcma": "alaw"}[law]
    form = {"format": {"type": law}}
    turn = np.frombuffer(TURN, "<i2").astype(np.float32) / 32768
    async with calling(*spoken("hi", SECOND), audio={"input": form, "output": form}) as call:
        await call.hear(b"".join(FrameWriter(encoding, RATE, 8000).feed(turn)), size=800)
        await call.until("response.done")
    (part,) = call.pipeline.requests[-1].messages[-1].parts
    assert (
        isinstance(part, AudioPart) and part.source.data is not None and part.source.data[24:28] == (8000).to_bytes(4, "little")
    )
    heard = open_reader(encoding, 8000).feed(call.sound())
    assert len(heard) == 8000 and np.median(heard) / 32768 == pytest.approx(0.25, abs=0.01)


async def test_a_call_changes_while_it_runs() -> None:
    """Would catch a setting that holds only for calls to come, one that forgets the others, or half of a refused change."""
    async with calling(*spoken("hi", SECOND, SECOND), instructions="be brief") as call:
        await call.hear(TURN)
        await call.until("response.done")
        session = await call.update(audio={"output": {"voice": "sage", "speed": 1.5}}, omni={"seed": 7, "temperature": 0.5})
        assert session.instructions == "be brief" and session.audio.output.speed == 1.5
        assert session.audio.input.turn_detection.silence_duration_ms == 500
        wrong: Any = {"type": "realtime", "instructions": "sing", "audio": {"input": {"format": {"type": "audio/pcmu"}}}}
        await call.connection.session.update(session=wrong)
        assert (await refused(call)).param == "session.audio.input.format"
        session = await call.update(audio=BY_HAND)
        assert session.audio.input.turn_detection is None and session.instructions == "be brief"
        before = len(call.sound())
        await call.hear(loudness((0.5, 1.0)))
        await call.connection.input_audio_buffer.commit()
        await call.until("conversation.item.done")
        await call.connection.response.create()
        await call.until("response.done")
        back = await call.update(audio={"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "low"}}})
        assert back.audio.input.turn_detection.type == "semantic_vad"
        await call.hear(loudness((0.0, 0.3), (0.5, 0.6), (0.0, 1.0)))
        assert not call.pipeline.requests[2:]
        await call.hear(loudness((0.0, 0.5)))
        stopped = await call.until("input_audio_buffer.speech_stopped")
        await call.until("response.done")
    assert stopped.audio_end_ms == pytest.approx(1800 + 1000 + 900, abs=80)
    request = call.pipeline.requests[1]
    assert (request.decode.voice, request.sampling.seed, request.sampling.temperature) == ("sage", 7, 0.5)
    assert request.messages[0].parts == (TextPart("be brief"),)
    assert before == 2 * 48_000
    second = call.only("response.output_audio.delta")
    assert second[-1].model_extra["end_ms"] == pytest.approx(2000 / 1.5, abs=2)


async def test_a_picture_in_an_answer() -> None:
    """Would catch a picture that a client has asked for and never sees."""
    drawn = ImageReady(0, PIL.Image.new("RGB", (8, 6), "red"))
    script = (SpanOpened(0, Modality.IMAGE), drawn, SpanClosed(0), Done("stop", Usage()))
    async with calling(*script, output_modalities=["text", "image"]) as call:
        await call.say("draw")
        await call.connection.response.create()
        image = await call.until("omni.image.done")
        await call.until("response.done")
    assert base64.b64decode(image.model_extra["image"]).startswith(b"\x89PNG") and image.model_extra["output_index"] == 0
