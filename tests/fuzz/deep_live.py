"""Live conversations that are good until one message of them is not: over both WebSockets and gRPC, Riva's services too."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import websockets
from google.protobuf import duration_pb2
from google.protobuf.message import Message

from omni.compat import riva_asr_pb2, riva_tts_pb2
from omni.v1 import content_pb2, converse_pb2, omni_service_pb2
from tests.fuzz.near import NEAR_TEXTS, UNREAD, UNREADABLE, file_like, nudged, nudged_message, packet_like, packets
from tests.fuzz.shapes import encoded

FEW = 6
OPUS, PCM = content_pb2.AUDIO_ENCODING_OPUS, content_pb2.AUDIO_ENCODING_PCM_S16LE
BY_HAND = converse_pb2.TURN_DETECTION_TYPE_NONE
QUIET = 0.15  # seconds without an event after which nothing more is waited for
SERVICE = "/omni.v1.OmniService/"
RECOGNITION = "/nvidia.riva.asr.RivaSpeechRecognition/StreamingRecognize"
SYNTHESIS = "/nvidia.riva.tts.RivaSpeechSynthesis/"


def sound_of(chance: random.Random) -> str:
    return base64.b64encode(chance.randbytes(chance.choice((4800, 4800, 960, 961, 0, 48_000)))).decode()


def realtime_events(chance: random.Random, voice: str) -> list[dict[str, Any]]:
    """A conversation as a client means it, with media that may be anything."""
    picture = "data:image/png;base64," + base64.b64encode(file_like("picture", chance)).decode()
    content = chance.choice(
        (
            {"type": "input_text", "text": "hi"},
            {"type": "input_image", "image_url": picture},
            {"type": "input_audio", "audio": sound_of(chance)},
        )
    )
    item = {"type": "message", "id": "item_a", "role": "user", "content": [content]}
    call = {"type": "function_call", "id": "item_b", "call_id": "c1", "name": "look", "arguments": "{}"}
    output = {"type": "function_call_output", "id": "item_c", "call_id": "c1", "output": "{}"}
    format = chance.choice(({"type": "audio/pcm", "rate": 24_000}, {"type": "audio/pcmu"}, {"type": "audio/pcma"}))
    turns = {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 500,
        "create_response": True,
    }
    tool = {"type": "function", "name": "look", "parameters": {"type": "object"}}
    session = {
        "type": "realtime",
        "output_modalities": ["text"],
        "instructions": "be brief",
        "max_output_tokens": FEW,
        "audio": {"input": {"format": format, "turn_detection": chance.choice((turns, None))}, "output": {"voice": voice}},
        "tools": [tool],
    }
    answer = {
        "conversation": "none",
        "output_modalities": ["text"],
        "max_output_tokens": FEW,
        "input": [item],
        "metadata": {"a": "b"},
    }
    return [
        {"type": "session.update", "session": session},
        {"type": "input_audio_buffer.append", "audio": sound_of(chance)},
        {"type": chance.choice(("input_audio_buffer.commit", "input_audio_buffer.clear"))},
        {"type": "conversation.item.create", "item": item, "previous_item_id": "root"},
        {"type": "conversation.item.create", "item": chance.choice((call, output))},
        {"type": "response.create", "response": answer},
        {"type": "response.create"},
        {"type": "response.cancel"},
        {"type": "conversation.item.retrieve", "item_id": "item_a"},
        {"type": "conversation.item.truncate", "item_id": "item_a", "content_index": 0, "audio_end_ms": 10},
        {"type": "conversation.item.delete", "item_id": "item_a"},
    ]


def live_events(chance: random.Random, model: str, voice: str) -> list[dict[str, Any]]:
    audio = {"format": {"type": "audio/pcm", "rate": 24_000}, "output": {"voice": voice}}
    said = [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]
    session = {"model": model, "audio": audio, "instructions": "be brief", "input": said, "omni": {"max_tokens": FEW}}
    return [
        {"type": "session.start", "session": session},
        {"type": "session.input_audio.append", "audio": sound_of(chance)},
        {"type": "session.input_audio.mute"},
        {"type": "session.input_audio.unmute"},
        {"type": "session.update", "session": {}},
        {"type": "session.instructions.append", "content": "be kind"},
        {"type": "session.commentary.append", "content": "it rains"},
        {"type": "response.create"},
        {"type": "session.close"},
    ]


class DeepSocket:
    def __init__(self, url: str, model: str, voice: str) -> None:
        self._url, self._model, self._voice = url.replace("http", "ws", 1), model, voice

    async def __call__(self, chance: random.Random) -> str:
        live = chance.random() < 0.4
        events = live_events(chance, self._model, self._voice) if live else realtime_events(chance, self._voice)
        wrong = chance.randrange(len(events))
        events = [nudged(event, chance) if at == wrong else event for at, event in enumerate(events)]
        first = events[:1] if live or chance.random() < 0.7 else []
        rest = events[1:] if chance.random() < 0.5 else chance.sample(events[1:], chance.randrange(1, 6))
        path = "/v1/live/sessions" if live else "/v1/realtime"
        try:
            async with websockets.connect(self._url + path, max_size=None, open_timeout=60) as socket:
                for event in (*first, *rest):
                    await socket.send(encoded(event, chance).decode("utf-8", "replace"))
                return await heard(socket)
        except websockets.InvalidStatus as refused:
            assert refused.response.status_code in (400, 503), refused.response
            return f"{refused.response.status_code}"
        except websockets.ConnectionClosed as closed:
            assert closed.rcvd is None or closed.rcvd.code != 1011, closed
            return "closed"


async def heard(socket: Any) -> str:
    """What was said until it was quiet, as the first error that was told."""
    told = "no error"
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(QUIET):
                event = json.loads(await socket.recv())
            if event["type"] == "error":
                assert event["error"].get("type") != "server_error" or deliberate(event["error"]), f"answered by {event}"
                unread = UNREADABLE.search(str(event["error"].get("message")))
                told = f"error {UNREAD if unread else event['error'].get('code')}" if told == "no error" else told
            fault = ((event.get("response") or {}).get("status_details") or {}).get("error") or {}
            assert fault.get("code") not in ("internal_error", "encode_failed", "decode_failed"), f"ended with {event}"
    return told


def deliberate(error: dict[str, Any]) -> bool:
    return error.get("code") in ("overloaded", "out_of_memory", "modality_down")


def converse_messages(chance: random.Random, voice: str) -> list[Message]:
    opus = chance.random() < 0.5
    config = converse_pb2.ConverseConfig(
        input_audio=content_pb2.AudioFormat(encoding=OPUS if opus else PCM),
        modalities=[content_pb2.MODALITY_TEXT],
        sampling=content_pb2.Sampling(max_tokens=FEW),
        voice=voice,
        instructions="be brief",
    )
    if chance.random() < 0.7:
        config.turn_detection.type = BY_HAND
    wrong = chance.random() < 0.7
    frames = [packet_like(chance) if wrong else chance.choice(packets()) for _ in range(chance.randrange(1, 12))]
    if not opus:
        frames = [chance.randbytes(chance.choice((640, 640, 641, 0, 40_000))) for _ in frames]
    heard = duration_pb2.Duration(seconds=chance.choice((0, 1, -1, 10**9)))
    messages: list[Message] = [converse_pb2.ConverseRequest(config=config)]
    messages += [
        converse_pb2.ConverseRequest(audio=converse_pb2.AudioFrame(audio=frame, sequence=chance.choice((0, 0, number + 1))))
        for number, frame in enumerate(frames)
    ]
    more: list[Message] = [
        converse_pb2.ConverseRequest(text="hi"),
        converse_pb2.ConverseRequest(image=content_pb2.Media(data=file_like("picture", chance))),
        converse_pb2.ConverseRequest(end_turn=converse_pb2.EndTurn()),
        converse_pb2.ConverseRequest(cancel=converse_pb2.Cancel(response_id=chance.choice(NEAR_TEXTS))),
        converse_pb2.ConverseRequest(truncate=converse_pb2.Truncate(response_id=chance.choice(NEAR_TEXTS), heard=heard)),
        converse_pb2.ConverseRequest(playback=converse_pb2.Playback(response_id="", heard=heard)),
    ]
    return [*messages, *chance.sample(more, chance.randrange(4))]


class DeepRpc:
    """`borne` waits for a call, looks at how it ended, and names it."""

    def __init__(self, channel: grpc.aio.Channel, voice: str, borne: Callable[[Any, str], Any]) -> None:
        self._channel, self._voice, self._borne = channel, voice, borne

    async def __call__(self, chance: random.Random) -> str:
        name, messages = chance.choice(
            (
                self.generate,
                self.generate,
                self.converse,
                self.converse,
                self.transcribe,
                self.synthesize,
                self.recognize,
                self.riva,
            )
        )(chance)
        if chance.random() < 0.7:
            nudged_message(chance.choice(messages), chance)
        sent = [message.SerializeToString() for message in messages]

        async def stream() -> Any:
            for content in sent:
                yield content

        return str(await self._borne(self._channel.stream_stream(name)(stream(), timeout=90.0), name))

    def generate(self, chance: random.Random) -> tuple[str, Sequence[Message]]:
        parts = [
            content_pb2.Part(text="hi"),
            content_pb2.Part(image=content_pb2.Media(data=file_like("picture", chance))),
            content_pb2.Part(audio=content_pb2.Media(data=file_like("sound", chance))),
            content_pb2.Part(video=content_pb2.Media(data=file_like("film", chance))),
        ]
        call = content_pb2.ToolCall(name="look", arguments=chance.choice(("{}", *NEAR_TEXTS[-3:])))
        messages = [
            content_pb2.Message(role=content_pb2.ROLE_ASSISTANT, tool_calls=[call]),
            content_pb2.Message(role=content_pb2.ROLE_TOOL, tool="look", parts=[content_pb2.Part(text="{}")]),
            content_pb2.Message(role=content_pb2.ROLE_USER, parts=chance.sample(parts, chance.randrange(1, 3))),
        ]
        asked = omni_service_pb2.GenerateRequest(
            messages=messages if chance.random() < 0.4 else messages[-1:],
            modalities=[content_pb2.MODALITY_TEXT],
            sampling=content_pb2.Sampling(max_tokens=FEW, temperature=0.5, seed=1),
            voice=self._voice,
            tools=[content_pb2.Tool(name="look", parameters=chance.choice(('{"type":"object"}', *NEAR_TEXTS[-3:])))],
        )
        return SERVICE + "Generate", [asked]

    def converse(self, chance: random.Random) -> tuple[str, Sequence[Message]]:
        return SERVICE + "Converse", converse_messages(chance, self._voice)

    def transcribe(self, chance: random.Random) -> tuple[str, Sequence[Message]]:
        format = content_pb2.AudioFormat(encoding=chance.choice((PCM, PCM, OPUS, 3, 4)), sample_rate_hertz=16_000)
        config = omni_service_pb2.TranscribeConfig(audio=format, language="en", sampling=content_pb2.Sampling(max_tokens=FEW))
        pieces = [file_like("sound", chance)[:200_000], chance.randbytes(3200), chance.randbytes(3201)]
        audio = [omni_service_pb2.TranscribeRequest(audio=piece) for piece in chance.sample(pieces, 2)]
        return SERVICE + "Transcribe", [omni_service_pb2.TranscribeRequest(config=config), *audio]

    def synthesize(self, chance: random.Random) -> tuple[str, Sequence[Message]]:
        format = content_pb2.AudioFormat(encoding=chance.randrange(8), sample_rate_hertz=24_000)
        sampling = content_pb2.Sampling(max_tokens=FEW)
        asked = omni_service_pb2.SynthesizeRequest(text="hi", voice=self._voice, audio=format, sampling=sampling)
        return SERVICE + "Synthesize", [asked]

    def recognize(self, chance: random.Random) -> tuple[str, Sequence[Message]]:
        config = riva_asr_pb2.RecognitionConfig(encoding=1, sample_rate_hertz=16_000, language_code="en-US")
        first = riva_asr_pb2.StreamingRecognizeRequest(
            streaming_config=riva_asr_pb2.StreamingRecognitionConfig(config=config, interim_results=True)
        )
        audio = [riva_asr_pb2.StreamingRecognizeRequest(audio_content=chance.randbytes(size)) for size in (3200, 3201, 0)]
        return RECOGNITION, [first, *chance.sample(audio, 2)]

    def riva(self, chance: random.Random) -> tuple[str, Sequence[Message]]:
        asked = riva_tts_pb2.SynthesizeSpeechRequest(
            text="hi", encoding=chance.randrange(6), sample_rate_hz=24_000, voice_name=self._voice
        )
        return SYNTHESIS + chance.choice(("Synthesize", "SynthesizeOnline")), [asked]
