"""Steps 1 and 8. What every door stands on: the pipeline, the settings, and what was said aloud before."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from omni_server.access import Access
from omni_server.cloned_voices import ClonedVoices
from omni_server.config import Settings, StorePolicy
from omni_server.drain import Drain
from omni_server.measures import Measures
from omni_server.media_store import MediaStore
from omni_server.packets import PacketProcesses
from omni_server.types import AudioPart, Event, ImagePart, MediaSource, Modality, Request, Speech
from omni_server.vad import Ears, SileroEars


class Offer(Protocol):
    """What a checkpoint can take in and give out, and how it wants to be asked (prompt -> language -> wording)."""

    @property
    def name(self) -> str: ...
    @property
    def modalities_in(self) -> frozenset[Modality]: ...
    @property
    def modalities_out(self) -> frozenset[Modality]: ...
    @property
    def voices(self) -> tuple[str, ...]: ...
    @property
    def clones_voices(self) -> bool: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def context_length(self) -> int: ...
    @property
    def turns(self) -> int: ...
    @property
    def prompts(self) -> Mapping[str, Mapping[str, str]]: ...


class Responder(Protocol):
    """The pipeline, as far as a door can see it."""

    @property
    def checkpoint(self) -> Offer: ...
    @property
    def measures(self) -> Measures: ...
    @property
    def drain(self) -> Drain: ...
    @property
    def cloned(self) -> ClonedVoices: ...

    def respond(self, request: Request) -> AbstractAsyncContextManager[AsyncIterator[Event]]: ...
    def check(self, request: Request) -> None: ...
    async def prepare(self, part: ImagePart | AudioPart) -> None: ...
    async def speech(self, source: MediaSource) -> Speech: ...
    async def warm(self, request: Request) -> None: ...
    async def ready(self) -> dict[str, bool]: ...


class Transcripts:
    """What was said in each spoken answer, so that a later turn may name it by id. Bounded in number and in time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, limit: int = 10_000, lifetime: float = 3600.0) -> None:
        """`clock` decides what is forgotten; the time of day is only told, for it may jump."""
        self._clock = clock
        self._limit = limit
        self._lifetime = lifetime
        self._kept: OrderedDict[str, tuple[float, str]] = OrderedDict()  # id -> (forgotten at, transcript), oldest first

    def keep(self, audio_id: str, transcript: str) -> int:
        """The Unix time at which the transcript is forgotten."""
        self._kept[audio_id] = (self._clock() + self._lifetime, transcript)
        while len(self._kept) > self._limit:
            self._kept.popitem(last=False)
        return int(time.time() + self._lifetime)

    def find(self, audio_id: str) -> str | None:
        forgotten_at, transcript = self._kept.get(audio_id, (0.0, None))
        return transcript if forgotten_at > self._clock() else None


@dataclass(frozen=True, slots=True)
class Door:
    pipeline: Responder
    settings: Settings
    access: Access = field(default_factory=Access)
    transcripts: Transcripts = field(default_factory=Transcripts)
    ears: Ears = field(default_factory=SileroEars)
    media: MediaStore = field(default_factory=lambda: MediaStore(StorePolicy()))
    packets: PacketProcesses = field(default_factory=PacketProcesses)
    opened_at: int = field(default_factory=lambda: int(time.time()))

    @property
    def model(self) -> str:
        """The name that clients call the checkpoint by."""
        return self.settings.served_name or self.pipeline.checkpoint.name

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of adapters that are served beside the model, each as a model of its own."""
        return tuple(self.settings.lora_modules or ())
