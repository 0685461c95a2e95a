"""One real server for the whole session: the embedded checkpoint, a real vLLM engine, a real socket on loopback."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import uvicorn

from omni_server.config import Settings
from omni_server.pipeline import Pipeline

# Read when torch and vLLM are first imported; threads that spin on two shared cores starve the engine.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault(
    "TORCHDYNAMO_DISABLE", "1"
)  # as a server on a CPU has it: likelihoods would be compiled for half a minute


@dataclass(frozen=True, slots=True)
class RealServer:
    pipeline: Pipeline
    url: str

    @property
    def unfinished(self) -> int:
        """Requests that the engine still works on."""
        return int(self.pipeline.backbone.living.unfinished_requests())  # type: ignore[attr-defined]


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[RealServer]:
    """A server with a real engine and a free port on loopback."""
    from omni_server.app import build_app, open_ears, open_pipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # vLLM's own imports warn
        async with open_pipeline(settings) as pipeline, open_ears(settings) as ears:
            config = uvicorn.Config(build_app(pipeline, settings, ears), host="127.0.0.1", port=0, log_level="warning")
            served = uvicorn.Server(config)
            task = asyncio.create_task(served.serve())
            while not served.started:
                await asyncio.sleep(0.01)
            port = served.servers[0].sockets[0].getsockname()[1]
            try:
                yield RealServer(pipeline, f"http://127.0.0.1:{port}")
            finally:
                served.should_exit = True
                await task


@pytest.fixture(scope="session")
async def server() -> AsyncIterator[RealServer]:
    async with serving(Settings(port=0, threads=1, allow_media_urls=True, allow_private_media_urls=True)) as running:
        yield running
