"""The client. Sends what `wire.py` builds and hands back what it reads; repeats what may be repeated; knows no formats."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar, Unpack

import httpx

from omni_client import wire, wire_media
from omni_client.call import Call
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
from omni_client.stream import ReplyStream
from omni_client.wire import AudioFormat, Exchange, Generation, Model, PictureFormat, Transcript, Wishes
from omni_client.wire_media import ClonedVoice, Consent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omni_client.content import Conversation, Drawn, Recording

Answered = TypeVar("Answered")


class OmniClient:
    """Asks an omni-server. Safe to share between threads; close it, or use it in a `with` block.

    base_url: where the server is, with or without `/v1`; `OMNI_BASE_URL`, else http://127.0.0.1:8000.
    api_key: sent as a bearer token; `OMNI_API_KEY`, else none.
    ca_file: a PEM file of whom to trust, for a server with a certificate of its own making; `OMNI_CA_FILE`, else the usual.
    model: the model of calls that name none; the first one of the server, else.
    timeout: seconds without an answer, or between two pieces of one, until APITimeoutError.
    max_retries: how often a request is repeated that did not reach the server, or that the server could not take now, with
        growing pauses or the pause that the server asks for. A reply that has begun is never repeated.
    grpc_target: host and port of gRPC, for `converse`; `OMNI_GRPC_TARGET`, else one port above that of base_url.
    http_client: an httpx.Client of your own, for proxies or certificates; it stays yours to close.
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
        http_client: httpx.Client | None = None,
    ) -> None:
        self._connection = connection_from(base_url, api_key, ca_file, timeout, max_retries)
        self._model = model
        self._grpc_target = grpc_target or os.environ.get("OMNI_GRPC_TARGET")
        self._http = http_client or httpx.Client(verify=self._connection.verify)
        self._owned = http_client is None

    def __enter__(self) -> OmniClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections to the server."""
        if self._owned:
            self._http.close()

    def generate(self, content: Conversation, **wishes: Unpack[Generation]) -> Reply:
        """Answers `content`: words, a Path, bytes, a Picture, an Audio, a PIL image, a tuple (waveform, sample_rate); a list
        of these as one turn; or a list of turns that holds earlier Replies, Messages or dicts: `["draw a fox", reply, "what
        is this?"]`. See `Generation` for the wishes."""
        model, timeout = wishes.pop("model", None), wishes.pop("timeout", None)
        return self._exchange(wire.generate_exchange(content, wishes, model=model or self._model), timeout)

    def stream(self, content: Conversation, **wishes: Unpack[Wishes]) -> ReplyStream:
        """The same, while it is being made: `with client.stream("draw a fox") as stream:`. Leaving the block stops it."""
        model, timeout = wishes.pop("model", None), wishes.pop("timeout", None)
        exchange = wire.stream_exchange(content, wishes, model=model or self._model)

        def open() -> tuple[httpx.Response, str]:
            request_id = new_request_id()
            return self._send(exchange, request_id, timeout, streamed=True), request_id

        return ReplyStream(open, self._connection)

    def speak(
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
        return self._exchange(wire.speak_exchange(text, model=model or self._model, voice=voice, format=format), timeout)

    def transcribe(
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
        return self._exchange(exchange, timeout)

    def translate(
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
        return self._exchange(exchange, timeout)

    def draw(
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
        return self.draw_many(prompt, 1, seed=seed, size=size, format=format, model=model, timeout=timeout)[0]

    def draw_many(
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
        return self._exchange(exchange, timeout)

    def edit(
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
        return self._exchange(exchange, timeout)[0]

    def vary(
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
        return self._exchange(exchange, timeout)

    def converse(self, source: Source | None = None, **wishes: Unpack[CallWishes]) -> Call:
        """A live conversation: `with client.converse(source) as call:`. The source is an iterable of 16-bit mono
        samples in bytes, such as Microphone(), or an Audio, which is sent as fast as it would be spoken; without one, use
        `call.send`. Needs `pip install 'omni-server[client]'`."""
        setup = call_setup(self._connection, self._grpc_target, new_request_id(), source, wishes, self._model)
        return Call(setup, source)

    def models(self, *, timeout: float | None = None) -> tuple[Model, ...]:
        """The models of the server and what each can do."""
        return self._exchange(wire.models_exchange(), timeout)

    def voices(self, *, model: str | None = None, timeout: float | None = None) -> tuple[str, ...]:
        """The voices of a model."""
        return wire.voices_of(self.models(timeout=timeout), model or self._model)

    def create_consent(self, name: str, recording: Recording, *, language: str, timeout: float | None = None) -> Consent:
        """Keeps a recording in which a person allows that their voice is taken; `language` is a tag such as `en-US`."""
        return self._exchange(wire_media.create_consent_exchange(name, recording, language=language), timeout)

    def consents(self, *, after: str | None = None, timeout: float | None = None) -> tuple[Consent, ...]:
        """The consents that are kept, up to 100, oldest first; `after` is the id of the last one seen."""
        return self._exchange(wire_media.consents_exchange(after), timeout)

    def delete_consent(self, consent: Consent | str, *, timeout: float | None = None) -> None:
        """Takes a consent back, and every voice that rests on it with it."""
        self._exchange(wire_media.delete_consent_exchange(consent), timeout)

    def create_voice(
        self, name: str, sample: Recording, *, consent: Consent | str, timeout: float | None = None
    ) -> ClonedVoice:
        """Makes a voice of a recording; its `id` is a `voice` in every request. Where the checkpoint takes no voices this is
        a BadRequestError with the code `unsupported_modality`."""
        return self._exchange(wire_media.create_voice_exchange(name, sample, consent=consent), timeout)

    def cloned_voices(self, *, timeout: float | None = None) -> tuple[ClonedVoice, ...]:
        """The voices that were made of recordings."""
        return self._exchange(wire_media.cloned_voices_exchange(), timeout)

    def delete_voice(self, voice: ClonedVoice | str, *, timeout: float | None = None) -> None:
        """Takes a voice that was made of a recording out of the server; the voices of a model stay."""
        self._exchange(wire_media.delete_voice_exchange(voice), timeout)

    def _exchange(self, exchange: Exchange[Answered], timeout: float | None) -> Answered:
        request_id = new_request_id()
        return exchange.read(read_answer(self._send(exchange, request_id, timeout, streamed=False), request_id))

    def _send(self, exchange: Exchange[Answered], request_id: str, timeout: float | None, *, streamed: bool) -> httpx.Response:
        """A good response; of a streamed one the body is still to be read. Repeats what may be repeated."""
        if exchange.model is None:
            self._model = self._model or wire.first_of(self.models())
            exchange = replace(exchange, model=self._model)
        attempt = 0
        while True:
            try:
                request = self._http.build_request(**self._connection.request(exchange, request_id, timeout))
                response = self._http.send(request, stream=streamed)
                if response.is_success:
                    return response
                response.read()
                problem: APIError = read_error(response, request_id)
            except httpx.RequestError as fault:
                problem = self._connection.fault(fault, request_id)
            pause = self._connection.pause(attempt, problem)
            if pause is None:
                raise problem
            time.sleep(pause)
            attempt += 1
