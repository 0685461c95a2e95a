"""One request through each door, and how it ended: `whole`, `part CODE` where one span says so in its place, or the code of its
error. Each asserts that there was one ending and no more."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import numpy as np
import websockets

from omni.compat import riva_asr_pb2, riva_tts_pb2
from omni.v1 import content_pb2, converse_pb2, omni_service_pb2
from omni_server.audio_format import encode
from omni_server.checkpoint import Checkpoint
from omni_server.config import Settings
from omni_server.door import Door
from omni_server.media_store import MediaStore
from omni_server.pipeline import Pipeline
from omni_server.rest import create_app
from omni_server.rpc import RpcServer
from tests.doubles import LoudEars
from tests.realtime.doors import served
from tests.rpc.doors import error_info

URL = "http://pictures.test/a.png"  # of the levered network
SETTINGS = Settings(shutdown_seconds=0)
RATE = 16_000
LOUD = np.full(RATE // 2, 0.5, np.float32)
SOUND = encode("wav", LOUD, RATE)
PCM = (LOUD * 32767).astype("<i2").tobytes()
FRAMES = [PCM[at : at + 3200] for at in range(0, len(PCM), 3200)]
RECOGNITION, SYNTHESIS = "/nvidia.riva.asr.RivaSpeechRecognition/", "/nvidia.riva.tts.RivaSpeechSynthesis/"


@dataclass(frozen=True, slots=True)
class House:
    """What is behind the doors: `picture` is the client's own."""

    pipeline: Pipeline
    checkpoint: Checkpoint
    store: MediaStore
    picture: bytes

    @property
    def voice(self) -> str:
        return self.checkpoint.voices[0]

    def rest(self) -> httpx.AsyncClient:
        app = create_app(self.pipeline, SETTINGS, ears=LoudEars(), media=self.store)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60)


Ending = Callable[[House], Awaitable[str]]


def as_a_whole(codes: list[str]) -> str:
    return f"part {codes[0]}" if codes else "whole"


def refused(reply: httpx.Response) -> str:
    document = reply.json()
    assert reply.status_code >= 400 and set(document) == {"error"}, reply.text
    return str(document["error"]["code"])


async def posted(house: House, path: str, body: dict[str, Any]) -> httpx.Response:
    async with house.rest() as http:
        return await http.post(path, json={"model": house.checkpoint.name, **body})


def chat_body(house: House) -> dict[str, Any]:
    content = [{"type": "image_url", "image_url": {"url": URL}}, {"type": "text", "text": "hi"}]
    wanted = {"modalities": ["text", "image", "audio"], "audio": {"voice": house.voice, "format": "pcm16"}}
    return {"messages": [{"role": "user", "content": content}], **wanted}


async def chat(house: House) -> str:
    reply = await posted(house, "/v1/chat/completions", chat_body(house))
    if reply.status_code != 200:
        return refused(reply)
    segments = reply.json()["choices"][0]["message"]["omni"]["segments"]
    return as_a_whole([segment["error"]["code"] for segment in segments if segment.get("error")])


async def chat_streamed(house: House) -> str:
    reply = await posted(house, "/v1/chat/completions", {**chat_body(house), "stream": True})
    if reply.status_code != 200:
        return refused(reply)
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]
    endings = [line for line in lines if line == "[DONE]" or "error" in json.loads(line)]
    assert len(endings) == 1 and endings[0] == lines[-1]
    if endings != ["[DONE]"]:
        return str(json.loads(endings[0])["error"]["code"])
    return as_a_whole([each["code"] for line in lines[:-1] for each in errors_in(json.loads(line).get("choices"))])


def errors_in(document: Any) -> list[dict[str, Any]]:
    """Every error that stands in it, of a span that failed."""
    if isinstance(document, list):
        return [error for inner in document for error in errors_in(inner)]
    if not isinstance(document, dict):
        return []
    own = [document["error"]] if isinstance(document.get("error"), dict) else []
    return own + [error for name, inner in document.items() if name != "error" for error in errors_in(inner)]


