"""Step 1. Who may come in over HTTP and WebSocket: API keys, and which web pages' scripts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from omni_server.access import Access, bearer, is_address
from omni_server.door import Door
from omni_server.errors import Forbidden, OmniError
from omni_server.rest.errors import error_response
from omni_server.wording import shown

# A browser can set no header on a WebSocket; stock clients put the key here.
KEY_PROTOCOL = "openai-insecure-api-key."
# A probe and a picture in a web page bring no key. Whoever has the name of a file was given it.
OPEN_PATHS = ("/health", "/ready", "/ready/", "/v1/media/")
READ_BY_SCRIPTS = ("x-request-id", "retry-after", "x-should-retry", "server-timing")


class Doorkeeper:
    """Lets a call through, or answers it. Nothing of its body has been read by then."""

    def __init__(self, app: ASGIApp, access: Access, origins: tuple[str, ...], rejected: Callable[[str], None]) -> None:
        """`rejected` is told the code of each refusal."""
        self._app = app
        self._access = access
        self._origins = origins
        self._rejected = rejected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or is_open(scope):
            await self._app(scope, receive, send)
            return
        with ExitStack() as held:
            try:
                self._check_origin(scope)
                held.enter_context(self._access.call(key_of(scope)))
            except OmniError as error:
                self._rejected(str(error.code))
                await error_response(error)(scope, receive, send)
                return
            await self._app(scope, receive, send)

    def _check_origin(self, scope: Scope) -> None:
        """A script of a foreign web page can make a browser send what it may not read, to a server that only this browser
        reaches, and CORS does not guard WebSockets at all. Programs that are no browsers send no `Origin`."""
        origin, host = header(scope, b"origin").lower(), header(scope, b"host").lower()
        if not origin or "*" in self._origins or origin in self._origins:
            return
        own = origin.partition("://")[2] == host
        # Anybody can let a name of theirs point here and serve a page under it.
        if own and (not self._access.open or is_address(urlsplit(f"//{host}").hostname or "")):
            return
        raise Forbidden(f"the origin {shown(origin)} may not call this server; an operator can allow it with --allowed-origins")


def is_open(scope: Scope) -> bool:
    path = scope["path"]
    return any(path.startswith(known) if known.endswith("/") else path == known for known in OPEN_PATHS)


def key_of(scope: Scope) -> str | None:
    if given := header(scope, b"authorization"):
        return bearer(given)
    if scope["type"] == "websocket":
        for protocol in scope.get("subprotocols", ()):
            if protocol.startswith(KEY_PROTOCOL):
                return str(protocol).removeprefix(KEY_PROTOCOL)
    return None


def header(scope: Scope, name: bytes) -> str:
    return str(dict(scope["headers"]).get(name, b"").decode("latin-1"))


def install(app: FastAPI, door: Door) -> None:
    origins = door.settings.allowed_origins
    app.add_middleware(Doorkeeper, access=door.access, origins=origins, rejected=door.pipeline.measures.rejected)
    if origins:  # outside of the doorkeeper: a browser asks first without a key, and its script should see a refusal too
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=READ_BY_SCRIPTS,
        )
