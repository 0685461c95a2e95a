"""One malformed request over one wire, and whether the server bore it. Raises AssertionError where it did not."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import h11
import httpx
import websockets
from google.rpc import error_details_pb2
from grpc_status.rpc_status import aio as status_of_call

from omni.v1 import converse_pb2, omni_service_pb2, omni_service_pb2_grpc
from tests.fuzz.deep_live import DeepRpc, DeepSocket, heard
from tests.fuzz.deep_rest import DeepRest
from tests.fuzz.near import UNREAD, UNREADABLE
from tests.fuzz.shapes import Shapes, broken, encoded, filled, likely_body, medium, text, value

# A request takes as long as its media take to decode, on a machine that is busy with being attacked.
SECONDS = 90.0
SERVICE = "/omni.v1.OmniService/"
UNARY = {
    "Generate": omni_service_pb2.GenerateRequest,
    "Synthesize": omni_service_pb2.SynthesizeRequest,
    "ListModels": omni_service_pb2.ListModelsRequest,
    "ListVoices": omni_service_pb2.ListVoicesRequest,
}
STREAMED = {"Converse": converse_pb2.ConverseRequest, "Transcribe": omni_service_pb2.TranscribeRequest}
FAULTS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.UNAVAILABLE)
OWN_FAULTS = (httpx.LocalProtocolError, h11.LocalProtocolError)  # of a client that does not send what it announced
HEADERS = (
    "x-request-id", "x-request-timeout-ms", "traceparent", "authorization", "origin", "host", "range", "accept", "cookie",
    "content-length", "transfer-encoding", "expect", "content-encoding", "if-none-match", "forwarded",
)  # fmt: skip
LINES = (
    "host: a", "content-length: 10", "content-length: -1", "content-length: 99999999999999999999", ": a", "a" * 70_000,
    "transfer-encoding: chunked", "transfer-encoding: gzip, chunked", "upgrade: websocket", "connection: upgrade",
    "expect: 100-continue",
)  # fmt: skip
EVENTS = (
    "session.update", "input_audio_buffer.append", "input_audio_buffer.commit", "input_audio_buffer.clear",
    "output_audio_buffer.clear", "conversation.item.create", "conversation.item.delete", "conversation.item.retrieve",
    "conversation.item.truncate", "response.create", "response.cancel", "session.close", "",
)  # fmt: skip


class RestAttack:
    """`document` is the server's own /openapi.json."""

    def __init__(self, client: httpx.AsyncClient, document: dict[str, Any], model: str, voice: str) -> None:
        self._client = client
        self._deep = DeepRest(client, model, voice, self.borne)
        self._shapes = Shapes(document)
        self._json: list[tuple[str, dict[str, Any]]] = []
        self._forms: list[tuple[str, dict[str, Any]]] = []
        for path, methods in document["paths"].items():
            for kind, content in methods.get("post", {}).get("requestBody", {}).get("content", {}).items():
                (self._json if kind == "application/json" else self._forms).append((path, content["schema"]))
        self.paths = [*document["paths"]]

    async def __call__(self, chance: random.Random) -> str:
        kinds = (self._deep, self.body, self.form, self.head, self.raw, self.leaver)
        kind: Callable[[random.Random], Awaitable[str]] = chance.choices(kinds, (50, 25, 10, 8, 4, 3))[0]
        return await asyncio.wait_for(kind(chance), SECONDS)

    async def body(self, chance: random.Random) -> str:
        path, schema = chance.choice(self._json)
        document = self._shapes.instance(schema, chance) if chance.random() < 0.4 else likely_body(path, chance)
        for _ in range(chance.randrange(3)):
            document = broken(document, chance)
        kind = "application/json"
        if chance.random() < 0.1:
            kind = chance.choice(("text/plain", "multipart/form-data", "application/json; charset=utf-16", "a"))
        answer = await self._client.post(path, content=encoded(document, chance), headers={"content-type": kind})
        return self.borne(answer)

    async def form(self, chance: random.Random) -> str:
        path, schema = chance.choice(self._forms)
        fields = {"model": "omni-scripted", "prompt": "a cat"}
        if chance.random() < 0.5:
            fields = {name: clean(str(made)) for name, made in self._shapes.instance(schema, chance).items()}
        names = ["file" if "audio" in path else "image"]
        if chance.random() < 0.3:
            names += [chance.choice(("file", "image[]", "mask", clean(text(chance)[:10]) or "x"))]
        files = [(name, (clean(text(chance)[:40]) or "a", medium(chance), "image/png")) for name in names]
        request = self._client.build_request("POST", path, data=fields, files=files)
        content, kind = await request.aread(), request.headers["content-type"]
        if chance.random() < 0.2:
            place = chance.randrange(len(content))
            content = content[:place] + chance.choice((b"", b"--", b"\r\n", b"\0")) + content[place + chance.randrange(50) :]
            kind = chance.choice((kind, kind, "multipart/form-data", "multipart/form-data; boundary="))
        return self.borne(await self._client.post(path, content=content, headers={"content-type": kind}))

    async def head(self, chance: random.Random) -> str:
        path = chance.choice(
            (*self.paths, "/", "/v1/../../etc/passwd", "/v1/media/%2e%2e%2fkeys", "/%00", "/v1/models/" + "a" * 3000)
        )
        headers = {chance.choice(HEADERS): _header(chance) for _ in range(chance.randrange(1, 4))}
        method = chance.choice(("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW", "POST"))
        with contextlib.suppress(httpx.RemoteProtocolError, httpx.InvalidURL, *OWN_FAULTS):
            # A connection of its own, for nobody knows what is left on it.
            async with httpx.AsyncClient(base_url=self._client.base_url, timeout=SECONDS) as client:
                return self.borne(await client.request(method, path, headers=headers))
        return "closed"

    async def raw(self, chance: random.Random) -> str:
        """What is no HTTP. The answer is 400 or a closed connection; a half request is given up by its client."""
        start = chance.choice(
            ("POST /v1/chat/completions HTTP/1.1", "GET / HTTP/9.9", "PRI * HTTP/2.0", "\0\1\2", "GET /" + "a" * 70_000)
        )
        lines = chance.choices(LINES, k=chance.randrange(4))
        tail = chance.choice(("\r\n\r\n", "\r\n\r\nzz\r\n", "\r\n\r\nffffffffffffffffff\r\n", "\r\n\r\n5\r\nab", "\n\n", ""))
        reader, writer = await asyncio.open_connection(self._client.base_url.host, self._client.base_url.port)
        try:
            writer.write("\r\n".join((start, *lines)).encode("latin-1") + tail.encode())
            with contextlib.suppress(TimeoutError, ConnectionError):
                said = await asyncio.wait_for(reader.read(64), 0.3)
                assert not said.startswith(b"HTTP/1.1 5"), said
        finally:
            writer.close()
        return "raw"

    async def leaver(self, chance: random.Random) -> str:
        """A client that goes away midway."""
        body = {"model": "omni-scripted", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        async with httpx.AsyncClient(base_url=self._client.base_url, timeout=SECONDS) as client:
            with contextlib.suppress(TimeoutError, *OWN_FAULTS):
                async with (
                    asyncio.timeout(chance.random() * 0.02),
                    client.stream("POST", "/v1/chat/completions", json=body) as answer,
                ):
                    async for _ in answer.aiter_raw():
                        pass
        return "left"

    def borne(self, answer: httpx.Response) -> str:
        deliberate = answer.status_code == 503 and answer.headers.get("retry-after")
        deliberate = deliberate or (answer.status_code == 501 and "error" in answer.text)
        assert answer.status_code < 500 or deliberate, (
            f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:300]}"
        )
        return f"{answer.status_code}{_code(answer)}"