async def responses(house: House) -> str:
    content = [{"type": "input_image", "image_url": URL, "detail": "auto"}, {"type": "input_text", "text": "hi"}]
    body = {"input": [{"role": "user", "content": content}], "tools": [{"type": "image_generation"}]}
    reply = await posted(
        house, "/v1/responses", {**body, "modalities": ["text", "audio"], "audio": {"voice": house.voice, "format": "pcm16"}}
    )
    if reply.status_code != 200:
        return refused(reply)
    document = reply.json()
    if document["status"] == "failed":
        return str(document["error"]["code"])
    return as_a_whole([error["code"] for error in errors_in({**document, "error": None})])


async def images(house: House) -> str:
    """By URL: the file is stored, and fetched."""
    async with house.rest() as http:
        body = {"model": house.checkpoint.name, "prompt": "a cat", "response_format": "url"}
        reply = await http.post("/v1/images/generations", json=body)
        if reply.status_code != 200:
            return refused(reply)
        file = await http.get(reply.json()["data"][0]["url"])
        return "whole" if file.status_code == 200 else f"part {refused(file)}"


async def edits(house: House) -> str:
    async with house.rest() as http:
        fields = {"model": house.checkpoint.name, "prompt": "a cat", "response_format": "b64_json"}
        reply = await http.post("/v1/images/edits", data=fields, files={"image": ("a.png", house.picture, "image/png")})
        return "whole" if reply.status_code == 200 else refused(reply)


async def speech(house: House) -> str:
    """As events, of which the last one says how it ended."""
    wanted = {"input": "hi", "voice": house.voice, "response_format": "pcm", "stream_format": "sse"}
    reply = await posted(house, "/v1/audio/speech", wanted)
    if reply.status_code != 200:
        return refused(reply)
    events = [json.loads(line.removeprefix("data: ")) for line in reply.text.splitlines() if line.startswith("data: ")]
    endings = [event for event in events if "error" in event or event.get("type") == "speech.audio.done"]
    assert len(endings) == 1 and endings[0] is events[-1]
    return str(endings[0]["error"]["code"]) if "error" in endings[0] else "whole"


async def transcriptions(house: House) -> str:
    async with house.rest() as http:
        files = {"file": ("a.wav", SOUND, "audio/wav")}
        reply = await http.post("/v1/audio/transcriptions", data={"model": house.checkpoint.name}, files=files)
        return "whole" if reply.status_code == 200 else refused(reply)


async def realtime(house: House) -> str:
    """A turn in sound that its speaker ends; sound and words come back."""
    ears = LoudEars()
    async with (
        served(house.pipeline, SETTINGS, ears) as url,
        websockets.connect(url.replace("http", "ws", 1) + "/realtime") as socket,
    ):
        sound = {
            "input": {"turn_detection": None, "format": {"type": "audio/pcm", "rate": 24_000}},
            "output": {"voice": house.voice},
        }
        session = {"type": "realtime", "output_modalities": ["audio"], "audio": sound}
        asked: list[dict[str, Any]] = [{"type": "session.update", "session": session}]
        asked += [{"type": "input_audio_buffer.append", "audio": base64.b64encode(frame).decode()} for frame in FRAMES]
        asked += [{"type": "input_audio_buffer.commit"}, {"type": "response.create"}]
        for event in asked:
            await socket.send(json.dumps(event))
        told: list[Any] = []
        endings: list[Any] = []
        while not endings or len(endings) + len(told) == 0:
            event = json.loads(await asyncio.wait_for(socket.recv(), 60))
            told += [event["error"]["code"]] if event["type"] == "error" else []
            endings += [event["response"]] if event["type"] == "response.done" else []
        async with aclosing(quiet(socket)) as rest:
            endings += [event["response"] async for event in rest if event["type"] == "response.done"]
    ears.lane.close()
    assert len(endings) == 1
    details = endings[0].get("status_details") or {}
    return str((details.get("error") or {}).get("code")) if endings[0]["status"] == "failed" else as_a_whole(told)


