"""Step 1. The shapes of the Live wire's client events, read strictly; says nothing about what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from omni_server.realtime.wire import NOT_YET, ClientEvent, Extension, Format, read_known
from omni_server.rest.fields import JsonFields, Voice, Words, only


class LiveVoice(JsonFields):
    voice: Voice | None = None


class LiveSound(JsonFields):
    """One format for both directions."""

    format: Format | None = None
    output: LiveVoice | None = None


class LiveWords(JsonFields):
    type: Literal["input_text", "text", "output_text"] | None = None
    text: str


class LiveItem(JsonFields):
    """`id` and `status` are without effect."""

    type: Literal["message"] | None = None
    role: Literal["developer", "user", "assistant"]
    content: Annotated[list[LiveWords], Field(min_length=1)]
    id: Any = None
    status: Any = None


class Delegation(JsonFields):
    """Nothing is delegated here."""

    delegation: Annotated[Any, only(because=NOT_YET)] = None
    triggers: Annotated[Any, only([], because=NOT_YET)] = None


class LiveFields(Delegation):
    """`safety_identifier` is without effect."""

    model: str
    audio: LiveSound | None = None
    instructions: str | None = None
    input: Annotated[list[LiveItem], Field(max_length=128)] | None = None
    omni: Extension | None = None
    safety_identifier: Any = None
    store: Annotated[Any, only(False, because=NOT_YET)] = None
    client: Annotated[Any, only(because=NOT_YET)] = None


class SessionStart(ClientEvent):
    session: LiveFields


class LiveUpdate(ClientEvent):
    session: Delegation


class AudioAppend(ClientEvent):
    audio: str


class AudioMute(ClientEvent):
    pass


class AudioUnmute(ClientEvent):
    pass


class InstructionsAppend(ClientEvent):
    content: Words
    delegation_id: Annotated[Any, only(because=NOT_YET)] = None


class CommentaryAppend(ClientEvent):
    content: Words
    delegation_id: Annotated[Any, only(because=NOT_YET)] = None


class LiveResponse(ClientEvent):
    pass


class SessionClose(ClientEvent):
    pass


EVENTS: Mapping[str, type[ClientEvent]] = {
    "session.start": SessionStart,
    "session.update": LiveUpdate,
    "session.input_audio.append": AudioAppend,
    "session.input_audio.mute": AudioMute,
    "session.input_audio.unmute": AudioUnmute,
    "session.instructions.append": InstructionsAppend,
    "session.commentary.append": CommentaryAppend,
    "response.create": LiveResponse,
    "session.close": SessionClose,
}


def read_live_event(given: Mapping[str, Any]) -> ClientEvent:
    return read_known(given, EVENTS)
