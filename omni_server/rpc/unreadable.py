"""Step 1. Bytes that are no message of the wire are the client's fault, and are answered like every other one of its faults."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from omni_server.errors import RequestError


class ReadingInterceptor(grpc.aio.ServerInterceptor):
    """gRPC's own answer would be UNKNOWN, as for a fault of the server."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or handler.request_deserializer is None:
            return handler
        return handler._replace(request_deserializer=reader(handler.request_deserializer, handler.request_streaming))


def reader(read: Callable[[bytes], Any], streaming: bool) -> Callable[[bytes], Any]:
    def carefully(message: bytes) -> Any:
        try:
            return read(message)
        except DecodeError:
            error = RequestError(f"a message of `{len(message)}` bytes is not of this wire; expected what its .proto files say")
            if streaming:
                raise error from None
            return error  # a method that takes one message is not there yet to catch anything; `answered` raises it

    return carefully
