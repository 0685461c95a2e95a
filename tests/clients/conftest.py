"""The real server's gRPC door, on a free port of loopback, beside its REST door."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.conftest import RealServer


@pytest.fixture
async def grpc_target(server: RealServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Host and port; also in OMNI_GRPC_TARGET, as in a deployment with ports of its own."""
    from tests.rpc.doors import rpc_client

    async with rpc_client(server.pipeline) as client:
        target = f"127.0.0.1:{client.server.port}"
        monkeypatch.setenv("OMNI_GRPC_TARGET", target)
        yield target
