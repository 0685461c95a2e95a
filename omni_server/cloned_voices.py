"""Step 7. Voices that were made of recordings, and the consents that they rest on, each its owner's. Kept in a folder.

Bounded in number. A consent that is withdrawn takes its voices with it. Whether a recording really says that its speaker agrees
is not looked into: it is kept, so that a person can.
"""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from omni_server.errors import ConfigError, MediaError, MediaNotFound, RequestError
from omni_server.types import Request, Speech
from omni_server.wording import shown

MOST_OF_ONE, MOST = 20, 200  # consents, and as many voices, of one owner and of all
SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 30.0  # of a recording whose voice is taken
SHORTEST_OWN_SECONDS = 0.5  # of a recording in a conversation, whose voice the model answers with
QUIETEST = 1e-3  # root mean square, full scale 1


@dataclass(frozen=True, slots=True)
class Consent:
    id: str
    owner: str
    name: str
    language: str
    created_at: int


@dataclass(frozen=True, slots=True)
class ClonedVoice:
    id: str
    owner: str
    name: str
    consent: str
    created_at: int


Kept = TypeVar("Kept", Consent, ClonedVoice)


class ClonedVoices:
    """Its methods wait for the disk, all but `known` and `spoken`; many threads may call them at once."""

    def __init__(self, folder: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        """Without a `folder` everything ends with this object. Raises ConfigError where the folder cannot be read."""
        self._clock = clock
        self._lock = threading.Lock()
        self._consents: dict[str, Consent] = {}
        self._voices: dict[str, ClonedVoice] = {}
        self._references: dict[str, np.ndarray] = {}  # float32 [n]
        self._folder = folder
        if folder is not None:
            self._load(folder)

    def known(self, voice: str) -> bool:
        return voice in self._references

    def spoken(self, request: Request) -> Request:
        """The request with the recording in place of the voice's id. Whoever knows the id may speak with it."""
        reference = self._references.get(request.decode.voice or "")
        if reference is None:
            return request
        return replace(request, decode=replace(request.decode, voice=None, reference=reference))

    def consents(self, owner: str) -> list[Consent]:
        """The newest first."""
        return [each for each in reversed(self._consents.values()) if each.owner == owner]

    def voices(self, owner: str) -> list[ClonedVoice]:
        """The newest first."""
        return [each for each in reversed(self._voices.values()) if each.owner == owner]

    def consent(self, owner: str, id: str) -> Consent:
        return _owned(self._consents, owner, id, "consent")

    def add_consent(self, owner: str, name: str, language: str, recording: bytes) -> Consent:
        consent = Consent(f"cons_{secrets.token_hex(16)}", owner, name, language, int(self._clock()))
        with self._lock:
            _check_room(self._consents, owner, "consents")
            (self._opened() / f"{consent.id}.recording").write_bytes(recording)
            self._write(consent)
            self._consents[consent.id] = consent
        return consent

    def rename_consent(self, owner: str, id: str, name: str) -> Consent:
        with self._lock:
            renamed = replace(self.consent(owner, id), name=name)
            self._write(renamed)
            self._consents[id] = renamed
        return renamed

    def add_voice(self, owner: str, name: str, consent: str, speech: Speech, param: str) -> ClonedVoice:
        reference = _reference(speech, param)
        voice = ClonedVoice(f"voice_{secrets.token_hex(16)}", owner, name, consent, int(self._clock()))
        with self._lock:
            _owned(self._consents, owner, consent, "consent")
            _check_room(self._voices, owner, "voices")
            np.save(self._opened() / f"{voice.id}.npy", reference)
            self._write(voice)
            self._voices[voice.id], self._references[voice.id] = voice, reference
        return voice

    def delete_consent(self, owner: str, id: str) -> None:
        with self._lock:
            self.consent(owner, id)
            for voice in [each for each in self._voices.values() if each.consent == id]:
                self._forget(voice.id)
            self._forget(id)

    def delete_voice(self, owner: str, id: str) -> None:
        with self._lock:
            _owned(self._voices, owner, id, "voice")
            self._forget(id)

    def _forget(self, id: str) -> None:
        for name in (f"{id}.json", f"{id}.npy", f"{id}.recording"):
            (self._opened() / name).unlink(missing_ok=True)
        self._consents.pop(id, None)
        self._voices.pop(id, None)
        self._references.pop(id, None)

    def _write(self, kept: Consent | ClonedVoice) -> None:
        """Last of its files, and whole or not at all: what has no such file is not there."""
        half = self._opened() / f"{kept.id}.half"
        half.write_text(json.dumps(asdict(kept), ensure_ascii=False), encoding="utf-8")
        half.replace(self._opened() / f"{kept.id}.json")

    def _load(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            found = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
            for facts in sorted(found, key=lambda each: each["created_at"]):
                if facts["id"].startswith("cons_"):
                    self._consents[facts["id"]] = Consent(**facts)
                else:
                    self._voices[facts["id"]] = ClonedVoice(**facts)
                    self._references[facts["id"]] = np.load(folder / f"{facts['id']}.npy", allow_pickle=False)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            raise ConfigError(f"--voice-store is `{folder}`, which cannot be read: {problem}", param="--voice-store") from None

    def _opened(self) -> Path:
        """Only under the lock."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="omni-voices-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder


def _owned(all: dict[str, Kept], owner: str, id: str, kind: str) -> Kept:
    """Somebody else's is told like one that is not there."""
    found = all.get(id)
    if found is None or found.owner != owner:
        raise MediaNotFound(f"there is no {kind} {shown(id)}", param=kind)
    return found


def _check_room(all: dict[str, Kept], owner: str, kind: str) -> None:
    if len(all) >= MOST or sum(each.owner == owner for each in all.values()) >= MOST_OF_ONE:
        raise RequestError(f"this server keeps at most {MOST_OF_ONE} {kind} of one caller, and {MOST} of all; delete one first")


def _reference(speech: Speech, param: str) -> np.ndarray:
    if not SHORTEST_SECONDS <= speech.seconds <= LONGEST_SECONDS:
        raise MediaError(
            f"`{param}` holds `{speech.seconds:.2f}` seconds; expected {SHORTEST_SECONDS:g} to {LONGEST_SECONDS:g} of a voice",
            param=param,
        )
    return _audible(speech, param)


def own_voice(speech: Speech, param: str) -> np.ndarray:
    """The speaker's own recording as the voice of the answer, where the model chooses that. Raises MediaError."""
    if speech.seconds < SHORTEST_OWN_SECONDS:
        raise MediaError(
            f"the last recording in `{param}`, whose voice the model answers with, holds `{speech.seconds:.2f}` seconds; "
            f"expected at least {SHORTEST_OWN_SECONDS:g}, or a `voice` in the request",
            param=param,
        )
    return _audible(speech, param)


def _audible(speech: Speech, param: str) -> np.ndarray:
    loudness = float(np.sqrt(np.mean(np.square(speech.waveform))))
    if loudness < QUIETEST:
        raise MediaError(f"`{param}` is silent, with a loudness of `{loudness:.1e}`; expected a voice", param=param)
    return np.asarray(speech.waveform, np.float32)
