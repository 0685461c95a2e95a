"""The client for asyncio: the same names and arguments as `client.py`, awaited. A test holds the two together."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar, Unpack

import httpx

from omni_client import wire, wire_media
from omni_client.async_call import AsyncCall
from omni_client.call_setup import CallWishes, Source, call_setup
from omni_client.connection import (
    DEFAULT_TIMEOUT,
    connection_from,
    new_request_id,
    read_answer,
    read_error,
)
from omni_client.errors import APIError
from omni_client.media import Audio, Picture
from omni_client.reply import Reply
from omni_client.stream import AsyncReplyStream
from omni_client.wire import AudioFormat, Exchange, Generation, Model, PictureFormat, Transcript, Wishes
from omni_client.wire_media import ClonedVoice, Consent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omni_client.content import Conversation, Drawn, Recording

Answered = TypeVar("Answered")


class AsyncOmniClient:
    """OmniClient for asyncio. Safe to share between tasks; close it, or use it in an `async with` block.

    The arguments are those of OmniClient, but `http_client` is an httpx.AsyncClient.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        model: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        max_retries: int = 2,
        grpc_target: str | None = None,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        self._connection = connection_from(base_url, api_key, ca_file, timeout, max_retries)
        self._model = model
        self._grpc_target = grpc_target or os.environ.get("OMNI_GRPC_TARGET")
        self._http = http_client or httpx.AsyncClient(verify=self._connection.verify)
        self._owned = http_client is None

    async def __aenter__(self) -> AsyncOmniClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections to the server."""
        if self._owned:
            await self._http.aclose()

    async def generate(self, content: Conversation, **wishes: Unpack[Generation]) -> Reply:
        """Answers `content`: words, a Path, bytes, a Picture, an Audio, a PIL image, a tuple (waveform, sample_rate); a list
        of these as one turn; or a list of turns that holds earlier Replies, Messages or dicts: `["draw a fox", reply, "what
        is this?"]`. See `Generation` for the wishes."""
        model, timeout = wishes.pop("model", None), wishes.pop("timeout", None)
        return await self._exchange(wire.generate_exchange(content, wishes, model=model or self._model), timeout)

    def stream(self, content: Conversation, **wishes: Unpack[Wishes]) -> AsyncReplyStream:
        """The same, while it is being made: `async with client.stream("draw a fox") as stream:`. Leaving the block stops it."""
        model, timeout = wishes.pop("model", None), wishes.pop("timeout", None)
        exchange = wire.stream_exchange(content, wishes, model=model or self._model)

        async def open() -> tuple[httpx.Response, str]:
            request_id = new_request_id()
            return await self._send(exchange, request_id, timeout, streamed=True), request_id

        return AsyncReplyStream(open, self._connection)

    async def speak(
        self,
        text: str,
        *,
        voice: str | None = None,
        format: AudioFormat = "wav",
        model: str | None = None,
        timeout: float | None = None,
    ) -> Audio:
        """Reads `text` aloud, up to 4096 characters. What the model really said is in `transcript`, where it is not too
        long."""
        return await self._exchange(wire.speak_exchange(text, model=model or self._model, voice=voice, format=format), timeout)

    async def transcribe(
        self,
        recording: Recording,
        *,
        language: str | None = None,
        temperature: float | None = None,
        model: str | None = None,
        timeout: float | None = None,
    ) -> Transcript:
        """Writes down what is said in a recording: a path, bytes, an open file, an Audio or a tuple (waveform, sample_rate).
        `language` is a short name such as `en` and chooses how the model is asked."""
        exchange = wire.transcribe_exchange(
            recording, task="transcriptions", model=model or self._model, language=language, temperature=temperature
        )
        return await self._exchange(exchange, timeout)

    async def translate(
        self,
        recording: Recording,
        *,
        temperature: float | None = None,
        model: str | None = None,
        timeout: float | None = None,
    ) -> Transcript:
        """Writes down in English what is said in a recording in another language."""
        exchange = wire.transcribe_exchange(
            recording, task="translations", model=model or self._model, language=None, temperature=temperature
        )
        return await self._exchange(exchange, timeout)

    async def draw(
        self,
        prompt: str,
        *,
        seed: int | None = None,
        size: str | None = None,
        format: PictureFormat = "png",
        model: str | None = None,
        timeout: float | None = None,
    ) -> Picture:
        """One picture. The same `seed` draws it again; `size` is `auto`, what the decoder draws, or such as `512x512`."""
        return (await self.draw_many(prompt, 1, seed=seed, size=size, format=format, model=model, timeout=timeout))[0]

    async def draw_many(
        self,
        prompt: str,
        count: int,
        *,
        seed: int | None = None,
        size: str | None = None,
        format: PictureFormat = "png",
        model: str | None = None,
        timeout: float | None = None,
    ) -> tuple[Picture, ...]:
        """`count` pictures, 1 to 10, of one prompt; picture k has the seed `seed` + k."""
        looks = wire_media.Looks(count, seed, size, format)
        exchange = wire_media.draw_exchange(prompt, looks, model=model or self._model)
        return await self._exchange(exchange, timeout)

    async def edit(
        self,
        pictures: Drawn | Sequence[Drawn],
        prompt: str,
        *,
        seed: int | None = None,
        size: str | None = None,
        format: PictureFormat = "png",
        model: str | None = None,
        timeout: float | None = None,
    ) -> Picture:
        """Draws a picture, or several, in another way: `edit("fox.png", "draw this in the flat style")`. Each is a Picture, a
        path, bytes or a PIL image; `seed` and `size` are those of `draw`."""
        looks = wire_media.Looks(1, seed, size, format)
        exchange = wire_media.edit_exchange(pictures, prompt, looks, model=model or self._model)
        return (await self._exchange(exchange, timeout))[0]

    async def vary(
        self,
        picture: Drawn,
        count: int = 1,
        *,
        seed: int | None = None,
        size: str | None = None,
        format: PictureFormat = "png",
        model: str | None = None,
        timeout: float | None = None,
    ) -> tuple[Picture, ...]:
        """`count` other pictures, 1 to 10, of what a picture shows; picture k has the seed `seed` + k."""
        looks = wire_media.Looks(count, seed, size, format)
        exchange = wire_media.vary_exchange(picture, looks, model=model or self._model)
        return await self._exchange(exchange, timeout)

    def converse(self, source: Source | None = None, **wishes: Unpack[CallWishes]) -> AsyncCall:
        """A live conversation: `async with client.converse(source) as call:`. The source is an iterable of 16-bit mono
        samples in bytes, such as Microphone(), or an Audio, which is sent as fast as it would be spoken; without one, use
        `call.send`. Needs `pip install 'omni-server[client]'`."""
        setup = call_setup(self._connection, self._grpc_target, new_request_id(), source, wishes, self._model)
        return AsyncCall(setup, source)

    async def models(self, *, timeout: float | None = None) -> tuple[Model, ...]:
        """The models of the server and what each can do."""
        return await self._exchange(wire.models_exchange(), timeout)

    async def voices(self, *, model: str | None = None, timeout: float | None = None) -> tuple[str, ...]:
        """The voices of a model."""
        return wire.voices_of(await self.models(timeout=timeout), model or self._model)

    async def create_consent(self, name: str, recording: Recording, *, language: str, timeout: float | None = None) -> Consent:
        """Keeps a recording in which a person allows that their voice is taken; `language` is a tag such as `en-US`."""
        return await self._exchange(wire_media.create_consent_exchange(name, recording, language=language), timeout)

    async def consents(self, *, after: str | None = None, timeout: float | None = None) -> tuple[Consent, ...]:
        """The consents that are kept, up to 100, oldest first; `after` is the id of the last one seen."""
        return await self._exchange(wire_media.consents_exchange(after), timeout)

    async def delete_consent(self, consent: Consent | str, *, timeout: float | None = None) -> None:
        """Takes a consent back, and every voice that rests on it with it."""
        await self._exchange(wire_media.delete_consent_exchange(consent), timeout)

    async def create_voice(
        self, name: str, sample: Recording, *, consent: Consent | str, timeout: float | None = None
    ) -> ClonedVoice:
        """Makes a voice of a recording; its `id` is a `voice` in every request. Where the checkpoint takes no voices this is
        a BadRequestError with the code `unsupported_modality`."""
        return await self._exchange(wire_media.create_voice_exchange(name, sample, consent=consent), timeout)

    async def cloned_voices(self, *, timeout: float | None = None) -> tuple[ClonedVoice, ...]:
        """The voices that were made of recordings."""
        return await self._exchange(wire_media.cloned_voices_exchange(), timeout)

    async def delete_voice(self, voice: ClonedVoice | str, *, timeout: float | None = None) -> None:
        """Takes a voice that was made of a recording out of the server; the voices of a model stay."""
        await self._exchange(wire_media.delete_voice_exchange(voice), timeout)

    async def _exchange(self, exchange: Exchange[Answered], timeout: float | None) -> Answered:
        request_id = new_request_id()
        return exchange.read(read_answer(await self._send(exchange, request_id, timeout, streamed=False), request_id))

    async def _send(
        self, exchange: Exchange[Answered], request_id: str, timeout: float | None, *, streamed: bool
    ) -> httpx.Response:
        """A good response; of a streamed one the body is still to be read. Repeats what may be repeated."""
        if exchange.model is None:
            self._model = self._model or wire.first_of(await self.models())
            exchange = replace(exchange, model=self._model)
        attempt = 0
        while True:
            try:
                request = self._http.build_request(**self._connection.request(exchange, request_id, timeout))
                response = await self._http.send(request, stream=streamed)
                if response.is_success:
                    return response
                await response.aread()
                problem: APIError = read_error(response, request_id)
            except httpx.RequestError as fault:
                problem = self._connection.fault(fault, request_id)
            pause = self._connection.pause(attempt, problem)
            if pause is None:
                raise problem
            await asyncio.sleep(pause)
            attempt += 1
