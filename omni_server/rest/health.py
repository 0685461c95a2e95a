"""Steps 1 and 8. `GET /health`: the process lives. `GET /ready`: it can serve, in all and per modality."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from omni_server.door import Door
from omni_server.wording import shown


def health_router(door: Door) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/health")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/ready")
    async def ready() -> JSONResponse:
        """503 where not even text can be served. With text alone the server still helps, so it stays in rotation and
        says `degraded`; `/ready/{modality}` is the strict question."""
        modalities = await door.pipeline.ready()
        serving = modalities.get("text", False)
        status = "unavailable" if not serving else "ready" if all(modalities.values()) else "degraded"
        return JSONResponse({"status": status, "modalities": modalities}, status_code=200 if serving else 503)

    @router.get("/ready/{modality}")
    async def ready_for(modality: str) -> JSONResponse:
        modalities = await door.pipeline.ready()
        if modality not in modalities:
            names = ", ".join(f"`{name}`" for name in modalities)
            raise HTTPException(404, f"The modality {shown(modality)} is not served here; expected one of {names}.")
        serving = modalities[modality]
        body = {"status": "ready" if serving else "unavailable", "modalities": {modality: serving}}
        return JSONResponse(body, status_code=200 if serving else 503)

    return router