async def live(house: House) -> str:
    """A turn that is over when it is quiet."""
    ears = LoudEars()
    async with (
        served(house.pipeline, SETTINGS, ears) as url,
        websockets.connect(url.replace("http", "ws", 1) + "/live/sessions") as socket,
    ):
        audio = {"format": {"type": "audio/pcm", "rate": 24_000}, "output": {"voice": house.voice}}
        started = {"type": "session.start", "session": {"model": house.checkpoint.name, "audio": audio}}
        await socket.send(json.dumps(started))
        for frame in (*FRAMES, *[bytes(4800)] * 10):
            await socket.send(json.dumps({"type": "session.input_audio.append", "audio": base64.b64encode(frame).decode()}))
        told: list[str] = []
        endings = 0
        while not endings:
            event = json.loads(await asyncio.wait_for(socket.recv(), 60))
            told += [event["error"]["code"]] if event["type"] == "error" else []
            endings += event["type"] == "session.usage.updated"
        async with aclosing(quiet(socket)) as rest:
            endings += [event["type"] async for event in rest].count("session.usage.updated")
    ears.lane.close()
    # An answer that was begun in a pause may have failed before, and so brought down what the one that counts needs.
    assert endings == 1 and set(told[1:]) <= {*told[:1], "modality_down"}, told
    return told[0] if told else "whole"


async def quiet(socket: Any) -> Any:
    """What is said in a moment more, in which nothing should end again."""
    try:
        while True:
            yield json.loads(await asyncio.wait_for(socket.recv(), 0.2))
    except TimeoutError:
        return


def rpc(name: str, messages: Callable[[House], list[Any]], kind: Any) -> Ending:
    """A method of gRPC; `kind` is what it answers with."""

    async def ending(house: House) -> str:
        ears = LoudEars()
        server = RpcServer(Door(house.pipeline, SETTINGS), ears)
        await server.start(0)
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                sent = [message.SerializeToString() for message in messages(house)]

                async def stream() -> Any:
                    for message in sent:
                        yield message

                call: Any = channel.stream_stream(name)(stream(), timeout=60.0)
                return await ended(call, kind)
        finally:
            await server.drain(0.0)
            ears.lane.close()

    return ending


async def ended(call: Any, kind: Any) -> str:
    replies: list[Any] = []
    try:
        async for content in call:
            replies.append(kind.FromString(content))
    except grpc.aio.AioRpcError:
        assert not [reply for reply in replies if final(reply)]
        return str((await error_info(call))[2].reason.lower())
    finals = [reply for reply in replies if final(reply)]
    assert len(finals) == 1 or kind in (riva_asr_pb2.StreamingRecognizeResponse, riva_tts_pb2.SynthesizeSpeechResponse)
    closed = [
        reply.span_closed
        for reply in replies
        if "span_closed" in kind.DESCRIPTOR.fields_by_name and reply.HasField("span_closed")
    ]
    problems = [span.problem.reason.lower() for span in closed if span.HasField("problem")]
    for reply in finals:
        if reply.DESCRIPTOR.name == "ConverseResponse" and reply.response_done.status == converse_pb2.RESPONSE_STATUS_FAILED:
            return str(reply.response_done.problem.reason.lower())
    return as_a_whole(problems)


def final(reply: Any) -> bool:
    names = reply.DESCRIPTOR.fields_by_name
    return any(name in names and reply.HasField(name) for name in ("done", "response_done"))


def generate_messages(house: House) -> list[Any]:
    parts = [content_pb2.Part(image=content_pb2.Media(url=URL)), content_pb2.Part(text="hi")]
    modalities = (content_pb2.MODALITY_TEXT, content_pb2.MODALITY_IMAGE, content_pb2.MODALITY_AUDIO)
    message = content_pb2.Message(role=content_pb2.ROLE_USER, parts=parts)
    return [omni_service_pb2.GenerateRequest(messages=[message], modalities=modalities, voice=house.voice)]


