"""The real server's gRPC door, on a free port of loopback, beside its REST door."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.conftest import RealServer


@pytest.fixture
async def grpc_target(server: RealServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Host and port; also in OMNI_GRPC_TARGET, as in a deployment with ports of its own."""
    from omni_server.config import Settings
    from omni_server.door import Door
    from omni_server.rpc import RpcServer

    rpc = RpcServer(Door(server.pipeline, Settings(shutdown_seconds=0)))
    await rpc.start(0)
    monkeypatch.setenv("OMNI_GRPC_TARGET", f"127.0.0.1:{rpc.port}")
    try:
        yield f"127.0.0.1:{rpc.port}"
    finally:
        await rpc.drain()
