"""The only home of stand-ins. Each one stands for a joint and keeps that joint's promises."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import PIL.Image
import torch

from omni_server.cloned_voices import ClonedVoices
from omni_server.config import Settings, UrlPolicy
from omni_server.drain import Drain
from omni_server.errors import EngineUnavailable, OmniError, StorageUnavailable
from omni_server.fetch import UrlFetcher
from omni_server.lanes import Lane
from omni_server.measures import Measures
from omni_server.media import MediaLoader
from omni_server.media_places import Folder
from omni_server.prompt import Prompter
from omni_server.types import (
    REPLIES,
    AudioPart,
    DecodeOptions,
    Event,
    ImagePart,
    MediaSource,
    Message,
    Modality,
    Picture,
    Prompt,
    Request,
    Sampling,
    Speech,
    TokenChunk,
)


@dataclass(frozen=True, slots=True)
class ScriptedCheckpoint:
    """The facts of a checkpoint that a door looks at."""

    name: str = "omni-scripted"
    modalities_in: frozenset[Modality] = REPLIES
    modalities_out: frozenset[Modality] = REPLIES
    voices: tuple[str, ...] = ("mint", "sage")
    clones_voices: bool = False
    sample_rate: int = 24_000
    context_length: int = 4096
    turns: int = 0
    prompts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class Forever:
    """A step of a script at which the reply never goes on."""


class ScriptedPipeline:
    """Replays `script` for every request: events in order, an exception to raise, or `Forever`.

    `refusal` is raised on entering, as a wrong request is. With a `loader` it loads the request's media too.
    """

    def __init__(
        self,
        *script: Event | Exception | Forever,
        refusal: OmniError | None = None,
        loader: MediaLoader | None = None,
        modalities: dict[str, bool] | None = None,
    ) -> None:
        self.checkpoint = ScriptedCheckpoint()
        self.cloned = ClonedVoices()
        self.measures = Measures()
        self.script = script
        self.refusal = refusal
        self.loader = loader
        self.modalities = modalities or {"text": True, "image": True, "audio": True}
        self.drain = Drain()
        self.requests: list[Request] = []
        self.warmed: list[Request] = []
        self.media: list[Picture | Speech] = []
        self.running = 0
        self.left = 0

    @asynccontextmanager
    async def respond(self, request: Request) -> AsyncIterator[AsyncIterator[Event]]:
        self.requests.append(request)
        self.drain.check()
        if self.refusal is not None:
            raise self.refusal
        self.running += 1
        try:
            await self._load(request)
            yield self._events()
        finally:
            await asyncio.sleep(0)  # clean-up of the real one waits too; it must get the time
            self.running -= 1
            self.left += 1

    def check(self, request: Request) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def prepare(self, part: ImagePart | AudioPart) -> None:
        await self._load(Request("prepare", (Message("user", (part,)),)))

    async def speech(self, source: MediaSource) -> Speech:
        loader = self.loader or MediaLoader(Settings().media_limits, UrlFetcher(UrlPolicy()))
        return await asyncio.to_thread(loader.speech, source)

    async def warm(self, request: Request) -> None:
        self.warmed.append(request)

    async def ready(self) -> dict[str, bool]:
        return {name: up and not self.drain.leaving for name, up in self.modalities.items()}

    async def _events(self) -> AsyncIterator[Event]:
        for step in self.script:
            match step:
                case Forever():
                    await asyncio.Event().wait()
                case Exception():
                    raise step
                case _:
                    yield step

    async def _load(self, request: Request) -> None:
        for part in (part for message in request.messages for part in message.parts):
            if self.loader is None or not isinstance(part, ImagePart | AudioPart):
                continue
            load = self.loader.picture if isinstance(part, ImagePart) else self.loader.speech
            self.media.append(await asyncio.to_thread(load, await self.loader.fetch(part.source)))


class ScriptedBackbone:
    """A Backbone that says `chunks`, of token ids or whole, or raises where one is an exception; counts what is unfinished."""

    cache_tokens = 4096

    def __init__(self, *chunks: Sequence[int] | TokenChunk | Exception | Forever) -> None:
        self.chunks = chunks
        self.prompts: list[Prompt] = []
        self.unfinished = 0
        self.spoken = 0

    async def stream(
        self, request_id: str, prompt: Prompt, sampling: Sampling, modalities: frozenset[Modality]
    ) -> AsyncGenerator[TokenChunk, None]:
        self.prompts.append(prompt)
        self.unfinished += 1
        try:
            for number, chunk in enumerate(self.chunks, start=1):
                await asyncio.sleep(0)
                match chunk:
                    case Forever():
                        await asyncio.Event().wait()
                    case Exception():
                        raise chunk
                    case TokenChunk():
                        yield chunk
                    case _:
                        self.spoken = number
                        yield TokenChunk(tuple(chunk), "stop" if number == len(self.chunks) else None)
        finally:
            self.unfinished -= 1

    async def check(self) -> None:
        return

    async def close(self) -> None:
        return


class ScriptedDecoder:
    """A Decoder whose spans give `output(codes)` for each feed and at the end."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault
        self.fed: list[list[int]] = []

    def open(self, options: DecodeOptions) -> ScriptedDecoder:
        return self

    def feed(self, item: Sequence[int]) -> list[object]:
        if self.fault is not None:
            raise self.fault
        self.fed.append(list(item))
        return [list(item)]

    def finish(self) -> list[object]:
        return [[code for codes in self.fed for code in codes]]


