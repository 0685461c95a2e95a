"""Step 8. Every error as OpenAI's clients expect it, and an `x-request-id` on every answer."""

from __future__ import annotations

import logging
import math
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace

from fastapi import FastAPI
from fastapi.requests import Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omni_server.call import FIRST_AUDIO, TIMEOUT, Call, seconds_of, under
from omni_server.errors import OmniError, RequestError, Unauthenticated
from omni_server.wording import shown

logger = logging.getLogger(__name__)

SAFE_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
RETRY_AFTER_SECONDS = 1


class Calls:
    """Gives each request an id, the client's own if it sent one, and puts it on the answer, with the time that each stage has
    taken so far. A stream says at its end, as a comment, what it took in all."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if SAFE_REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
        scope.setdefault("state", {})["request_id"] = request_id
        events = False

        async def send_with_id(message: Message) -> None:
            nonlocal events
            if message["type"] == "http.response.start":
                events = any(value.startswith(b"text/event-stream") for _, value in message["headers"])
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode("latin-1"))]
                told = [("server-timing", call.server_timing()), ("x-first-audio-plan", ",".join(sorted(call.plans)))]
                message["headers"] += [(name.encode(), value.encode("latin-1")) for name, value in told if value]
            elif events and not message.get("more_body") and (timing := call.server_timing()):
                message["body"] = message.get("body", b"") + f": server-timing {timing}\n\n".encode("latin-1")
            await send(message)

        call = Call(request_id)
        try:
            call = read_call(request_id, {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()})
        except RequestError as error:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": error.message[:120]})
            else:
                await error_response(error)(scope, receive, send_with_id)
            return
        if scope["type"] == "websocket":
            call = replace(call, deadline=None)  # it is as long as the conversation is
        with under(call):
            await self._app(scope, receive, send_with_id)


def read_call(request_id: str, headers: Mapping[str, str]) -> Call:
    """Raises RequestError where a time is not one."""
    seconds = seconds_of(TIMEOUT, headers.get(TIMEOUT))
    return Call(
        request_id,
        traceparent=headers.get("traceparent"),
        deadline=None if seconds is None else time.monotonic() + seconds,
        first_audio_within=seconds_of(FIRST_AUDIO, headers.get(FIRST_AUDIO)),
    )


def error_body(error: OmniError) -> dict[str, object]:
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def error_response(error: OmniError) -> JSONResponse:
    # Without this header a stock client repeats every 5xx, also where the repetition must fail in the same way.
    headers = {"x-should-retry": "true" if error.retry else "false"}
    if error.retry:
        seconds = error.retry_after or RETRY_AFTER_SECONDS
        # Stock clients take the finer one where there are both.
        headers |= {"retry-after": str(math.ceil(seconds)), "retry-after-ms": str(math.ceil(seconds * 1000))}
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(error_body(error), status_code=error.http_status, headers=headers)


def install(app: FastAPI) -> None:
    """Makes every way in which a request can end badly speak the same shape."""
    app.add_middleware(Calls)

    @app.exception_handler(OmniError)
    async def known(request: Request, error: OmniError) -> JSONResponse:
        if error.http_status == 500:  # refusals and deadlines are in the line of each reply, and are no fault of ours
            logger.error("request %s failed: %s", request.state.request_id, error, exc_info=error)
        return error_response(error)

    @app.exception_handler(HTTPException)
    async def refused_by_router(request: Request, error: HTTPException) -> JSONResponse:
        place = shown(f"{request.method} {request.url.path}")
        # Starlette's own 404 says no more than `Not Found`; those of our routes say what is missing.
        message = {
            404: f"There is nothing at {place}; `GET /openapi.json` lists what there is."
            if error.detail == "Not Found"
            else error.detail,
            405: f"{place} is not allowed; expected {(error.headers or {}).get('Allow', 'another method')}.",
        }.get(error.status_code, str(error.detail))
        body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
        headers = {**(error.headers or {}), "x-should-retry": "false"}
        return JSONResponse(body, status_code=error.status_code, headers=headers)

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> JSONResponse:
        # Starlette answers this one outside of all middleware and raises it again, so the server logs the traceback.
        request_id = request.state.request_id
        response = error_response(OmniError(f"The server failed; its log tells more under request `{request_id}`."))
        response.headers["x-request-id"] = request_id
        return response
