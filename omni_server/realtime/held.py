"""Step 1. What holds in one call: the client's words, laid over each other, become the settings of a session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from omni_server.door import Door
from omni_server.errors import RequestError
from omni_server.instruction import check_model
from omni_server.listening import TurnSettings
from omni_server.live_audio import G711_RATE, Encoding
from omni_server.realtime.wire import ResponseFields, SessionFields, Tool
from omni_server.rest.chat_wire import VoiceId
from omni_server.rest.tool_choice import chosen
from omni_server.turns import SessionSettings
from omni_server.types import Modality, Thinking

RATE = 24_000
LAWS: Mapping[str, Encoding] = {"audio/pcmu": "mulaw", "audio/pcma": "alaw"}
EAGERNESS = {"low": 1200, "medium": 800, "auto": 800, "high": 500}  # milliseconds of silence
DETECTION = TurnSettings()

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sound:
    """How sound goes over the wire."""

    encoding: Encoding = "pcm16"
    sample_rate: int = RATE

    @property
    def body(self) -> Body:
        names = {encoding: name for name, encoding in LAWS.items()}
        return {"type": names[self.encoding]} if self.encoding in names else {"type": "audio/pcm", "rate": self.sample_rate}

    @property
    def live_body(self) -> Body:
        """As the Live wire has it."""
        return {**self.body, "rate": self.sample_rate}


@dataclass(frozen=True, slots=True)
class Held:
    """`said` is all that the client has said so far; the rest follows from it."""

    settings: SessionSettings
    sound_in: Sound = field(default_factory=Sound)
    sound_out: Sound = field(default_factory=Sound)
    said: SessionFields = field(default_factory=SessionFields)


def held_at_first(door: Door) -> Held:
    return hold(SessionFields(), door)


def hold_more(held: Held, more: SessionFields, door: Door) -> Held:
    """What a client does not say again stays as it was."""
    if more.model is not None:
        check_model(door, more.model)
    said = _laid_over(held.said.model_dump(exclude_unset=True), more.model_dump(exclude_unset=True))
    return hold(SessionFields.model_validate(said), door)


def hold(said: SessionFields, door: Door) -> Held:
    sound = said.audio
    heard = sound.input if sound is not None else None
    spoken = sound.output if sound is not None else None
    offer = door.pipeline.checkpoint
    aloud = Modality.AUDIO in offer.modalities_out
    settings = SessionSettings(
        modalities=frozenset({Modality.TEXT, Modality.AUDIO} if aloud else {Modality.TEXT}),
        voice=next(iter(offer.voices), None),
        turns=_turns(said, door),
        transcribes=heard is not None and heard.transcription is not None,
        language=heard.transcription.language if heard is not None and heard.transcription is not None else None,
        interim=False,
    )
    settings = _calling(_answered(settings, said), said)
    if spoken is not None:
        settings = replace(settings, voice=voice_of(spoken.voice) or settings.voice, speed=spoken.speed or 1.0)
    return Held(
        settings,
        sound_of(heard.format if heard is not None else None),
        sound_of(spoken.format if spoken is not None else None),
        said,
    )


def hold_for_one(held: Held, asked: ResponseFields) -> Held:
    """For a single response."""
    spoken = asked.audio.output if asked.audio is not None else None
    settings = _calling(_answered(held.settings, asked), asked, held.said)
    sound_out = held.sound_out
    if spoken is not None:
        settings = replace(settings, voice=voice_of(spoken.voice) or settings.voice, speed=spoken.speed or settings.speed)
        sound_out = sound_of(spoken.format) if spoken.format is not None else sound_out
    return replace(held, settings=settings, sound_out=sound_out)


def _answered(settings: SessionSettings, said: SessionFields | ResponseFields) -> SessionSettings:
    """What a session and a single response can both say."""
    given = said.model_fields_set
    sampling = settings.sampling
    if said.omni is not None:
        sampling = replace(sampling, **said.omni.model_dump(exclude_unset=True))
    if "max_output_tokens" in given:
        limit = said.max_output_tokens
        sampling = replace(sampling, max_tokens=limit if isinstance(limit, int) else None)
    settings = replace(settings, sampling=sampling)
    if said.output_modalities is not None:
        settings = replace(settings, modalities=_modalities(said.output_modalities))
    if said.instructions is not None:
        settings = replace(settings, instructions=said.instructions)
    if said.reasoning is not None and said.reasoning.effort is not None:
        settings = replace(settings, thinking=Thinking(said.reasoning.effort != "none"))
    return settings


def _calling(settings: SessionSettings, *said: SessionFields | ResponseFields) -> SessionSettings:
    """The tools, and which of them may or must be called; what the first does not say, the next does."""
    tools = next((each.tools for each in said if each.tools is not None), [])
    choice = next((each.tool_choice for each in said if each.tool_choice is not None), None)
    parallel = next((each.parallel_tool_calls for each in said if each.parallel_tool_calls is not None), None)
    offered, calling = chosen(choice, [_tool(tool) for tool in tools], parallel)
    return replace(settings, tools=offered, calling=calling)


def _modalities(names: Sequence[str]) -> frozenset[Modality]:
    if {"text", "audio"} <= set(names):
        told = '`output_modalities` holds `text` and `audio`; expected one of them: `["audio"]` brings its transcript along'
        raise RequestError(told, param="output_modalities")
    return frozenset(Modality(name) for name in names) | {Modality.TEXT}


def _turns(said: SessionFields, door: Door) -> TurnSettings:
    longest = min(door.settings.max_turn_seconds, door.settings.max_audio_seconds)
    heard = said.audio.input if said.audio is not None else None
    asked = heard.turn_detection if heard is not None else None
    if asked is None:
        by_hand = heard is not None and "turn_detection" in heard.model_fields_set
        return TurnSettings(automatic=not by_hand, longest_seconds=longest, answers=not by_hand)
    silence = EAGERNESS[asked.eagerness or "auto"] if asked.type == "semantic_vad" else DETECTION.silence_duration_ms
    return TurnSettings(
        threshold=asked.threshold if asked.threshold is not None else DETECTION.threshold,
        prefix_padding_ms=_or(asked.prefix_padding_ms, DETECTION.prefix_padding_ms),
        silence_duration_ms=_or(asked.silence_duration_ms, silence),
        interrupts=asked.interrupt_response is not False,
        answers=asked.create_response is not False,
        longest_seconds=longest,
    )


def _or(given: int | None, default: int) -> int:
    return default if given is None else given


def sound_of(asked: Any) -> Sound:
    if asked is None:
        return Sound()
    law = LAWS.get(asked.type)
    return Sound(law, G711_RATE) if law is not None else Sound("pcm16", asked.rate or RATE)


def voice_of(voice: str | VoiceId | None) -> str | None:
    return voice.id if isinstance(voice, VoiceId) else voice


def _tool(tool: Tool) -> Body:
    """As chat has it, which is what chat templates know."""
    return {"type": "function", "function": tool.model_dump(exclude={"type"}, exclude_none=True)}


WHOLE = {
    "format",
    "transcription",
    "turn_detection",
    "noise_reduction",
    "voice",
    "reasoning",
    "prompt",
    "tracing",
    "tool_choice",
}


def _laid_over(below: Body, above: Body) -> Body:
    """Objects are laid over each other key by key; those in WHOLE, and all that is no object, replace what was there."""
    merged = dict(below)
    for name, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _laid_over(merged[name], value) if both and name not in WHOLE else value
    return merged


def session_body(held: Held, id: str, door: Door) -> Body:
    """Everything that holds, as the client is told."""
    settings, said = held.settings, held.said
    told = said.model_dump(include={"tool_choice"}, exclude_none=True)
    sampling = settings.sampling
    heard = said.audio.input if said.audio is not None else None
    transcription = heard.transcription if heard is not None else None
    detection = heard.turn_detection if heard is not None else None
    turns = settings.turns
    kind = detection.type if detection is not None else "server_vad"
    found: Body = {
        "type": kind,
        "create_response": turns.answers,
        "interrupt_response": turns.interrupts,
        "threshold": turns.threshold,
        "prefix_padding_ms": turns.prefix_padding_ms,
        "silence_duration_ms": turns.silence_duration_ms,
    }
    if kind == "semantic_vad":
        found["eagerness"] = (detection.eagerness if detection is not None else None) or "auto"
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": id,
        "model": door.model,
        "output_modalities": modality_names(settings),
        "instructions": settings.instructions,
        "audio": {
            "input": {
                "format": held.sound_in.body,
                "transcription": transcription.model_dump(exclude_none=True) if transcription is not None else None,
                "noise_reduction": None,
                "turn_detection": found if turns.automatic else None,
            },
            "output": {"format": held.sound_out.body, "voice": settings.voice, "speed": settings.speed},
        },
        "tools": [tool.model_dump(exclude_none=True) for tool in said.tools or ()],
        "tool_choice": told.get("tool_choice", "auto"),
        "parallel_tool_calls": said.parallel_tool_calls is not False,
        "max_output_tokens": sampling.max_tokens or "inf",
        "truncation": "auto",
        "tracing": None,
        "prompt": None,
        "include": None,
        "omni": {name: getattr(sampling, name) for name in ("temperature", "top_p", "top_k", "seed")},
    }


def modality_names(settings: SessionSettings) -> list[str]:
    """OpenAI's way: words are not named beside a voice, for they are its transcript."""
    spoken = Modality.AUDIO in settings.modalities
    return ["audio" if spoken else "text", *(["image"] if Modality.IMAGE in settings.modalities else [])]
