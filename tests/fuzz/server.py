"""The server that is attacked: every door over a scripted model, with real media reading, in a process that can be measured.

`python -m tests.fuzz.server` prints where it listens, as JSON, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from dataclasses import replace
from typing import Any

import uvicorn

from omni_server.access import Access
from omni_server.app import build_app, open_rpc
from omni_server.cli import rest_config
from omni_server.config import Settings
from omni_server.fetch import UrlFetcher
from omni_server.media import MediaLoader
from omni_server.quarantine import Quarantine
from tests.doubles import LoudEars
from tests.rest.scripts import done, picture, tone, voice, words
from tests.rest.worded import worded

SETTINGS = Settings(
    port=0, shutdown_seconds=1, allow_media_urls=True, max_body_bytes=8 << 20, max_media_bytes=4 << 20, max_audio_seconds=30.0
)
SCRIPT = (*words(0, "hel", "lo"), *voice(1, tone(0.5)), *picture(2), done())


async def main() -> None:
    quarantine = Quarantine(SETTINGS.media_decode_seconds)
    loader = MediaLoader(SETTINGS.media_limits, UrlFetcher(SETTINGS.url_policy), quarantine)
    pipeline: Any = worded(*SCRIPT, loader=loader)
    pipeline.checkpoint = replace(pipeline.checkpoint, clones_voices=True)
    for kept in ("requests", "warmed", "media"):  # a test looks at these; here they would be a leak of our own making
        setattr(pipeline, kept, deque(maxlen=8))
    ears: Any = LoudEars()
    server = uvicorn.Server(rest_config(build_app(pipeline, SETTINGS, ears, Access()), replace(SETTINGS, port=0)))
    serving = asyncio.create_task(server.serve())
    async with open_rpc(pipeline, SETTINGS, ears, Access()) as rpc:
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        print(json.dumps({"rest": f"http://127.0.0.1:{port}", "grpc": f"127.0.0.1:{rpc.port}"}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        server.should_exit = True
        await serving
    quarantine.close()


if __name__ == "__main__":
    asyncio.run(main())
