"""`litellm`, with this server as an `openai/` provider."""

from __future__ import annotations

import base64
from typing import Any

import litellm
from checks import BASE_URL, BOOK, MEDIA, MODEL, TOOLS_MODEL, TOOLS_URL, VOICE, expect, expect_booking, run

PROVIDER: dict[str, Any] = {"model": f"openai/{MODEL}", "api_base": BASE_URL, "api_key": "none", "num_retries": 0}
RECORDING = (MEDIA / "question-24000.wav").read_bytes()
PNG = (MEDIA / "picture.png").read_bytes()


def ask(content: Any, **fields: Any) -> Any:
    return litellm.completion(messages=[{"role": "user", "content": content}], **PROVIDER, **fields)


def chat() -> None:
    expect(ask("say fox").choices[0].message.content, "no words")


def chat_streamed() -> None:
    chunks = ask("say fox", stream=True)
    expect("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), "no words")


def chat_sees() -> None:
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    reply = ask([{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what is this?"}])
    expect(reply.usage.prompt_tokens > 30, "the picture did not reach the prompt")


def chat_hears() -> None:
    sound = {"data": base64.b64encode(RECORDING).decode(), "format": "wav"}
    expect(ask([{"type": "input_audio", "input_audio": sound}]).usage.prompt_tokens > 10, "the sound did not reach the prompt")


def chat_speaks() -> None:
    reply = ask("say fox", modalities=["text", "audio"], audio={"voice": VOICE, "format": "wav"})
    audio = reply.choices[0].message.audio
    expect(base64.b64decode(audio.data).startswith(b"RIFF") and audio.transcript, "no sound, or no transcript")


def chat_draws() -> None:
    message = ask("draw a fox", modalities=["text", "image"]).choices[0].message
    expect(message.images and message.images[0]["image_url"]["url"].startswith("data:image/"), "no picture")


def errors() -> None:
    wrong = {**PROVIDER, "model": "openai/another"}
    try:
        litellm.completion(messages=[{"role": "user", "content": "hello"}], **wrong)
    except litellm.exceptions.NotFoundError:
        return
    raise AssertionError("a wrong model was taken")


def tools_required() -> None:
    (call,) = (
        litellm.completion(
            model=f"openai/{TOOLS_MODEL}",
            api_base=TOOLS_URL,
            api_key="none",
            num_retries=0,
            messages=[{"role": "user", "content": "a room"}],
            tools=[{"type": "function", "function": {"name": "book", "parameters": BOOK}}],
            tool_choice="required",
            parallel_tool_calls=False,
            extra_body={"reasoning_effort": "none"},
        )
        .choices[0]
        .message.tool_calls
    )
    expect_booking(call.function.name, call.function.arguments)


def speech() -> None:
    expect(len(litellm.speech(voice=VOICE, input="fox", **PROVIDER).content) > 500, "no sound")


def transcription() -> None:
    with (MEDIA / "question-24000.wav").open("rb") as file:
        expect(litellm.transcription(file=file, **PROVIDER).text, "no words")


def images() -> None:
    expect(litellm.image_generation(prompt="a fox", **PROVIDER).data[0].b64_json, "no picture")


run(
    {
        "chat": chat,
        "chat: streamed": chat_streamed,
        "chat: a picture in": chat_sees,
        "chat: sound in": chat_hears,
        "chat: a voice out": chat_speaks,
        "chat: a picture out": chat_draws,
        "tools: required": tools_required,
        "errors": errors,
        "speech": speech,
        "transcription": transcription,
        "images": images,
    }
)
