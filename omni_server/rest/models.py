"""Steps 1 and 8. `GET /v1/models` and `GET /v1/models/{id}`: what this server can be asked for."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from omni_server.door import Door
from omni_server.errors import ModelNotFound
from omni_server.wording import shown


def models_router(door: Door) -> APIRouter:
    router = APIRouter(prefix="/v1/models", tags=["models"])

    @router.get("")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(door, name) for name in (door.model, *door.adapters)]}

    # A model's name may hold slashes.
    @router.get("/{model:path}")
    async def retrieve_model(model: str) -> dict[str, Any]:
        if model not in (door.model, *door.adapters):
            raise ModelNotFound(f"`model` is {shown(model)}; this server has `{door.model}`", param="model")
        return _model(door, model)

    return router


def _model(door: Door, name: str) -> dict[str, Any]:
    """OpenAI's four fields; what else the checkpoint can do stands under a key of its own."""
    checkpoint = door.pipeline.checkpoint
    return {
        "id": name,
        "object": "model",
        "created": door.opened_at,
        "owned_by": "omni-server",
        "omni": {
            "input_modalities": sorted(checkpoint.modalities_in),
            "output_modalities": sorted(checkpoint.modalities_out),
            "voices": list(checkpoint.voices),
            "context_length": checkpoint.context_length,
        },
    }
