"""Bytes that are no message of the wire."""

from __future__ import annotations

import grpc
import pytest

from tests.doubles import ScriptedPipeline
from tests.rpc.doors import error_info, rpc_client


@pytest.mark.parametrize("method", ["Generate", "Synthesize", "ListModels", "Converse", "Transcribe"])
async def test_bytes_that_are_no_message_are_the_clients_fault(method: str, caplog: pytest.LogCaptureFixture) -> None:
    """Catches UNKNOWN, which says that the server failed, and a traceback in the log for whatever a stranger sends."""
    async with rpc_client(ScriptedPipeline()) as client:
        call = client.channel.stream_stream(f"/omni.v1.OmniService/{method}")()
        await call.write(b"\xff\xff\xff")
        code, message, info, again = await error_info(call)
    assert (code, info.reason, again) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_VALUE", False)
    assert "`3` bytes" in message and "Traceback" not in caplog.text
