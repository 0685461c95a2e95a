"""Step 1: who may come in over HTTP and WebSocket."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from starlette.websockets import WebSocket

from omni_server.access import Access
from omni_server.config import Settings
from omni_server.errors import OmniError
from omni_server.keys import KeyFile, Limits, add_key
from omni_server.rest.access import KEY_PROTOCOL, Doorkeeper
from tests.doubles import Forever, HandClock, ScriptedPipeline
from tests.rest.scripts import ask, done, door, picture, served, tone, voice, words
from tests.rpc.test_server import certificate

CHAT = "/v1/chat/completions"


def keyed(path: Path, **limits: Any) -> tuple[Settings, dict[str, str]]:
    """Settings with a keys file, and the headers of one who may call."""
    key = add_key(path / "keys", "ann", Limits(**limits))
    return Settings(keys_file=path / "keys"), {"authorization": f"Bearer {key}"}


async def test_without_a_key_only_probes_are_answered(tmp_path: Path) -> None:
    """Catches a route that the key was forgotten at, a probe that restarts the server for its want of a key, and a wrong key
    that is told back or logged."""
    settings, headers = keyed(tmp_path)
    async with door(ScriptedPipeline(*words(0, "hi"), done()), settings) as client:
        for path in ("/health", "/ready", "/ready/text"):
            assert (await client.get(path)).status_code == 200
        for method, path in (
            ("POST", CHAT),
            ("GET", "/v1/models"),
            ("GET", "/metrics"),
            ("GET", "/openapi.json"),
            ("GET", "/x"),
        ):
            refused = await client.request(method, path, headers={"authorization": "Bearer sk-omni-wrong"})
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer" and refused.headers["x-should-retry"] == "false"
            assert refused.headers["x-request-id"]
            assert refused.json()["error"]["code"] == "invalid_api_key" and "wrong" not in refused.text
        assert (await client.post(CHAT, json=ask())).status_code == 401
        assert (await client.post(CHAT, json=ask(), headers=headers)).status_code == 200


async def test_each_reply_is_counted_by_what_it_made(tmp_path: Path) -> None:
    """Catches a quota that is counted in requests only, or of one wire, and a Retry-After that is always the same."""
    settings, headers = keyed(tmp_path, tokens_per_minute=1000, audio_seconds_per_minute=1.5, images_per_minute=1)
    script = [*words(0, "hi"), *voice(1, tone(2.0)), *picture(2), done()]
    wishes = {"modalities": ["text", "audio"], "audio": {"voice": "mint", "format": "wav"}}
    access = Access(KeyFile(tmp_path / "keys"), HandClock())
    async with door(ScriptedPipeline(*script), settings, access) as client:
        assert (await client.post(CHAT, json=ask(**wishes), headers=headers)).status_code == 200
        refused = await client.post(CHAT, json=ask(**wishes), headers=headers)
        assert refused.status_code == 429 and refused.headers["x-should-retry"] == "true"
        assert refused.headers["retry-after"] == "60"  # half a second is owed, and one is needed
        drawn = await client.post(CHAT, json=ask(modalities=["text", "image"]), headers=headers)
        assert drawn.status_code == 429 and "images" in drawn.json()["error"]["message"]
        counted = 'omni_rejections_total{reason="rate_limit_exceeded"} 2.0'
        assert counted in (await client.get("/metrics", headers=headers)).text
        for _ in range(9):  # of 100 tokens each
            assert (await client.post(CHAT, json=ask(), headers=headers)).status_code == 200
        refused = await client.post(CHAT, json=ask(), headers=headers)
        assert refused.status_code == 429 and "tokens" in refused.json()["error"]["message"]


async def test_a_reply_that_its_client_leaves_is_counted_and_its_slot_given_back(tmp_path: Path) -> None:
    """Catches a caller who never pays because they hang up before the end, and a slot that is lost with them."""
    settings, headers = keyed(tmp_path, tokens_per_minute=3, concurrency=1)
    pipeline = ScriptedPipeline(*words(0, "a", "b", "c", "d"), Forever())

    def leave() -> None:
        with (
            served(pipeline, settings) as url,
            httpx.Client(base_url=url, headers=headers) as client,
        ):
            with client.stream("POST", CHAT, json=ask(stream=True)) as response:
                lines = response.iter_lines()
                while '"d"' not in next(lines):
                    pass
                busy = client.post(CHAT, json=ask())
                assert busy.status_code == 429 and "under way" in busy.json()["error"]["message"]
            while pipeline.running:
                pass
            refused = client.post(CHAT, json=ask())
            assert refused.status_code == 429 and "tokens" in refused.json()["error"]["message"]

    await asyncio.to_thread(leave)


async def test_nothing_secret_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches a key in a log, also where everything that can be logged is."""
    caplog.set_level(logging.DEBUG)
    settings, headers = keyed(tmp_path)
    async with door(ScriptedPipeline(OmniError("a fault")), settings) as client:
        assert (await client.post(CHAT, json=ask(), headers=headers)).status_code == 500
        assert (await client.get("/metrics", headers=headers)).status_code == 200
    assert "a fault" in caplog.text and headers["authorization"].removeprefix("Bearer ") not in caplog.text


