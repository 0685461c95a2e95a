"""The stock `openai` package of Python, new or old: REST by its sync client, the realtime wire by its async one."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import openai
from checks import (
    BASE_URL,
    BOOK,
    MEDIA,
    MODEL,
    TOOLS_MODEL,
    TOOLS_URL,
    VOICE,
    NotInThisClient,
    expect,
    expect_booking,
    question,
    run,
)

client = openai.OpenAI(base_url=BASE_URL, api_key="none", max_retries=0)
RECORDING = (MEDIA / "question-24000.wav").read_bytes()
PNG = (MEDIA / "picture.png").read_bytes()
JPEG_OR_PNG = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF")


def ask(content: Any, **fields: Any) -> Any:
    return client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}], **fields)


def spoken(format: str) -> dict[str, Any]:
    return {"modalities": ["text", "audio"], "audio": {"voice": VOICE, "format": format}}


def chat() -> None:
    reply = ask("say fox")
    expect(reply.choices[0].message.content, "no words")
    expect(reply.usage.total_tokens > 0, "no usage")


def chat_streamed() -> None:
    chunks = list(ask("say fox", stream=True, stream_options={"include_usage": True}))
    expect("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), "no words")
    expect(chunks[-1].usage.total_tokens > 0, "no usage in the last chunk")


def chat_sees() -> None:
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    reply = ask([{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what is this?"}])
    expect(reply.usage.prompt_tokens > 30, "the picture did not reach the prompt")


def chat_hears() -> None:
    sound = {"data": base64.b64encode(RECORDING).decode(), "format": "wav"}
    reply = ask([{"type": "input_audio", "input_audio": sound}])
    expect(reply.usage.prompt_tokens_details.audio_tokens > 0, "the sound did not reach the prompt")


def chat_speaks() -> None:
    audio = ask("say fox", **spoken("wav")).choices[0].message.audio
    expect(base64.b64decode(audio.data).startswith(b"RIFF") and audio.transcript, "no sound, or no transcript")
    messages = [
        {"role": "user", "content": "say fox"},
        {"role": "assistant", "audio": {"id": audio.id}},
        {"role": "user", "content": "again"},
    ]
    expect(client.chat.completions.create(model=MODEL, messages=messages).choices, "no second turn")


def chat_speaks_streamed() -> None:
    sound, transcript = b"", ""
    for chunk in ask("say fox", stream=True, **spoken("pcm16")):
        for choice in chunk.choices:
            audio = getattr(choice.delta, "audio", None) or {}
            audio = audio if isinstance(audio, dict) else audio.model_dump()
            sound += base64.b64decode(audio.get("data") or "")
            transcript += audio.get("transcript") or ""
    expect(len(sound) > 4800 and transcript, "no sound, or no transcript")


def chat_draws() -> None:
    message = ask("draw a fox", modalities=["text", "image"]).choices[0].message
    images = (message.model_extra or {}).get("images") or []
    expect(images and images[0]["image_url"]["url"].startswith("data:image/"), "no picture")


def chat_json() -> None:
    schema = {"type": "object", "properties": {"animal": {"enum": ["fox", "cat"]}}, "required": ["animal"]}
    form = {"type": "json_schema", "json_schema": {"name": "animal", "schema": schema, "strict": True}}
    expect(json.loads(ask("say fox", response_format=form).choices[0].message.content)["animal"] in ("fox", "cat"), "not so")


def responses() -> None:
    reply = client.responses.create(model=MODEL, input="say fox")
    expect(reply.output_text and reply.usage.total_tokens > 0, "no words, or no usage")
    again = client.responses.create(model=MODEL, input="again", previous_response_id=reply.id)
    expect(again.output_text, "it does not go on")


def responses_streamed() -> None:
    events = list(client.responses.create(model=MODEL, input="say fox", stream=True))
    expect(events[0].type == "response.created" and events[-1].type == "response.completed", "no beginning, or no end")
    words = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    expect(words and words == events[-1].response.output_text, "the pieces are not the whole")


def input_items() -> None:
    reply = client.responses.create(model=MODEL, input="say fox")
    again = client.responses.create(model=MODEL, input="again", previous_response_id=reply.id)
    items: list[Any] = list(client.responses.input_items.list(again.id, order="asc", limit=2))
    expect([item.role for item in items] == ["user", "assistant", "user"], "not what the response was made from")
    expect(items[2].content[0].text == "again", "without its words")


def tool_calls(choice: Any, **fields: Any) -> Any:
    calling = openai.OpenAI(base_url=TOOLS_URL, api_key="none", max_retries=0)
    return calling.chat.completions.create(
        model=TOOLS_MODEL,
        messages=[{"role": "user", "content": "a room"}],
        tools=[{"type": "function", "function": {"name": "book", "parameters": BOOK}}],
        tool_choice=choice,
        extra_body={"reasoning_effort": "none"},
        **fields,
    )


def tools_required() -> None:
    (call,) = tool_calls("required", parallel_tool_calls=False).choices[0].message.tool_calls
    expect_booking(call.function.name, call.function.arguments)


def tools_named() -> None:
    (call,) = tool_calls({"type": "function", "function": {"name": "book"}}).choices[0].message.tool_calls
    expect_booking(call.function.name, call.function.arguments)


def tools_streamed() -> None:
    name = arguments = ""
    for chunk in tool_calls("required", parallel_tool_calls=False, stream=True):
        for delta in chunk.choices[0].delta.tool_calls or ():
            name += delta.function.name or ""
            arguments += delta.function.arguments or ""
    expect_booking(name, arguments)


def tools_in_responses() -> None:
    calling = openai.OpenAI(base_url=TOOLS_URL, api_key="none", max_retries=0)
    reply = calling.responses.create(
        model=TOOLS_MODEL,
        input="a room",
        tools=[{"type": "function", "name": "book", "parameters": BOOK, "strict": True}],
        tool_choice={"type": "function", "name": "book"},
        extra_body={"reasoning": {"effort": "none"}},
    )
    (call,) = [item for item in reply.output if item.type == "function_call"]
    expect_booking(call.name, call.arguments)


def completions() -> None:
    expect(client.completions.create(model=MODEL, prompt="fox", max_tokens=4).usage.completion_tokens > 0, "no words")


def models() -> None:
    expect(MODEL in [model.id for model in client.models.list()], "the model is not listed")


def errors() -> None:
    try:
        client.chat.completions.create(model="another", messages=[{"role": "user", "content": "hello"}])
    except openai.NotFoundError as error:
        expect(error.code == "model_not_found" and error.param == "model", "without a code or a field")
    else:
        raise AssertionError("a wrong model was taken")
    try:
        ask("hello", temperature=9)
    except openai.BadRequestError as error:
        expect(error.param == "temperature", "without a field")
    else:
        raise AssertionError("a wrong temperature was taken")


def speech() -> None:
    for format in ("mp3", "opus", "aac", "flac", "wav", "pcm"):
        made = client.audio.speech.create(model=MODEL, voice=VOICE, input="fox", response_format=format)
        expect(len(made.content) > 500, f"no {format}")


def speech_streamed() -> None:
    with client.audio.speech.with_streaming_response.create(
        model=MODEL, voice=VOICE, input="fox", response_format="pcm"
    ) as reply:
        expect(sum(len(piece) for piece in reply.iter_bytes()) > 4800, "no sound")


def transcription() -> None:
    file = ("question.wav", RECORDING)
    expect(client.audio.transcriptions.create(model=MODEL, file=file).text, "no words")
    timed = client.audio.transcriptions.create(model=MODEL, file=file, response_format="verbose_json")
    expect(timed.segments and timed.duration > 1, "no segments")
    expect("-->" in client.audio.transcriptions.create(model=MODEL, file=file, response_format="srt"), "no subtitles")


def transcription_streamed() -> None:
    events = list(client.audio.transcriptions.create(model=MODEL, file=("question.wav", RECORDING), stream=True))
    expect(events[-1].type == "transcript.text.done" and events[-1].text, "no end")


def images() -> None:
    made = client.images.generate(model=MODEL, prompt="a fox", n=2)
    expect([base64.b64decode(image.b64_json)[:4].startswith(JPEG_OR_PNG) for image in made.data] == [True, True], "no pictures")


def images_streamed() -> None:
    try:
        events = list(client.images.generate(model=MODEL, prompt="a fox", stream=True, partial_images=1))
    except TypeError as missing:
        raise NotInThisClient(str(missing)) from missing
    expect(events[-1].type == "image_generation.completed" and events[-1].b64_json, "no end")


def images_edited() -> None:
    made = client.images.edit(
        model=MODEL, image=("picture.png", io.BytesIO(PNG), "image/png"), prompt="draw this in the flat style"
    )
    expect(made.data[0].b64_json, "no picture")


class Call:
    """A connection of the realtime wire, and what came over it."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.events: list[Any] = []

    async def until(self, type: str) -> Any:
        while True:
            event = await self.connection.recv()
            self.events.append(event)
            expect(event.type != "error", f"the server told {event}")
            if event.type == type:
                return event

    async def speak(self) -> None:
        sound = question()
        for at in range(0, len(sound), 4800):
            await self.connection.input_audio_buffer.append(audio=base64.b64encode(sound[at : at + 4800]).decode())

    async def say(self, words: str) -> None:
        item: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": words}]}
        await self.connection.conversation.item.create(item=item)
        await self.until("conversation.item.done")


