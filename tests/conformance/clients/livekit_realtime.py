"""LiveKit agents' OpenAI realtime plug-in, as it is: a session of its RealtimeModel, without a room."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from checks import BASE_URL, MODEL, VOICE, expect, question, run
from livekit import rtc
from livekit.agents import llm
from livekit.plugins import openai
from openai.types.beta.realtime.session import InputAudioTranscription

RATE = 24_000


class Heard:
    """A session and everything that it says."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.events: list[tuple[str, Any]] = []
        self.news = asyncio.Event()
        for name in (
            "input_speech_started",
            "input_speech_stopped",
            "input_audio_transcription_completed",
            "generation_created",
            "error",
        ):
            session.on(name, lambda event=None, name=name: self.note(name, event))
        session.on("openai_server_event_received", lambda event: self.note(event["type"], event))

    def note(self, name: str, event: Any) -> None:
        self.events.append((name, event))
        self.news.set()

    async def until(self, name: str, count: int = 1) -> Any:
        while True:
            found = [event for kind, event in self.events if kind == name]
            if len(found) >= count:
                return found[count - 1]
            self.news.clear()
            await self.news.wait()

    def speak(self, pcm: bytes, size: int = 960) -> None:
        for at in range(0, len(pcm), size):
            piece = pcm[at : at + size]
            self.session.push_audio(rtc.AudioFrame(piece, RATE, 1, len(piece) // 2))

    def check(self) -> None:
        faults = [event for kind, event in self.events if kind == "error"]
        expect(not faults, f"the plug-in met {faults[:1]}")


@contextlib.asynccontextmanager
async def calling(**options: Any) -> AsyncIterator[Heard]:
    model = openai.realtime.RealtimeModel(model=MODEL, voice=VOICE, base_url=BASE_URL, api_key="none", **options)
    session = model.session()
    heard = Heard(session)
    try:
        await heard.until("session.updated")
        yield heard
        heard.check()
    finally:
        await session.aclose()
        await model.aclose()


async def played(generation: Any) -> tuple[str, float, str]:
    """The words, the seconds of sound and the message's id of one generation."""
    words, seconds, message_id = "", 0.0, ""
    async for message in generation.message_stream:
        message_id = message.message_id
        async for text in message.text_stream:
            words += text
        async for frame in message.audio_stream:
            seconds += frame.duration
    return words, seconds, message_id


async def session_is_configured() -> None:
    async with calling() as heard:
        await heard.session.update_instructions("be brief")
        await heard.until("session.updated", 2)


async def spoken_turn() -> None:
    async with calling() as heard:
        heard.speak(question())
        await heard.until("input_speech_started")
        await heard.until("input_speech_stopped")
        _, seconds, _ = await played(await heard.until("generation_created"))
        await heard.until("response.done")
        expect(seconds > 0, "no sound came")


async def transcripts() -> None:
    async with calling(input_audio_transcription=InputAudioTranscription(model="whisper-1", language="en")) as heard:
        heard.speak(question())
        while not (event := await heard.until("input_audio_transcription_completed", 1)).is_final:
            heard.events.remove(("input_audio_transcription_completed", event))
        expect(event.transcript, "the transcript is empty")


async def written_turn() -> None:
    async with calling() as heard:
        history = llm.ChatContext.empty()
        history.add_message(role="user", content="say fox")
        await heard.session.update_chat_ctx(history)
        generation = await heard.session.generate_reply()
        words, seconds, _ = await played(generation)
        expect(words and seconds > 0, "no words, or no sound")


async def written_answers() -> None:
    async with calling(modalities=["text"]) as heard:
        history = llm.ChatContext.empty()
        history.add_message(role="user", content="say fox")
        await heard.session.update_chat_ctx(history)
        words, seconds, _ = await played(await heard.session.generate_reply(instructions="be brief"))
        expect(words and not seconds, "no words, or sound that nobody asked for")


async def interruption() -> None:
    async with calling() as heard:
        heard.speak(question())
        generation = await heard.until("generation_created")
        _, seconds, message_id = await played(generation)
        heard.session.truncate(message_id=message_id, modalities=["audio"], audio_end_ms=100)
        await heard.until("conversation.item.truncated")
        heard.speak(question())
        await heard.until("input_speech_started", 2)
        await heard.until("generation_created", 2)
        await heard.until("response.done", 2)
        expect(seconds > 0, "no sound came")


async def cancelled() -> None:
    async with calling() as heard:
        history = llm.ChatContext.empty()
        history.add_message(role="user", content="say fox")
        await heard.session.update_chat_ctx(history)
        await heard.session.generate_reply()
        heard.session.interrupt()
        done = await heard.until("response.done")
        expect(done["response"]["status"] in ("cancelled", "completed"), "the response neither stopped nor ended")


async def turns_by_hand() -> None:
    async with calling(turn_detection=None) as heard:
        heard.speak(question())
        heard.session.commit_audio()
        await heard.until("input_audio_buffer.committed")
        _, seconds, _ = await played(await heard.session.generate_reply())
        expect(seconds > 0, "no sound came")
        heard.session.clear_audio()
        await heard.until("input_audio_buffer.cleared")


async def items() -> None:
    async with calling() as heard:
        history = llm.ChatContext.empty()
        history.add_message(role="system", content="be brief")
        history.add_message(role="user", content="hello")
        history.add_message(role="assistant", content="hi")
        await heard.session.update_chat_ctx(history)
        expect(len(heard.session.chat_ctx.items) == 3, "the plug-in's mirror differs")
        history.items.pop(1)
        await heard.session.update_chat_ctx(history)
        expect([item.role for item in heard.session.chat_ctx.items] == ["system", "assistant"], "the plug-in's mirror differs")


run(
    {
        "realtime: session": session_is_configured,
        "realtime: spoken turn": spoken_turn,
        "realtime: transcripts": transcripts,
        "realtime: written turn": written_turn,
        "realtime: written answers": written_answers,
        "realtime: truncation": interruption,
        "realtime: cancelling": cancelled,
        "realtime: turns by hand": turns_by_hand,
        "realtime: items": items,
    }
)
