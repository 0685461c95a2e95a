"""Requests as they leave, answers and faults as they come back, sync and async, with a transport that is a function."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from email.parser import BytesParser
from typing import Any

import httpx
import PIL.Image
import pytest

import omni_client
from omni_client import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    Audio,
    OmniError,
    ResponseFormatError,
)
from tests.clients.both import Both
from tests.media_samples import png_of, wav_of_tone

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
PNG = png_of(PIL.Image.new("RGB", (8, 6), "red"))
HELLO: dict[str, Any] = {
    "id": "chatcmpl-1",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
}


class Server:
    """Answers with `answers` one after another, the last one for ever; remembers what it was asked."""

    def __init__(self, *answers: httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]) -> None:
        self.answers = [*answers]
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else answer(request)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request.content) for request in self.asked]


def both(kind: str, server: Server, **given: Any) -> Both:
    return Both(kind, "http://box:1/v1/", server, **{"model": "m", **given})


def good(body: Any = HELLO, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return (
        httpx.Response(200, json=body, headers=named)
        if not isinstance(body, bytes)
        else httpx.Response(200, content=body, headers=named)
    )


def bad(status: int, **headers: str) -> httpx.Response:
    error = {"message": f"bad {status}", "type": "kind", "code": "some_code", "param": "messages[0]"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json={"error": error}, headers=named)


@KINDS
async def test_what_is_wished_is_sent(kind: str) -> None:
    """Catches a wish that does not reach the server, or one that was not made and does."""
    server = Server(good())
    reply = await both(kind, server, api_key="key").call(
        "generate",
        "hi",
        system="Be kind.",
        voice="heart",
        temperature=0.0,
        seed=0,
        stop=["x"],
        max_tokens=5,
        audio_format="mp3",
    )
    assert server.bodies[0] == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}],
        "modalities": ["text", "audio"],
        "audio": {"format": "mp3", "voice": "heart"},
        "temperature": 0.0,
        "seed": 0,
        "stop": ["x"],
        "max_completion_tokens": 5,
    }
    (asked,) = server.asked
    assert str(asked.url) == "http://box:1/v1/chat/completions"
    assert asked.headers["authorization"] == "Bearer key"
    assert reply.request_id == asked.headers["x-request-id"]
    assert (reply.text, reply.finish_reason, reply.model) == ("Hello.", "stop", "m")
    assert [segment.text for segment in reply.segments] == ["Hello."]


@KINDS
async def test_a_misspelt_wish_is_told(kind: str) -> None:
    """Catches a wish that is dropped in silence."""
    server = Server(good())
    for method in ("generate", "stream"):
        with pytest.raises(TypeError, match="temprature"):
            await (
                both(kind, server).call("generate", "hi", temprature=1)
                if method == "generate"
                else both(kind, server).stream("hi", temprature=1)
            )
    assert not server.asked


@KINDS
async def test_the_model_is_looked_up_once(kind: str) -> None:
    """Catches a look-up before every request, and a model that must be named where there is only one."""
    listed = good({"object": "list", "data": [{"id": "first", "omni": {"voices": ["a", "b"]}}, {"id": "second"}]})
    server = Server(listed, good(), good(), listed)
    client = both(kind, server, model=None)
    await client.call("generate", "hi")
    await client.call("generate", "hi", model="second")
    assert await client.call("voices") == ("a", "b")
    assert [request.url.path for request in server.asked] == [
        "/v1/models", "/v1/chat/completions", "/v1/chat/completions", "/v1/models"
    ]  # fmt: skip
    assert json.loads(server.asked[1].content)["model"] == "first"
    with pytest.raises(OmniError, match="`second`"):
        await client.call("voices", model="third")


@KINDS
async def test_speech(kind: str) -> None:
    """Catches a WAV whose header does not know its length, and a transcript that stays encoded."""
    pcm = struct.pack("<4h", 0, 1, -1, 2)
    server = Server(good(pcm, x_omni_transcript="%EC%97%AC%EC%9A%B0%2C%20hi"))
    voice = await both(kind, server).call("speak", "say it", voice="heart")
    assert (voice.pcm, voice.sample_rate, voice.transcript) == (pcm, 24_000, "여우, hi")
    assert server.bodies[0] == {"model": "m", "input": "say it", "voice": "heart", "response_format": "pcm"}
    server = Server(good(b"OggS..."))
    voice = await both(kind, server).call("speak", "say it", format="opus")
    assert (voice.data, voice.format, voice.transcript) == (b"OggS...", "ogg", None)


@KINDS
async def test_transcription(kind: str) -> None:
    """Catches a form that the server cannot read, and a repetition that sends an empty file."""
    server = Server(bad(503, retry_after_ms="1"), good({"text": "a fox", "language": "en", "duration": 0.5}))
    wav = wav_of_tone(0.2)
    heard = await both(kind, server).call("transcribe", wav, language="en", temperature=0.5)
    assert (str(heard), heard.language, heard.seconds) == ("a fox", "en", 0.5)
    for request in server.asked:
        head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
        parts: Any = BytesParser().parsebytes(head + request.content).get_payload()
        form = {part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in parts}
        assert form == {
            "model": b"m", "response_format": b"verbose_json", "language": b"en", "temperature": b"0.5", "file": wav
        }  # fmt: skip
        assert parts[-1].get_filename() == "file.wav"


@KINDS
async def test_drawing(kind: str) -> None:
    """Catches pictures out of order or without the seeds that make them again."""
    data = [{"b64_json": base64.b64encode(PNG).decode(), "omni": {"seed": seed}} for seed in (7, 8)]
    server = Server(good({"created": 1, "data": data}), good({"data": data[:1]}))
    client = both(kind, server)
    assert [picture.seed for picture in await client.call("draw_many", "a fox", 2, seed=7)] == [7, 8]
    picture = await client.call("draw", "a fox", size="auto", format="webp")
    assert (picture.data, picture.format) == (PNG, "webp")
    assert server.bodies == [
        {"model": "m", "prompt": "a fox", "n": 2, "output_format": "png", "seed": 7},
        {"model": "m", "prompt": "a fox", "n": 1, "output_format": "webp", "size": "auto"},
    ]


@KINDS
@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "BadRequestError"), (401, "AuthenticationError"), (403, "PermissionDeniedError"), (404, "NotFoundError"),
        (409, "ConflictError"), (413, "MediaTooLargeError"), (418, "APIStatusError"), (422, "UnprocessableEntityError"),
        (429, "RateLimitError"), (500, "InternalServerError"), (503, "InternalServerError"),
    ],
)  # fmt: skip
async def test_statuses_are_typed_errors(kind: str, status: int, name: str) -> None:
    """Catches an error that loses its field, its code or the id under which the server's log tells more."""
    server = Server(bad(status, x_request_id="req_theirs", x_should_retry="false"))
    for asked in (both(kind, server).call("generate", "hi"), both(kind, server).stream("hi")):
        with pytest.raises(APIStatusError) as caught:
            await asked
        error = caught.value
        assert type(error) is getattr(omni_client, name)
        assert (error.status_code, str(error), error.request_id) == (status, f"bad {status}", "req_theirs")
        assert (error.type, error.code, error.param) == ("kind", "some_code", "messages[0]")
        assert error.body["error"]["code"] == "some_code"  # type: ignore[index]
    assert len(server.asked) == 2