def _code(answer: httpx.Response) -> str:
    """Of our own error, and whether it was only that the body could not be read at all."""
    if answer.status_code < 400:
        return ""
    try:
        error = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        return " (not ours)"
    return f" {UNREAD}" if UNREADABLE.search(str(error["message"])) else f" {error['code']}"


def clean(told: str) -> str:
    """Without what UTF-8 cannot say."""
    return told.encode("utf-8", "replace").decode()


def _header(chance: random.Random) -> bytes:
    drawn = text(chance).encode("utf-8", "replace")[:5000]
    return bytes(byte for byte in drawn if byte >= 0x20 and byte != 0x7F).strip() or b"1"


class SocketAttack:
    def __init__(self, url: str, model: str, voice: str) -> None:
        self._url = url.replace("http", "ws", 1)
        self._deep = DeepSocket(url, model, voice)

    async def __call__(self, chance: random.Random) -> str:
        return await asyncio.wait_for((self._deep if chance.random() < 0.6 else self.talk)(chance), SECONDS)

    async def talk(self, chance: random.Random) -> str:
        path = chance.choice(("/v1/realtime", "/v1/realtime", "/v1/live/sessions"))
        query = chance.choice(("", "", "?model=omni-scripted", "?model=", "?model=%00", "?" + "a" * 2000))
        try:
            async with websockets.connect(self._url + path + query, max_size=None, open_timeout=SECONDS) as socket:
                for _ in range(chance.randrange(1, 6)):
                    await socket.send(self.message(chance))
                if chance.random() < 0.2:
                    socket.transport.abort()
                    return "left"
                return await heard(socket)
        except websockets.InvalidStatus as refused:
            assert refused.response.status_code < 500, refused.response
            return str(refused.response.status_code)
        except websockets.ConnectionClosed as closed:
            assert closed.rcvd is None or closed.rcvd.code != 1011, closed
            return "closed"

    def message(self, chance: random.Random) -> str | bytes:
        event: dict[str, Any] = {"type": chance.choice(EVENTS)}
        samples = chance.choice((bytes(960), bytes(961), medium(chance)[:200_000]))
        sound = base64.b64encode(samples).decode()
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text(chance)}]}
        session = {"type": "realtime", "output_modalities": ["text"], "audio": value(chance)}
        response = {"output_modalities": ["audio"], "instructions": text(chance)}
        likely = {"audio": sound, "session": session, "item": item, "response": response, "item_id": "item", "content_index": 0}
        event |= {name: made for name, made in likely.items() if chance.random() < 0.5}
        for _ in range(chance.randrange(3)):
            event = broken(event, chance) if isinstance(event, dict) else event
        said = encoded(event, chance)
        return said if chance.random() < 0.1 else said.decode("utf-8", "replace")