@pytest.mark.parametrize(
    ("origin", "host", "keys", "allowed", "status"),
    [
        (None, "door", False, (), 200),
        ("http://evil.example", "door", False, (), 403),
        ("null", "door", False, (), 403),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", False, (), 200),
        ("http://localhost:8000", "localhost:8000", False, (), 200),
        ("http://localhost:3000", "localhost:8000", False, (), 403),
        ("http://evil.example:8000", "evil.example:8000", False, (), 403),  # a name that points to 127.0.0.1
        ("https://omni.example", "omni.example", True, (), 200),
        ("https://chat.example", "omni.example", True, (), 403),
        ("https://chat.example", "omni.example", True, ("https://chat.example",), 200),
        ("https://chat.example", "omni.example", False, ("*",), 200),
    ],
)
async def test_scripts_of_foreign_pages(
    tmp_path: Path, origin: str | None, host: str, keys: bool, allowed: tuple[str, ...], status: int
) -> None:
    """Catches a web page that makes its visitor's own server work, and a page of the operator's that cannot."""
    settings, headers = keyed(tmp_path) if keys else (Settings(), {})
    settings = Settings(keys_file=settings.keys_file, allowed_origins=allowed)
    sent = headers | {"host": host} | ({"origin": origin} if origin else {})
    async with door(ScriptedPipeline(*words(0, "hi"), done()), settings) as client:
        answer = await client.post(CHAT, json=ask(), headers=sent)
        assert answer.status_code == status
        assert ("access-control-allow-origin" in answer.headers) is (status == 200 and bool(allowed))


async def test_a_browser_asks_before_it_sends_a_key(tmp_path: Path) -> None:
    """Catches a preflight that is refused for its want of a key, and CORS that is open unless it is closed."""
    settings, _ = keyed(tmp_path)
    sent = {
        "origin": "https://chat.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    async with door(ScriptedPipeline(), settings) as client:
        assert "access-control-allow-origin" not in (await client.options(CHAT, headers=sent)).headers
    async with door(
        ScriptedPipeline(), Settings(keys_file=settings.keys_file, allowed_origins=("https://chat.example",))
    ) as client:
        asked = await client.options(CHAT, headers=sent)
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, "https://chat.example")
        refused = await client.post(CHAT, json=ask(), headers={"origin": "https://chat.example"})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://chat.example")
        assert (
            "access-control-allow-origin"
            not in (await client.options(CHAT, headers=sent | {"origin": "https://a.example"})).headers
        )


async def test_websockets(tmp_path: Path) -> None:
    """Catches a WebSocket that no key guards, that a browser cannot bring its key to, or that any page may open."""
    path = tmp_path / "keys"
    key = add_key(path, "ann", Limits(concurrency=1))

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        socket = WebSocket(scope, receive, send)
        await socket.accept("realtime")
        await socket.send_text(await socket.receive_text())
        await socket.close()

    async def heard(url: str, protocols: list[str], **more: Any) -> str | int:
        try:
            async with websockets.connect(url, subprotocols=protocols, **more) as socket:  # type: ignore[arg-type]
                await socket.send("hello")
                return str(await socket.recv())
        except websockets.InvalidStatus as refused:
            assert b'"error"' in refused.response.body
            return refused.response.status_code

    refused: list[str] = []
    gate = Doorkeeper(echo, Access(KeyFile(path), HandClock()), (), refused.append)
    with served(ScriptedPipeline(), app=gate) as address:
        url = address.replace("http", "ws", 1) + "/v1/realtime"
        bearer = {"authorization": f"Bearer {key}"}
        assert await heard(url, ["realtime"]) == 401
        assert await heard(url, ["realtime", KEY_PROTOCOL + "wrong"]) == 401
        assert await heard(url, ["realtime"], additional_headers=bearer) == "hello"
        assert await heard(url, ["realtime", KEY_PROTOCOL + key]) == "hello"
        assert await heard(url, ["realtime", KEY_PROTOCOL + key], origin="https://evil.example") == 403
        async with websockets.connect(url, subprotocols=["realtime"], additional_headers=bearer):  # type: ignore[list-item]
            assert await heard(url, ["realtime"], additional_headers=bearer) == 429
    assert refused == ["invalid_api_key", "invalid_api_key", "forbidden", "rate_limit_exceeded"]


async def test_tls(tmp_path: Path) -> None:
    """Catches a server that speaks in the clear although it was given a certificate."""
    cert, key = certificate(tmp_path)

    def talk() -> None:
        with served(ScriptedPipeline(), Settings(tls_cert=cert, tls_key=key)) as url:
            context = ssl.create_default_context(cafile=cert)
            assert httpx.get(f"{url}/v1/models", verify=context).status_code == 200
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{url}/health")
            with pytest.raises(httpx.TransportError):
                httpx.get(url.replace("https", "http") + "/health")

    await asyncio.to_thread(talk)
