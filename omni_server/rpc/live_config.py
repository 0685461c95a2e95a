"""Step 1. `ConverseConfig`: how a live conversation is to be held, read, and told back with everything filled in."""

from __future__ import annotations

from dataclasses import dataclass, field

from omni.v1 import content_pb2, converse_pb2
from omni_server.door import Door
from omni_server.errors import RequestError
from omni_server.instruction import check_model
from omni_server.listening import TurnSettings
from omni_server.live_audio import HIGHEST_RATE, OPUS_RATES, FrameReader, PcmReader, check_rate
from omni_server.rpc.reading import (
    ENCODINGS,
    SoundFormat,
    read_drawing,
    read_format,
    read_messages,
    read_modalities,
    read_sampling,
    read_thinking,
    read_tools,
)
from omni_server.rpc.writing import MODALITIES
from omni_server.turns import SessionSettings
from omni_server.types import Modality

LIVE = ("pcm16", "opus_packets")
DEFAULT_INPUT_RATE = 16_000
LONGEST_MS = 10_000


@dataclass(slots=True)
class LiveConfig:
    """What holds in one call, and the message that says so."""

    settings: SessionSettings
    reader: FrameReader
    format: SoundFormat
    opus: bool  # what is heard comes as packets
    effective: converse_pb2.ConverseConfig = field(default_factory=converse_pb2.ConverseConfig)


def read_config(config: converse_pb2.ConverseConfig, door: Door) -> LiveConfig:
    if config.model:
        check_model(door, config.model)
    modalities = read_modalities(config.modalities) or frozenset({Modality.TEXT, Modality.AUDIO})
    tools, calling = read_tools(config.tools, config.tool_choice)
    settings = SessionSettings(
        modalities=modalities | {Modality.TEXT},
        instructions=config.instructions,
        history=read_messages(config.history, "history"),
        voice=config.voice or next(iter(door.pipeline.checkpoint.voices), None),
        sampling=read_sampling(config.sampling),
        turns=read_turns(config.turn_detection, door),
        transcribes=config.input_transcription,
        tools=tools,
        calling=calling,
        thinking=read_thinking(config.thinking),
        drawing=read_drawing(config.drawing),
    )
    format = read_format(config.output_audio, door, "output_audio")
    if format.encoding not in LIVE:
        raise RequestError("`output_audio.encoding` is a file; expected PCM_S16LE or OPUS", param="output_audio.encoding")
    live = LiveConfig(settings, read_reader(config.input_audio, "input_audio"), format, is_opus(config.input_audio))
    live.effective.CopyFrom(effective_config(config, live, door))
    return live


def read_turns(asked: converse_pb2.TurnDetection, door: Door) -> TurnSettings:
    given = {
        name: getattr(asked, name) for name in ("threshold", "prefix_padding_ms", "silence_duration_ms") if asked.HasField(name)
    }
    limits = {"threshold": (1e-3, 0.999), "prefix_padding_ms": (0, LONGEST_MS), "silence_duration_ms": (32, LONGEST_MS)}
    for name, value in given.items():
        least, most = limits[name]
        if not least <= value <= most:
            at = f"turn_detection.{name}"
            raise RequestError(f"`{at}` is `{value}`; expected {least:g} to {most:g}", param=at)
    return TurnSettings(
        automatic=asked.type != converse_pb2.TURN_DETECTION_TYPE_NONE,
        interrupts=asked.interrupt_response if asked.HasField("interrupt_response") else True,
        longest_seconds=min(door.settings.max_turn_seconds, door.settings.max_audio_seconds),
        **given,
    )


def is_opus(asked: content_pb2.AudioFormat) -> bool:
    return ENCODINGS.get(asked.encoding) == "opus_packets"


def read_reader(asked: content_pb2.AudioFormat, param: str) -> FrameReader:
    """Of samples: packets of Opus have become some before, in a process of their own."""
    encoding = ENCODINGS.get(asked.encoding)
    if encoding not in LIVE:
        at = f"{param}.encoding"
        raise RequestError(f"`{at}` is `{asked.encoding}`; expected PCM_S16LE or OPUS for live sound", param=at)
    rate = check_rate(asked.sample_rate_hertz or DEFAULT_INPUT_RATE, f"{param}.sample_rate_hertz")
    if is_opus(asked) and rate not in OPUS_RATES:
        rates = ", ".join(str(known) for known in OPUS_RATES)
        at = f"{param}.sample_rate_hertz"
        raise RequestError(f"`{at}` is `{rate}`; expected one of {rates} with Opus", param=at)
    return PcmReader(HIGHEST_RATE if is_opus(asked) else rate)


def effective_config(asked: converse_pb2.ConverseConfig, live: LiveConfig, door: Door) -> converse_pb2.ConverseConfig:
    """The client's own words with everything filled in, without the history."""
    config = converse_pb2.ConverseConfig()
    config.CopyFrom(asked)
    del config.history[:]
    turns, settings = live.settings.turns, live.settings
    config.model, config.voice = door.model, settings.voice or ""
    config.modalities[:] = sorted(MODALITIES[modality] for modality in settings.modalities)
    config.input_audio.encoding = config.input_audio.encoding or content_pb2.AUDIO_ENCODING_PCM_S16LE
    config.input_audio.sample_rate_hertz = live.reader.sample_rate
    config.output_audio.encoding = config.output_audio.encoding or content_pb2.AUDIO_ENCODING_PCM_S16LE
    config.output_audio.sample_rate_hertz = live.format.sample_rate
    automatic, by_hand = converse_pb2.TURN_DETECTION_TYPE_SERVER_VAD, converse_pb2.TURN_DETECTION_TYPE_NONE
    detection = converse_pb2.TurnDetection(
        type=automatic if turns.automatic else by_hand,
        threshold=turns.threshold,
        prefix_padding_ms=turns.prefix_padding_ms,
        silence_duration_ms=turns.silence_duration_ms,
        interrupt_response=turns.interrupts,
    )
    config.turn_detection.CopyFrom(detection)
    return config