class LoudEars:
    """Ears for which a voice is whatever is loud."""

    def __init__(self) -> None:
        self.lane = Lane("loud")
        self.opened = 0

    def open(self) -> LoudEars:
        self.opened += 1
        return self

    def close(self, stream: object) -> None:
        self.opened -= 1

    def feed(self, window: np.ndarray) -> float:
        return 1.0 if float(np.abs(window).max()) > 0.1 else 0.0


class GatedBackbone(ScriptedBackbone):
    """A ScriptedBackbone that waits at `gate` before its first chunk."""

    def __init__(self, *chunks: Sequence[int] | Exception | Forever) -> None:
        super().__init__(*chunks)
        self.gate = asyncio.Event()

    async def stream(
        self, request_id: str, prompt: Prompt, sampling: Sampling, modalities: frozenset[Modality]
    ) -> AsyncGenerator[TokenChunk, None]:
        async with aclosing(super().stream(request_id, prompt, sampling, modalities)) as chunks:
            self.unfinished += 1
            try:
                await self.gate.wait()
            finally:
                self.unfinished -= 1
            async for chunk in chunks:
                yield chunk


class MortalBackbone:
    """A Backbone that says one token after another until it is killed, hangs or is closed."""

    def __init__(self) -> None:
        self.hung = self.closed = False
        self._dead = asyncio.Event()

    def kill(self) -> None:
        self._dead.set()

    async def stream(
        self, request_id: str, prompt: Prompt, sampling: Sampling, modalities: frozenset[Modality]
    ) -> AsyncGenerator[TokenChunk, None]:
        while True:
            await asyncio.sleep(0)
            if self.hung:
                await self._dead.wait()
            await self.check()
            yield TokenChunk((104,))

    async def check(self) -> None:
        if self._dead.is_set():
            raise EngineUnavailable("the engine has stopped")

    async def close(self) -> None:
        self.closed = True
        self._dead.set()


class HandClock:
    """A clock that goes on only when a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class FaultyDecoder:
    """A Decoder of real media whose faults can be switched: `error` is raised, `hold` keeps every call, `output` is given in
    place of what it should have made."""

    def __init__(self, modality: Modality) -> None:
        self.modality = modality
        self.error: Exception | None = None
        self.hold: threading.Event | None = None
        self.output: list[object] | None = None

    def open(self, options: DecodeOptions) -> FaultyDecoder:
        return self

    def feed(self, item: Sequence[int]) -> list[object]:
        return self._faulty([np.zeros(10 * len(item), np.float32)] if self.modality is Modality.AUDIO else [])

    def finish(self) -> list[object]:
        voice = self.modality is Modality.AUDIO
        return self._faulty([np.zeros(10, np.float32)] if voice else [PIL.Image.new("RGB", (8, 8))])

    def _faulty(self, made: list[object]) -> list[object]:
        if self.hold is not None:
            self.hold.wait(20)
        if self.error is not None:
            raise self.error
        return made if self.output is None else self.output


class ScriptedNames:
    """A resolver that gives each name its answers one after another, the last one for ever; numbers are what the system reads
    them as. Names that are not in the script are not known."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): list(given) for name, given in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if given := self.answers.get(host):
            return given.pop(0) if len(given) > 1 else given[0]
        flags = 0 if host == "localhost" else socket.AI_NUMERICHOST
        return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)]


class ScriptedInternet(httpx.AsyncBaseTransport):
    """Answers for the addresses of the script, sends everything else over the real network, and keeps what was sent where."""

    def __init__(self, **answers: httpx.Response) -> None:
        self.answers = answers
        self.sent: list[str] = []
        self._real = httpx.AsyncHTTPTransport(verify=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request.url.host)
        return self.answers.get(request.url.host) or await self._real.handle_async_request(request)

    async def aclose(self) -> None:
        await self._real.aclose()


class Lever:
    """One fault at one step of a request: `kill` raises, `hang` keeps it until `release`, `slow` takes its time, `corrupt`
    hands on nonsense. Each joint below asks at each of its steps."""

    def __init__(self, step: str, fault: str) -> None:
        self.step, self.fault = step, fault
        self.release = threading.Event()
        self.met = 0

    def corrupts(self, step: str) -> bool:
        """In the thread of a step."""
        if step != self.step:
            return False
        self.met += 1
        if self.fault == "kill":
            raise RuntimeError(f"{step} was killed")
        if self.fault == "hang":
            self.release.wait(20)
        if self.fault == "slow":
            time.sleep(0.05)
        return self.fault == "corrupt"