def realtime(feature: Any, **session: Any) -> Any:
    async def called() -> None:
        # Version 1 speaks TLS unless it is told.
        socket = BASE_URL.replace("http", "ws", 1)
        async with openai.AsyncOpenAI(base_url=BASE_URL, websocket_base_url=socket, api_key="none") as live:
            if not hasattr(live, "realtime"):
                raise NotInThisClient("it has no `client.realtime`")
            async with live.realtime.connect(model=MODEL) as connection:
                call = Call(connection)
                await call.until("session.created")
                await connection.session.update(session={"type": "realtime", **session})
                await call.until("session.updated")
                await feature(call)

    return called


async def session(call: Call) -> None:
    await call.connection.session.update(session={"type": "realtime", "instructions": "be brief"})
    expect((await call.until("session.updated")).session.instructions == "be brief", "it does not hold")


async def spoken_turn(call: Call) -> None:
    await call.speak()
    await call.until("input_audio_buffer.speech_started")
    await call.until("response.output_audio.delta")
    response = (await call.until("response.done")).response
    expect(response.status == "completed" and response.usage.total_tokens > 0, f"it ended as {response.status}")


async def transcripts(call: Call) -> None:
    await call.speak()
    expect((await call.until("conversation.item.input_audio_transcription.completed")).transcript, "it is empty")


