"""The realtime door behind keys: who may open it, and who pays for what is said in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import websockets

from omni_server.access import Access
from omni_server.app import build_app
from omni_server.config import Settings
from omni_server.keys import KeyFile, Limits, add_key
from omni_server.rest.access import KEY_PROTOCOL
from tests.doubles import HandClock, LoudEars, ScriptedPipeline
from tests.realtime.doors import spoken
from tests.rest.scripts import served

ASK = {"type": "response.create", "response": {"output_modalities": ["text"], "instructions": "Say something."}}


async def answered(socket: Any) -> dict[str, Any]:
    await socket.send(json.dumps(ASK))
    while (event := json.loads(await socket.recv()))["type"] not in ("response.done", "error"):
        pass
    return dict(event)


async def test_a_call_needs_a_key_and_each_answer_is_paid_for(tmp_path: Path) -> None:
    """Catches a live door that no key guards, a browser that cannot bring its key, and answers that no quota counts."""
    path = tmp_path / "keys"
    key = add_key(path, "ann", Limits(tokens_per_minute=20))
    pipeline, ears = ScriptedPipeline(*spoken()), LoudEars()
    app = build_app(pipeline, Settings(keys_file=path), ears, Access(KeyFile(path), HandClock()))  # type: ignore[arg-type]
    with served(pipeline, app=app) as address:
        url = address.replace("http", "ws", 1) + "/v1/realtime"
        with pytest.raises(websockets.InvalidStatus, match="401"):
            await websockets.connect(url)
        protocols: Any = ["realtime", KEY_PROTOCOL + key]
        async with websockets.connect(url, subprotocols=protocols) as socket:
            assert socket.subprotocol == "realtime"
            for _ in range(2):  # of 17 tokens each
                assert (await answered(socket))["response"]["status"] == "completed"
            refused = await answered(socket)
            assert "rate_limit_exceeded" in json.dumps(refused) and key not in json.dumps(refused)