class LeveredInternet(httpx.AsyncBaseTransport):
    """Gives one picture to whoever asks. Killed, the connection breaks off midway; nonsense is a page in place of a picture."""

    def __init__(self, lever: Lever, picture: bytes) -> None:
        self._lever, self._picture = lever, picture

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._lever.step == "fetch":
            self._lever.met += 1
            match self._lever.fault:
                case "kill":
                    return httpx.Response(200, stream=BrokenStream(self._picture[:20]))
                case "hang":
                    await asyncio.Event().wait()
                case "slow":
                    await asyncio.sleep(0.05)
                case _:
                    return httpx.Response(200, headers={"content-type": "text/html"}, stream=httpx.ByteStream(b"<html>"))
        return httpx.Response(200, headers={"content-type": "image/png"}, stream=httpx.ByteStream(self._picture))


class BrokenStream(httpx.AsyncByteStream):
    """The beginning of a body, after which the connection is gone."""

    def __init__(self, begun: bytes) -> None:
        self._begun = begun

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._begun
        raise httpx.ReadError("the connection is gone")


class LeveredPlace(Folder):
    """Killed, it is gone; nonsense is a file that is cut off."""

    def __init__(self, lever: Lever) -> None:
        super().__init__()
        self._lever = lever

    async def put(self, name: str, file: bytes, media_type: str) -> None:
        if self._lever.step == "store":
            self._lever.met += 1
            match self._lever.fault:
                case "kill":
                    raise StorageUnavailable("a file of this answer could not be stored: the disk is gone")
                case "hang":
                    await asyncio.Event().wait()
                case "slow":
                    await asyncio.sleep(0.05)
                case _:
                    file = file[: len(file) // 2]
        await super().put(name, file, media_type)


class LeveredLoader(MediaLoader):
    """Nonsense is a file that is cut off."""

    def __init__(self, loader: MediaLoader, lever: Lever) -> None:
        super().__init__(loader._limits, loader._fetch)
        self._lever = lever

    def picture(self, source: MediaSource) -> Picture:
        return super().picture(replace(source, data=b"\x89PNG") if self._lever.corrupts("load") else source)

    def speech(self, source: MediaSource) -> Speech:
        return super().speech(replace(source, data=b"RIFF") if self._lever.corrupts("load") else source)


class LeveredEye:
    """Encoder and codebook in one; nonsense is embeddings that are not numbers, and a code of no codebook."""

    size = 10

    def __init__(self, lever: Lever) -> None:
        self._lever = lever

    @property
    def encoder(self) -> Any:
        return SimpleNamespace(encode=lambda media: torch.full((2, 8), torch.nan if self._lever.corrupts("encode") else 0.0))

    @property
    def codebook(self) -> Any:
        return SimpleNamespace(size=10, encode=lambda media: [99 if self._lever.corrupts("look up") else 0] * 6)


class LeveredPrompter:
    """Nonsense is no prompt at all."""

    def __init__(self, prompter: Prompter, lever: Lever) -> None:
        self._prompter, self._lever = prompter, lever

    def build(self, *given: Any, **more: Any) -> Any:
        return None if self._lever.corrupts("prompt") else self._prompter.build(*given, **more)


class LeveredBackbone(MortalBackbone):
    """Says `chunks`; its steps are `backbone 0`, ... before each of them. Nonsense is `misplaced`, a token that
    cannot stand there."""

    def __init__(self, lever: Lever, misplaced: int, *chunks: Sequence[int]) -> None:
        super().__init__()
        self._lever, self._misplaced, self._chunks = lever, misplaced, chunks

    async def stream(
        self, request_id: str, prompt: Prompt, sampling: Sampling, modalities: frozenset[Modality]
    ) -> AsyncGenerator[TokenChunk, None]:
        for number, chunk in enumerate(self._chunks):
            await self.check()
            if self._lever.step == f"backbone {number}":
                chunk = await self._met(chunk)
            yield TokenChunk(tuple(chunk), "stop" if number == len(self._chunks) - 1 else None)

    async def _met(self, chunk: Sequence[int]) -> Sequence[int]:
        self._lever.met += 1
        match self._lever.fault:
            case "kill":
                self.kill()
                await self.check()
            case "hang":
                await self._dead.wait()
                await self.check()
            case "slow":
                await asyncio.sleep(0.05)
            case "corrupt":
                return (self._misplaced,)
        return chunk


class LeveredDecoder(FaultyDecoder):
    """Nonsense is sound that is not numbers, or a picture without pixels."""

    def __init__(self, modality: Modality, lever: Lever) -> None:
        super().__init__(modality)
        self._lever = lever

    def open(self, options: DecodeOptions) -> FaultyDecoder:
        self._lever.corrupts(f"{self.modality} open")
        return self

    def feed(self, item: Sequence[int]) -> list[object]:
        return self._spoilt(f"{self.modality} feed", super().feed(item))

    def finish(self) -> list[object]:
        return self._spoilt(f"{self.modality} finish", super().finish())

    def _spoilt(self, step: str, made: list[object]) -> list[object]:
        if not self._lever.corrupts(step):
            return made
        return [np.array([np.nan])] if self.modality is Modality.AUDIO else [PIL.Image.new("RGB", (0, 0))]
