"""Steps 1 and 8. `GET /metrics`: what the server counts and times, for Prometheus."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from fastapi.responses import Response

from omni_server.door import Door
from omni_server.measures import CONTENT_TYPE


def metrics_router(door: Door) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/metrics")
    async def metrics() -> Response:
        door.pipeline.measures.tasks.set(len(asyncio.all_tasks()))
        return Response(door.pipeline.measures.exposition(), headers={"content-type": CONTENT_TYPE})

    return router
