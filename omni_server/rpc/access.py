"""Step 1. Who may come in over gRPC: API keys in the metadata, looked at before a byte of a request is read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import grpc

from omni_server.access import bearer
from omni_server.door import Door
from omni_server.errors import OmniError
from omni_server.rpc.calls import code_of, request_id_of, status_of

# A probe brings no key, and what the methods are is no secret: `--grpc-reflection false` keeps it quiet all the same.
OPEN_SERVICES = ("/grpc.health.", "/grpc.reflection.")


class AccessInterceptor(grpc.aio.ServerInterceptor):
    def __init__(self, door: Door) -> None:
        self._access = door.access
        self._rejected = door.pipeline.measures.rejected

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        if details.method.startswith(OPEN_SERVICES):
            return await continuation(details)
        given = dict(details.invocation_metadata or ()).get("authorization", "")
        held = ExitStack()
        try:
            held.enter_context(self._access.call(bearer(given) if isinstance(given, str) else None))
        except OmniError as error:
            self._rejected(str(error.code))
            return refusal(error)
        task = asyncio.current_task()  # of this one call; it ends when the call has ended, however it does
        assert task is not None
        task.add_done_callback(lambda _: held.close())
        return await continuation(details)


def refusal(error: OmniError) -> grpc.RpcMethodHandler:
    """Answers whatever was called; as a stream, so that no message has to come first."""

    async def refuse(requests: Any, context: Any) -> None:
        named = ("x-request-id", request_id_of(context))
        details = ("grpc-status-details-bin", status_of(error).SerializeToString())
        await context.abort(code_of(error), error.message, (named, details))

    return grpc.stream_stream_rpc_method_handler(refuse)
