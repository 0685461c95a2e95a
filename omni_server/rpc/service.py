"""Steps 1 and 8. `omni.v1.OmniService`: each method reads its request, plays it through the pipeline, writes what happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc

from omni.v1 import omni_service_pb2, omni_service_pb2_grpc
from omni_server.access import current_owner
from omni_server.door import Door
from omni_server.errors import ContextOverflow, OmniError, OutOfOrder, RequestError
from omni_server.instruction import check_model
from omni_server.rpc.calls import answered
from omni_server.rpc.converse import converse
from omni_server.rpc.live_config import read_config
from omni_server.rpc.reading import read_generate, read_synthesize
from omni_server.rpc.transcribe import transcribe
from omni_server.rpc.writing import MODALITIES, EventWriter, Fields, heavy
from omni_server.session import Session
from omni_server.types import AudioDelta, Done, Event, Request, SpanClosed, TextDelta
from omni_server.vad import Ears
from omni_server.wording import shown

# What the pipeline calls the fields of a conversation, and what they are called here.
GENERATE_FIELDS = {"audio.voice": "voice"}
SYNTHESIZE_FIELDS = {"audio.voice": "voice", "messages": "text", "modalities": "model"}


class OmniService(omni_service_pb2_grpc.OmniServiceServicer):
    """One for the whole server."""

    def __init__(self, door: Door, ears: Ears) -> None:
        self._door = door
        self._ears = ears
        self.calls: set[asyncio.Task[Any]] = set()

    @answered
    async def Converse(self, requests: Any, context: Any) -> None:
        first = await context.read()
        if first is grpc.aio.EOF or first.WhichOneof("message") != "config":
            raise RequestError("the first message is not `config`; expected it first, and once", param="config")
        live = read_config(first.config, self._door)
        async with (
            Session(self._door, self._ears, live.settings, live.reader) as session,
            self._door.packets.reading(opus=live.opus) as read,
        ):
            with self._door.pipeline.drain.told(session.go_away):
                await converse(session, live, context, read)

    @answered
    async def Transcribe(self, requests: Any, context: Any) -> None:
        first = await context.read()
        if first is grpc.aio.EOF or first.WhichOneof("message") != "config":
            raise RequestError("the first message is not `config`; expected it first, and once", param="config")

        async def audio() -> AsyncIterator[bytes]:
            while (message := await context.read()) is not grpc.aio.EOF:
                if message.WhichOneof("message") == "config":
                    raise OutOfOrder("`config` came a second time; expected it once, first", param="config")
                yield message.audio

        async def send(fields: Fields) -> None:
            await context.write(omni_service_pb2.TranscribeResponse(**fields))

        await transcribe(first.config, audio(), self._door, self._ears, send)

    @answered
    async def Generate(self, request: omni_service_pb2.GenerateRequest, context: Any) -> None:
        asked, format = read_generate(request, self._door)
        writer, sequence = EventWriter(format), 0
        async with played(self._door, asked, GENERATE_FIELDS) as events:
            async for fields in written(events, writer):
                sequence += 1
                await context.write(omni_service_pb2.GenerateResponse(sequence=sequence, **fields))

    @answered
    async def Synthesize(self, request: omni_service_pb2.SynthesizeRequest, context: Any) -> None:
        asked, format = read_synthesize(request, self._door)
        async with (
            played(self._door, asked, SYNTHESIZE_FIELDS) as events,
            aclosing(spoken(events, EventWriter(format))) as pieces,
        ):
            async for fields in pieces:
                await context.write(omni_service_pb2.SynthesizeResponse(**fields))

    @answered
    async def ListModels(
        self, request: omni_service_pb2.ListModelsRequest, context: Any
    ) -> omni_service_pb2.ListModelsResponse:
        offer = self._door.pipeline.checkpoint
        model = omni_service_pb2.Model(
            name=self._door.model,
            modalities_in=sorted(MODALITIES[modality] for modality in offer.modalities_in),
            modalities_out=sorted(MODALITIES[modality] for modality in offer.modalities_out),
            context_length=offer.context_length,
            sample_rate_hertz=offer.sample_rate if offer.voices else 0,
        )
        return omni_service_pb2.ListModelsResponse(models=[model])

    @answered
    async def ListVoices(
        self, request: omni_service_pb2.ListVoicesRequest, context: Any
    ) -> omni_service_pb2.ListVoicesResponse:
        if request.model:
            check_model(self._door, request.model)
        own = [voice.id for voice in self._door.pipeline.cloned.voices(current_owner())]
        names = [*own, *self._door.pipeline.checkpoint.voices]
        return omni_service_pb2.ListVoicesResponse(voices=[omni_service_pb2.Voice(name=name) for name in names])


@asynccontextmanager
async def played(door: Door, request: Request, fields: Mapping[str, str]) -> AsyncIterator[AsyncIterator[Event]]:
    """The pipeline's events. Its errors name the fields of a conversation; `fields` says what this method calls them."""
    try:
        async with door.pipeline.respond(request) as events:
            yield events
    except OmniError as error:
        error.param = fields.get(error.param or "", error.param)
        raise


async def written(events: AsyncIterator[Event], writer: EventWriter) -> AsyncGenerator[Fields, None]:
    async for event in events:
        for fields in await fields_of(event, writer):
            yield fields


async def fields_of(event: Event, writer: EventWriter) -> list[Fields]:
    return await asyncio.to_thread(writer.feed, event) if heavy(event, writer.format) else writer.feed(event)


async def spoken(events: AsyncIterator[Event], writer: EventWriter) -> AsyncGenerator[Fields, None]:
    """Only the voice and its words. Raises where nothing was said, or not all: half a voice must not look whole."""
    said, words = False, ""
    async for event in events:
        match event:
            case TextDelta(text=text):
                words += text
            case AudioDelta():
                said = True
            case SpanClosed(error=OmniError() as error):
                raise error
            case Done() if not said:
                told = f"the model said nothing aloud and wrote {shown(words)}; expected `text` that it can say"
                raise RequestError(told, param="text")
            case Done(finish_reason="length"):
                raise ContextOverflow("the voice was cut off: the model's context has no room for all of `text`", param="text")
            case _:
                pass
        for fields in await fields_of(event, writer):
            if fields.keys() & {"audio_delta", "text_delta", "done"}:
                yield fields