def converse_messages(house: House) -> list[Any]:
    turns = converse_pb2.TurnDetection(type=converse_pb2.TURN_DETECTION_TYPE_NONE)
    config = converse_pb2.ConverseConfig(turn_detection=turns, voice=house.voice)
    frames = [converse_pb2.ConverseRequest(audio=converse_pb2.AudioFrame(audio=frame)) for frame in FRAMES]
    return [converse_pb2.ConverseRequest(config=config), *frames]


def transcribe_messages(house: House) -> list[Any]:
    config = omni_service_pb2.TranscribeConfig(audio=content_pb2.AudioFormat(encoding=content_pb2.AUDIO_ENCODING_WAV))
    return [omni_service_pb2.TranscribeRequest(config=config), omni_service_pb2.TranscribeRequest(audio=SOUND)]


def synthesize_messages(house: House) -> list[Any]:
    return [omni_service_pb2.SynthesizeRequest(text="hi", voice=house.voice)]


def recognize_messages(house: House) -> list[Any]:
    config = riva_asr_pb2.RecognitionConfig(encoding=1, sample_rate_hertz=RATE, language_code="en-US")
    first = riva_asr_pb2.StreamingRecognizeRequest(streaming_config=riva_asr_pb2.StreamingRecognitionConfig(config=config))
    quiet = [bytes(3200)] * 10
    return [first, *(riva_asr_pb2.StreamingRecognizeRequest(audio_content=frame) for frame in (*FRAMES, *quiet))]


def riva_messages(house: House) -> list[Any]:
    return [riva_tts_pb2.SynthesizeSpeechRequest(text="hi", encoding=1, sample_rate_hz=24_000, voice_name=house.voice)]


OMNI = "/omni.v1.OmniService/"
DOORS: dict[str, Ending] = {
    "chat": chat,
    "streamed chat": chat_streamed,
    "responses": responses,
    "images": images,
    "images/edits": edits,
    "speech": speech,
    "transcriptions": transcriptions,
    "realtime": realtime,
    "live": live,
    "Generate": rpc(OMNI + "Generate", generate_messages, omni_service_pb2.GenerateResponse),
    "Converse": rpc(OMNI + "Converse", converse_messages, converse_pb2.ConverseResponse),
    "Transcribe": rpc(OMNI + "Transcribe", transcribe_messages, omni_service_pb2.TranscribeResponse),
    "Synthesize": rpc(OMNI + "Synthesize", synthesize_messages, omni_service_pb2.SynthesizeResponse),
    "Riva recognition": rpc(RECOGNITION + "StreamingRecognize", recognize_messages, riva_asr_pb2.StreamingRecognizeResponse),
    "Riva synthesis": rpc(SYNTHESIS + "SynthesizeOnline", riva_messages, riva_tts_pb2.SynthesizeSpeechResponse),
}
SEES, HEARS = {"load", "encode", "look up"}, {"load", "encode", "look up"}
SPEAKS, DRAWS = {"audio open", "audio feed", "audio finish"}, {"image open", "image feed", "image finish"}
ALL = {"prompt", "backbone 0", "backbone 1", "backbone 3"}
STEPS: dict[str, set[str]] = {
    **dict.fromkeys(("chat", "streamed chat", "responses", "Generate"), ALL | {"fetch"} | SEES | SPEAKS | DRAWS),
    "images": ALL | DRAWS | {"store"},
    "images/edits": ALL | SEES | DRAWS,
    **dict.fromkeys(("speech", "Synthesize", "Riva synthesis"), ALL | SPEAKS),
    **dict.fromkeys(("transcriptions", "Transcribe", "Riva recognition"), ALL | HEARS),
    **dict.fromkeys(("realtime", "live", "Converse"), ALL | HEARS | SPEAKS),
}