async def written_turn(call: Call) -> None:
    await call.say("say fox")
    await call.connection.response.create()
    await call.until("response.output_audio.delta")
    expect((await call.until("response.done")).response.output[0].content[0].transcript, "no words")


async def written_answers(call: Call) -> None:
    await call.say("say fox")
    await call.connection.response.create()
    expect((await call.until("response.output_text.done")).text, "no words")


async def interruption(call: Call) -> None:
    await call.speak()
    await call.until("response.output_audio.delta")
    await call.speak()
    await call.until("input_audio_buffer.speech_started")
    await call.until("response.done")


async def truncation(call: Call) -> None:
    await call.say("say fox")
    await call.connection.response.create()
    item = (await call.until("response.done")).response.output[0]
    await call.connection.conversation.item.truncate(item_id=item.id, content_index=0, audio_end_ms=100)
    await call.until("conversation.item.truncated")


async def cancelling(call: Call) -> None:
    await call.say("say fox")
    await call.connection.response.create()
    await call.until("response.created")
    await call.connection.response.cancel()
    # A short answer may have been made before the server heard of it.
    while (event := await call.connection.recv()).type not in ("response.done", "error"):
        pass
    expect(event.type == "error" or event.response.status in ("cancelled", "completed"), "it neither stopped nor ended")


async def by_hand(call: Call) -> None:
    await call.speak()
    await call.connection.input_audio_buffer.commit()
    await call.until("input_audio_buffer.committed")
    await call.connection.response.create()
    await call.until("response.output_audio.delta")


async def items(call: Call) -> None:
    await call.say("hello")
    id = call.events[-1].item.id
    await call.connection.conversation.item.retrieve(item_id=id)
    await call.until("conversation.item.retrieved")
    await call.connection.conversation.item.delete(item_id=id)
    await call.until("conversation.item.deleted")


run(
    {
        "chat": chat,
        "chat: streamed": chat_streamed,
        "chat: a picture in": chat_sees,
        "chat: sound in": chat_hears,
        "chat: a voice out": chat_speaks,
        "chat: a voice out, streamed": chat_speaks_streamed,
        "chat: a picture out": chat_draws,
        "chat: JSON by schema": chat_json,
        "responses": responses,
        "responses: streamed": responses_streamed,
        "responses: input items": input_items,
        "responses: tools": tools_in_responses,
        "tools: required": tools_required,
        "tools: named": tools_named,
        "tools: streamed": tools_streamed,
        "completions": completions,
        "models": models,
        "errors": errors,
        "speech": speech,
        "speech: streamed": speech_streamed,
        "transcription": transcription,
        "transcription: streamed": transcription_streamed,
        "images": images,
        "images: streamed": images_streamed,
        "images: edited": images_edited,
        "realtime: session": realtime(session),
        "realtime: spoken turn": realtime(spoken_turn),
        "realtime: transcripts": realtime(transcripts, audio={"input": {"transcription": {"model": "whisper-1"}}}),
        "realtime: written turn": realtime(written_turn),
        "realtime: written answers": realtime(written_answers, output_modalities=["text"]),
        "realtime: interruption": realtime(interruption),
        "realtime: truncation": realtime(truncation),
        "realtime: cancelling": realtime(cancelling),
        "realtime: turns by hand": realtime(by_hand, audio={"input": {"turn_detection": None}}),
        "realtime: semantic_vad": realtime(spoken_turn, audio={"input": {"turn_detection": {"type": "semantic_vad"}}}),
        "realtime: items": realtime(items),
    }
)
