"""Pipecat's OpenAI realtime service, as it is: a pipeline around it, without a transport."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from checks import BASE_URL, MODEL, VOICE, expect, question, run
from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMTextFrame,
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSTextFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.realtime.events import (
    AudioConfiguration,
    AudioInput,
    AudioOutput,
    InputAudioTranscription,
    SemanticTurnDetection,
    SessionProperties,
)
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner

RATE = 24_000
KINDS = (
    TTSAudioRawFrame,
    TTSTextFrame,
    LLMTextFrame,
    LLMFullResponseEndFrame,
    TranscriptionFrame,
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    ErrorFrame,
)


class Ear(FrameProcessor):
    """Keeps what passes."""

    def __init__(self, frames: list[Frame], news: asyncio.Event) -> None:
        super().__init__()
        self._frames, self._news = frames, news

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, KINDS):
            self._frames.append(frame)
            self._news.set()
        await self.push_frame(frame, direction)


class Heard:
    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.news = asyncio.Event()
        self.task: Any = None

    async def until(self, kind: type[Frame], count: int = 1) -> Any:
        while True:
            faults = [frame for frame in self.frames if isinstance(frame, ErrorFrame)]
            expect(not faults, f"the service met {faults[:1]}")
            found = [frame for frame in self.frames if isinstance(frame, kind)]
            if len(found) >= count:
                return found[count - 1]
            self.news.clear()
            await self.news.wait()

    async def speak(self, pcm: bytes, size: int = 960) -> None:
        for at in range(0, len(pcm), size):
            await self.task.queue_frame(InputAudioRawFrame(pcm[at : at + size], RATE, 1))

    async def ask(self, words: str) -> None:
        context = LLMContext([{"role": "user", "content": words}])
        await self.task.queue_frame(LLMContextFrame(context))


@contextlib.asynccontextmanager
async def calling(modality: str = "audio", **audio_in: Any) -> AsyncIterator[Heard]:
    properties = SessionProperties(
        output_modalities=[modality],
        audio=AudioConfiguration(input=AudioInput(**audio_in), output=AudioOutput(voice=VOICE)),
    )
    service = OpenAIRealtimeLLMService(
        api_key="none",
        base_url=BASE_URL.replace("http", "ws", 1) + "/realtime",
        settings=OpenAIRealtimeLLMService.Settings(model=MODEL, system_instruction="be brief", session_properties=properties),
    )
    heard = Heard()
    before, after = Ear(heard.frames, heard.news), Ear(heard.frames, heard.news)
    params = PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE)
    heard.task = PipelineWorker(Pipeline([before, service, after]), params=params, cancel_on_idle_timeout=False)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(heard.task)
    running = asyncio.create_task(runner.run())
    try:
        yield heard
    finally:
        await heard.task.cancel()
        await asyncio.wait([running], timeout=10)


async def session_is_configured() -> None:
    async with calling() as heard:
        await heard.ask("say fox")
        await heard.until(LLMFullResponseEndFrame)


async def spoken_turn() -> None:
    async with calling() as heard:
        await heard.ask("say fox")
        await heard.until(LLMFullResponseEndFrame)
        heard.frames.clear()
        await heard.speak(question())
        await heard.until(ProposedUserStartedSpeakingFrame)
        await heard.until(ProposedUserStoppedSpeakingFrame)
        await heard.until(TTSAudioRawFrame)
        await heard.until(LLMFullResponseEndFrame)


async def transcripts() -> None:
    async with calling(transcription=InputAudioTranscription(model="whisper-1")) as heard:
        await heard.ask("say fox")
        await heard.until(LLMFullResponseEndFrame)
        await heard.speak(question())
        expect((await heard.until(TranscriptionFrame)).text, "the transcript is empty")


async def written_turn() -> None:
    async with calling() as heard:
        await heard.ask("say fox")
        await heard.until(TTSTextFrame)
        await heard.until(TTSAudioRawFrame)


async def written_answers() -> None:
    async with calling("text") as heard:
        await heard.ask("say fox")
        await heard.until(LLMTextFrame)
        await heard.until(LLMFullResponseEndFrame)


async def interruption() -> None:
    async with calling() as heard:
        await heard.ask("say fox")
        await heard.until(TTSAudioRawFrame)
        await heard.speak(question())
        await heard.until(ProposedUserStartedSpeakingFrame)
        await heard.until(LLMFullResponseEndFrame, 2)


async def patient_turns() -> None:
    async with calling(turn_detection=SemanticTurnDetection(eagerness="high")) as heard:
        await heard.ask("say fox")
        await heard.until(LLMFullResponseEndFrame)
        heard.frames.clear()
        await heard.speak(question())
        await heard.until(TTSAudioRawFrame)


async def turns_by_hand() -> None:
    async with calling(turn_detection=False) as heard:
        await heard.ask("say fox")
        await heard.until(LLMFullResponseEndFrame)
        heard.frames.clear()
        await heard.task.queue_frame(UserStartedSpeakingFrame())
        await heard.speak(question())
        await heard.task.queue_frame(UserStoppedSpeakingFrame())
        await heard.until(TTSAudioRawFrame)


run(
    {
        "realtime: session": session_is_configured,
        "realtime: spoken turn": spoken_turn,
        "realtime: transcripts": transcripts,
        "realtime: written turn": written_turn,
        "realtime: written answers": written_answers,
        "realtime: interruption": interruption,
        "realtime: semantic_vad": patient_turns,
        "realtime: turns by hand": turns_by_hand,
    }
)
