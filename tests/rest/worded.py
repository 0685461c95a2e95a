"""What the tests of speech, transcriptions and images share: a pipeline whose checkpoint has wordings."""

from __future__ import annotations

import json
from typing import Any

import httpx

from omni_server.types import AudioPart, ImagePart, Request, TextPart
from tests.doubles import ScriptedCheckpoint, ScriptedPipeline

MODEL = "omni-scripted"
PROMPTS = {
    "speech": {"en": "say '{input}'", "ko": "'{input}'라고 말해줘"},
    "picture": {"en": "draw {prompt}", "ko": "{prompt} 그려줘"},
    "variation": {"en": "draw this again", "ko": "다시 그려줘"},
    "transcription": {"en": "write down what you hear", "ko": "들은 것을 적어줘"},
    "translation": {"ko": "{input} 영어로 번역해줘"},
}


def worded(*script: Any, **more: Any) -> ScriptedPipeline:
    pipeline = ScriptedPipeline(*script, **more)
    pipeline.checkpoint = ScriptedCheckpoint(prompts=PROMPTS)
    return pipeline


def words_of(request: Request) -> str:
    (message,) = request.messages
    return "".join(part.text for part in message.parts if isinstance(part, TextPart))


def pictures_of(request: Request) -> list[bytes | str | None]:
    return [part.source.data or part.source.url for part in request.messages[0].parts if isinstance(part, ImagePart)]


def recordings_of(request: Request) -> list[bytes | None]:
    return [part.source.data for part in request.messages[0].parts if isinstance(part, AudioPart)]


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.headers["content-type"].startswith("text/event-stream")
    return [json.loads(line.removeprefix("data: ")) for line in response.text.split("\n\n") if line]
