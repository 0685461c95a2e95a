"""A server with a certificate of its own making, over REST and over gRPC."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest

from omni_client import APIConnectionError, AsyncOmniClient, OmniClient, OmniError
from tests.clients.scripted_service import ScriptedService, service
from tests.rpc.test_server import certificate


class Models(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"data": [{"id": "m"}]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def secured(cert: Path, key: Path) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Models)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a client that trusts anybody, and one that cannot be told whom to trust."""
    cert, key = certificate(tmp_path)

    def ask(**given: Any) -> str:
        with OmniClient(url, max_retries=0, **given) as client:
            return client.models()[0].id

    with secured(cert, key) as url:
        assert await asyncio.to_thread(ask, ca_file=cert) == "m"
        with pytest.raises(APIConnectionError, match=r"(?i)certificate"):
            await asyncio.to_thread(ask)
        monkeypatch.setenv("OMNI_CA_FILE", str(cert))
        async with AsyncOmniClient(url) as client:
            assert (await client.models())[0].id == "m"
    with pytest.raises(OmniError, match="certificates"):
        OmniClient(url, ca_file=key)
    with pytest.raises(OmniError, match="certificates"):
        OmniClient(url, ca_file=tmp_path / "nothing.pem")


async def test_grpc(tmp_path: Path) -> None:
    """Catches sound that goes over the network in the clear although the server's address says https."""
    cert, key = certificate(tmp_path)

    async def script(scripted: ScriptedService, context: Any) -> None:
        await scripted.begin(context)

    credentials = grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())])
    async with service(script, credentials) as (_, target):
        given: Any = {"base_url": "https://127.0.0.1:9", "grpc_target": target, "ca_file": cert}
        async with AsyncOmniClient(**given) as client, client.converse() as call:
            assert call.ready is not None

        def hold() -> None:
            with OmniClient(**given) as client, client.converse() as call:
                assert call.ready is not None

        await asyncio.to_thread(hold)