@KINDS
async def test_a_page_from_a_proxy(kind: str) -> None:
    """Catches a JSONDecodeError from deep inside, for an answer that never came from the server."""
    page = httpx.Response(502, text="<html>Bad gateway</html>", headers={"retry-after-ms": "1"})
    with pytest.raises(APIStatusError, match=r"502.*Bad gateway"):
        await both(kind, Server(page)).call("generate", "hi")
    no_picture = b'{"choices": [{"message": {"images": [{"image_url": {"url": "data:image/png;base64,aGVsbG8="}}]}}]}'
    for strange in (b"<html>", b"[]", no_picture, b'{"choices": []}', b'{"choices": [{"message": 3}]}'):
        with pytest.raises(ResponseFormatError):
            await both(kind, Server(good(strange))).call("generate", "hi")
    for method, given in (("draw", "a fox"), ("transcribe", wav_of_tone(0.2)), ("models", None)):
        with pytest.raises(ResponseFormatError):
            await both(kind, Server(good({"data": [{}], "text": 3}))).call(method, *([given] if given else []))


@KINDS
async def test_what_may_pass_is_repeated(kind: str) -> None:
    """Catches a client that gives up too early or too late, or that is another request each time."""
    for fault in (
        bad(503, retry_after_ms="1"),
        bad(429, retry_after_ms="1"),
        bad(400, x_should_retry="true", retry_after_ms="1"),
    ):
        server = Server(fault, fault, good())
        assert (await both(kind, server).call("generate", "hi")).text == "Hello."
        assert len({request.headers["x-request-id"] for request in server.asked}) == 1
        assert len({request.content for request in server.asked}) == 1
        with pytest.raises(APIStatusError):
            await both(kind, Server(fault, fault, fault, good())).call("generate", "hi")
        with pytest.raises(APIStatusError):
            await both(kind, Server(fault, good()), max_retries=0).call("generate", "hi")


@KINDS
async def test_no_server(kind: str) -> None:
    """Catches an error that does not say where the server was looked for, or how long."""
    server = Server(httpx.ConnectError("Connection refused"))
    with pytest.raises(APIConnectionError, match="http://box:1: Connection refused") as caught:
        await both(kind, server, max_retries=1).call("generate", "hi")
    assert caught.value.request_id == server.asked[0].headers["x-request-id"]
    assert len(server.asked) == 2
    with pytest.raises(APITimeoutError):
        await both(kind, Server(httpx.ReadTimeout("")), max_retries=0).call("generate", "hi", timeout=3)


@KINDS
async def test_the_time_limit(kind: str) -> None:
    """Catches a limit that is not handed on, and a minute's wait for a server that is not there."""
    server = Server(good())
    client = both(kind, server, timeout=60)
    await client.call("generate", "hi")
    await client.call("generate", "hi", timeout=2)
    limits = [request.extensions["timeout"] for request in server.asked]
    assert [(limit["read"], limit["connect"]) for limit in limits] == [(60, 5.0), (2, 2)]


def test_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an address with and without `/v1` that means two things, and a variable that is not read."""
    assert omni_client.OmniClient()._connection.url == "http://127.0.0.1:8000"
    monkeypatch.setenv("OMNI_BASE_URL", "https://box/omni/v1")
    monkeypatch.setenv("OMNI_API_KEY", "secret")
    assert omni_client.OmniClient()._connection.url == "https://box/omni"
    assert omni_client.AsyncOmniClient()._connection.api_key == "secret"
    with pytest.raises(OmniError, match="`box:8000`"):
        omni_client.OmniClient("box:8000")


@KINDS
async def test_a_voice_in_a_whole_reply(kind: str) -> None:
    """Catches a voice that is saved as what was asked for and not as what came."""
    wav = wav_of_tone(0.2)
    message = {"content": None, "audio": {"id": "a", "data": base64.b64encode(wav).decode(), "transcript": "hi"}}
    reply = await both(kind, Server(good({"choices": [{"message": message}]}))).call("generate", "say hi", voice="heart")
    assert reply.audio == Audio(wav, "wav", "hi")
    assert reply.text == "hi"