class RpcAttack:
    def __init__(self, channel: grpc.aio.Channel, voice: str) -> None:
        self._channel = channel
        self._deep = DeepRpc(channel, voice, self.borne)
        self._stub = omni_service_pb2_grpc.OmniServiceStub(channel)  # type: ignore[no-untyped-call]

    async def __call__(self, chance: random.Random) -> str:
        kinds = (self._deep, self.unary, self.streamed, self.bytes)
        kind: Callable[[random.Random], Awaitable[str]] = chance.choices(kinds, (50, 22, 18, 10))[0]
        return await asyncio.wait_for(kind(chance), SECONDS)

    async def unary(self, chance: random.Random) -> str:
        name = chance.choice(("Generate", "Generate", "Generate", "Synthesize", "ListModels", "ListVoices"))
        call = getattr(self._stub, name)(filled(UNARY[name](), chance), timeout=SECONDS)
        if chance.random() < 0.1:
            await asyncio.sleep(chance.random() * 0.02)
            call.cancel()
        return await self.borne(call, name)

    async def streamed(self, chance: random.Random) -> str:
        name = chance.choice(list(STREAMED))
        messages = [filled(STREAMED[name](), chance) for _ in range(chance.randrange(5))]
        if chance.random() < 0.7:
            first = STREAMED[name]()
            first.config.SetInParent()
            messages.insert(0, first)

        async def sent() -> Any:
            for message in messages:
                yield message

        return await self.borne(getattr(self._stub, name)(sent(), timeout=SECONDS), name)

    async def bytes(self, chance: random.Random) -> str:
        """What is no message, or a message cut or changed; also of methods that there are not."""
        name = chance.choice((*UNARY, *STREAMED, "Nothing"))
        whole = filled(UNARY.get(name, STREAMED.get(name, UNARY["Generate"]))(), chance).SerializeToString()
        content = bytearray(whole[: chance.randrange(len(whole) + 1)] if chance.random() < 0.5 else whole) or bytearray(
            b"\xff\xff"
        )
        for _ in range(chance.randrange(1, 5)):
            content[chance.randrange(len(content))] = chance.randrange(256)

        async def sent() -> Any:
            yield bytes(content)

        return await self.borne(self._channel.stream_stream(SERVICE + name)(sent(), timeout=SECONDS), name)

    async def borne(self, call: Any, name: str) -> str:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            if hasattr(call, "__aiter__"):
                async for _ in call:
                    pass
            else:
                await call
        code = await call.code()
        told = await call.details() or ""
        if told == "Internal error from Core":  # the client's own library, where the refusal comes before all is sent
            return "refused midway"
        assert code not in FAULTS, f"{name}: {code.name} {told}"
        assert code is not grpc.StatusCode.DEADLINE_EXCEEDED, f"{name} hung"
        return str(code.name) if code is grpc.StatusCode.OK else f"{code.name} {await _reason(call, told)}"


async def _reason(call: Any, told: str) -> str:
    """Of our own error, by its code."""
    if UNREADABLE.search(told):
        return UNREAD
    try:
        status = await status_of_call.from_call(call)
    except ValueError:
        status = None
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info):
            return str(info.reason.lower())
    return "(not ours)"
