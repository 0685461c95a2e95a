"""Evaluation step: questions to a running server over its OpenAI wire. Knows nothing about what is a right answer."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from PIL import Image

Part = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    text: str = ""
    pictures: list[np.ndarray] = field(default_factory=list)  # uint8 [height, width, 3] each
    waveform: np.ndarray | None = None  # float32 [samples]
    sample_rate: int = 24_000


def text_part(text: str) -> Part:
    return {"type": "text", "text": text}


def picture_part(picture: np.ndarray, image_format: str = "PNG", quality: int = 75) -> Part:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, image_format, quality=quality)
    encoded = base64.b64encode(stream.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/{image_format.lower()};base64,{encoded}"}}


def speech_part(waveform: np.ndarray, sample_rate: int) -> Part:
    import soundfile

    stream = io.BytesIO()
    soundfile.write(stream, waveform, sample_rate, format="WAV", subtype="PCM_16")
    return {
        "type": "input_audio",
        "input_audio": {"data": base64.b64encode(stream.getvalue()).decode(), "format": "wav"},
    }


class Server:
    """One conversation turn at a time, greedy and seeded."""

    def __init__(self, url: str, seconds: float = 120) -> None:
        self._http = httpx.Client(base_url=url, timeout=seconds)
        model = self._http.get("/v1/models").raise_for_status().json()["data"][0]
        self.model: str = model["id"]
        self.voices: list[str] = model.get("voices") or model.get("omni", {}).get("voices") or []

    def ask(self, parts: Sequence[Part], modalities: Sequence[str], voice: str | None, seed: int = 0) -> Reply:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": list(parts)}],
            "modalities": list(modalities),
            "temperature": 0,
            "seed": seed,
        }
        if "audio" in modalities:
            body["audio"] = {"format": "wav"} | ({"voice": voice} if voice else {})
        response = self._http.post("/v1/chat/completions", json=body)
        if response.is_error:
            raise RuntimeError(f"{response.status_code}: {response.text[:300]}")
        return read_reply(response.json()["choices"][0]["message"])


def read_reply(message: dict[str, Any]) -> Reply:
    audio = message.get("audio") or {}
    pictures = [_read_picture(item["image_url"]["url"]) for item in message.get("images") or []]
    text = message.get("content") or audio.get("transcript") or ""
    if not audio.get("data"):
        return Reply(text, pictures)
    import soundfile

    waveform, rate = soundfile.read(io.BytesIO(base64.b64decode(audio["data"])), dtype="float32", always_2d=True)
    return Reply(text, pictures, waveform.mean(axis=1), rate)


def _read_picture(url: str) -> np.ndarray:
    contents = base64.b64decode(url.partition("base64,")[2])
    return np.asarray(Image.open(io.BytesIO(contents)).convert("RGB"))
