"""Requests that make pictures, and voices out of recordings, as values. Builds and reads, sends nothing."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from omni_client.content import picture, recording
from omni_client.errors import ResponseFormatError
from omni_client.media import Picture
from omni_client.wire import Answer, Exchange, PictureFormat, json_of

if TYPE_CHECKING:
    from omni_client.content import Drawn, Recording

CONSENTS, VOICES = "/v1/audio/voice_consents", "/v1/audio/voices"
MOST_LISTED = 100

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Consent:
    """What a person said to allow that their voice is taken. `language` is a tag such as `en-US`; `created_at` is Unix time."""

    id: str
    name: str
    language: str
    created_at: int


@dataclass(frozen=True, slots=True)
class ClonedVoice:
    """A voice made of a recording: its `id` is a `voice` in every request. `consent` is the id of what it rests on, and goes
    with it; `created_at` is Unix time."""

    id: str
    name: str
    consent: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Looks:
    """How pictures are to look, in every request for some. What is None is left to the server."""

    count: int
    seed: int | None
    size: str | None
    format: PictureFormat

    def fields(self) -> dict[str, Any]:
        given = {"n": self.count, "output_format": self.format, "seed": self.seed, "size": self.size}
        return {name: value for name, value in given.items() if value is not None}

    def read(self, answer: Answer) -> tuple[Picture, ...]:
        def pictures(told: Any) -> tuple[Picture, ...]:
            if len(told["data"]) != self.count:
                raise ValueError(f"{len(told['data'])} instead of {self.count}")
            return tuple(
                Picture(base64.b64decode(one["b64_json"]), self.format, (one.get("omni") or {}).get("seed"))
                for one in told["data"]
            )

        return _read(answer, pictures, "no pictures")


def draw_exchange(prompt: str, looks: Looks, *, model: str | None) -> Exchange[tuple[Picture, ...]]:
    body = {"prompt": prompt, **looks.fields()}
    return Exchange("POST", "/v1/images/generations", looks.read, model, body)


def edit_exchange(
    given: Drawn | Sequence[Drawn], prompt: str, looks: Looks, *, model: str | None
) -> Exchange[tuple[Picture, ...]]:
    shown: Sequence[Any] = given if isinstance(given, list | tuple) else [given]
    files = tuple(("image", picture(one)) for one in shown)
    return Exchange("POST", "/v1/images/edits", looks.read, model, form=_form(prompt=prompt, **looks.fields()), files=files)


def vary_exchange(given: Drawn, looks: Looks, *, model: str | None) -> Exchange[tuple[Picture, ...]]:
    files = (("image", picture(given)),)
    return Exchange("POST", "/v1/images/variations", looks.read, model, form=_form(**looks.fields()), files=files)


def create_consent_exchange(name: str, given: Recording, *, language: str) -> Exchange[Consent]:
    files = (("recording", recording(given)),)
    form = _form(name=name, language=language)
    return Exchange("POST", CONSENTS, lambda answer: _read(answer, _consent, "no consent"), form=form, files=files)


def consents_exchange(after: str | None) -> Exchange[tuple[Consent, ...]]:
    page = f"?limit={MOST_LISTED}" + (f"&after={quote(after, safe='')}" if after is not None else "")

    def read(answer: Answer) -> tuple[Consent, ...]:
        return _read(answer, lambda told: tuple(map(_consent, told["data"])), "no list of consents")

    return Exchange("GET", CONSENTS + page, read)


def delete_consent_exchange(consent: Consent | str) -> Exchange[None]:
    return Exchange("DELETE", f"{CONSENTS}/{quote(_id(consent), safe='')}", lambda answer: None)


def create_voice_exchange(name: str, sample: Recording, *, consent: Consent | str) -> Exchange[ClonedVoice]:
    files = (("audio_sample", recording(sample)),)
    form = _form(name=name, consent=_id(consent), type="audio_sample")
    return Exchange("POST", VOICES, lambda answer: _read(answer, _voice, "no voice"), form=form, files=files)


def cloned_voices_exchange() -> Exchange[tuple[ClonedVoice, ...]]:
    def read(answer: Answer) -> tuple[ClonedVoice, ...]:
        def voices(told: Any) -> tuple[ClonedVoice, ...]:
            return tuple(_voice(one) for one in told["data"] if one["type"] != "built_in")

        return _read(answer, voices, "no list of voices")

    return Exchange("GET", VOICES, read)


def delete_voice_exchange(voice: ClonedVoice | str) -> Exchange[None]:
    return Exchange("DELETE", f"{VOICES}/{quote(_id(voice), safe='')}", lambda answer: None)


def _id(given: Consent | ClonedVoice | str) -> str:
    return given if isinstance(given, str) else given.id


def _form(**fields: object) -> dict[str, str]:
    return {name: str(value) for name, value in fields.items()}


def _consent(told: Any) -> Consent:
    return Consent(told["id"], told["name"], told["language"], told["created_at"])


def _voice(told: Any) -> ClonedVoice:
    return ClonedVoice(told["id"], told["name"], (told.get("omni") or {}).get("consent") or "", told["created_at"])


def _read(answer: Answer, read: Callable[[Any], Read], missing: str) -> Read:
    told = json_of(answer)
    try:
        return read(told)
    except (LookupError, TypeError, AttributeError, ValueError) as problem:
        message = f"the answer holds {missing}: {problem!r}"
        raise ResponseFormatError(message, request_id=answer.request_id, body=told) from None
