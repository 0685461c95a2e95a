"""`langchain-openai`'s ChatOpenAI."""

from __future__ import annotations

import base64
import json
from typing import Any, Literal

import openai
from checks import BASE_URL, MEDIA, MODEL, TOOLS_MODEL, TOOLS_URL, VOICE, expect, expect_booking, run
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

RECORDING = (MEDIA / "question-24000.wav").read_bytes()
PNG = (MEDIA / "picture.png").read_bytes()


def model(name: str = MODEL, **fields: Any) -> ChatOpenAI:
    return ChatOpenAI(model=name, base_url=BASE_URL, api_key="none", max_retries=0, **fields)


def chat() -> None:
    reply = model().invoke("say fox")
    expect(reply.content and reply.usage_metadata["total_tokens"] > 0, "no words, or no usage")


def chat_streamed() -> None:
    expect("".join(str(chunk.content) for chunk in model().stream("say fox")), "no words")


def chat_sees() -> None:
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    parts: list[Any] = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    expect(model().invoke([HumanMessage(parts)]).usage_metadata["input_tokens"] > 30, "the picture did not reach the prompt")


def chat_hears() -> None:
    sound = {"data": base64.b64encode(RECORDING).decode(), "format": "wav"}
    parts: list[Any] = [{"type": "input_audio", "input_audio": sound}]
    expect(model().invoke([HumanMessage(parts)]).usage_metadata["input_tokens"] > 10, "the sound did not reach the prompt")


def chat_speaks() -> None:
    spoken = model(model_kwargs={"modalities": ["text", "audio"], "audio": {"voice": VOICE, "format": "wav"}})
    audio = spoken.invoke("say fox").additional_kwargs["audio"]
    expect(base64.b64decode(audio["data"]).startswith(b"RIFF") and audio["transcript"], "no sound, or no transcript")


def responses() -> None:
    expect(model(use_responses_api=True).invoke("say fox").text, "no words")


class Animal(BaseModel):
    sound: bool


def chat_json() -> None:
    expect(isinstance(model().with_structured_output(Animal).invoke("say fox"), Animal), "not of that form")


class book(BaseModel):
    """Books a room."""

    city: Literal["Oslo", "서울"]
    guests: int = Field(ge=1, le=9)


def tools_required() -> None:
    bare = ChatOpenAI(
        model=TOOLS_MODEL, base_url=TOOLS_URL, api_key="none", max_retries=0, extra_body={"reasoning_effort": "none"}
    )
    (call,) = bare.bind_tools([book], tool_choice="any", parallel_tool_calls=False).invoke("a room").tool_calls
    expect_booking(call["name"], json.dumps(call["args"]))


def errors() -> None:
    try:
        model("another").invoke("hello")
    except openai.NotFoundError:
        return
    raise AssertionError("a wrong model was taken")


run(
    {
        "chat": chat,
        "chat: streamed": chat_streamed,
        "chat: a picture in": chat_sees,
        "chat: sound in": chat_hears,
        "chat: a voice out": chat_speaks,
        "chat: JSON by schema": chat_json,
        "responses": responses,
        "tools: required": tools_required,
        "errors": errors,
    }
)
