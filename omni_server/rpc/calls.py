"""Steps 1 and 8. What every call has in common: its id, and an ending that says what went wrong."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from omni_server.call import FIRST_AUDIO, Call, seconds_of, under
from omni_server.errors import OmniError, ReaderStalled
from omni_server.wording import shown

logger = logging.getLogger(__name__)

DOMAIN = "omni.v1"
SAFE_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
RETRY_AFTER_SECONDS = 1
Method = Callable[[Any, Any, Any], Awaitable[Any]]


def answered(method: Method) -> Method:
    """A method whose errors become statuses. Cancelling the call cancels it, so its clean-up stands in `finally`.
    `servicer.calls` holds the tasks under way."""

    @wraps(method)
    async def call(servicer: Any, request: Any, context: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None
        servicer.calls.add(task)
        task.add_done_callback(servicer.calls.discard)
        request_id = request_id_of(context)
        metadata: tuple[tuple[str, str], ...] = (("x-request-id", request_id),)
        await context.send_initial_metadata(metadata)
        timed = Call(request_id)
        try:
            if isinstance(request, OmniError):
                raise request
            timed = call_of(request_id, context)
            with under(timed):
                return await method(servicer, request, Patient(context, servicer._door.settings.reader_seconds))
        except OmniError as error:
            if error.http_status == 500:
                logger.error("call %s failed: %s", request_id, error, exc_info=error)
            failure = error
        except (asyncio.CancelledError, grpc.aio.BaseError):
            raise
        except Exception:
            logger.exception("call %s failed", request_id)
            failure = OmniError(f"The server failed; its log tells more under request {shown(request_id)}.")
        finally:
            told = (("server-timing", timed.server_timing()), ("x-first-audio-plan", ",".join(sorted(timed.plans))))
            metadata = (*metadata, *((name, value) for name, value in told if value))
            context.set_trailing_metadata(metadata)
        status = status_of(failure)
        details = ("grpc-status-details-bin", status.SerializeToString())
        await context.abort(code_of(failure), failure.message, (*metadata, details))

    return call


class Patient:
    """A call's context of which every write has its time: a client that does not read is given up."""

    def __init__(self, context: Any, seconds: float) -> None:
        self._context, self._seconds = context, seconds

    async def write(self, message: Any) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await self._context.write(message)
        except TimeoutError:
            raise ReaderStalled(f"the client has read nothing for `{self._seconds:g}` seconds") from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def request_id_of(context: Any) -> str:
    """The client's own if it sent one that can stand in a log."""
    given = dict(context.invocation_metadata() or ()).get("x-request-id", "")
    return given if isinstance(given, str) and SAFE_REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"


def call_of(request_id: str, context: Any) -> Call:
    """Raises RequestError where a time is not one."""
    given = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
    seconds = context.time_remaining()
    return Call(
        request_id,
        traceparent=given.get("traceparent"),
        deadline=None if seconds is None else time.monotonic() + seconds,
        first_audio_within=seconds_of(FIRST_AUDIO, given.get(FIRST_AUDIO)),
    )


def code_of(error: OmniError) -> grpc.StatusCode:
    return grpc.StatusCode[error.grpc_code]


def reason_of(error: OmniError) -> str:
    """The `code` that the same error has at the REST door, in upper case as gRPC has it."""
    return (error.code or "internal_error").upper()


def status_of(error: OmniError) -> status_pb2.Status:
    info = error_details_pb2.ErrorInfo(reason=reason_of(error), domain=DOMAIN)
    if error.param is not None:
        info.metadata["field"] = error.param
    details = [_packed(info)]
    if error.retry:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round((error.retry_after or RETRY_AFTER_SECONDS) * 1e9))
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status_pb2.Status(code=code_of(error).value[0], message=error.message, details=details)


def _packed(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
