"""Step 8. `GET /v1/media/{name}`: a file that an answer has named by URL. Whoever knows the name may have it."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.requests import Request as HttpRequest
from fastapi.responses import Response

from omni_server.door import Door
from omni_server.errors import MediaNotFound
from omni_server.wording import shown

PATH = "/v1/media"


def media_router(door: Door) -> APIRouter:
    router = APIRouter(tags=["media"])

    @router.head(PATH + "/{name}", include_in_schema=False)
    @router.get(PATH + "/{name}")
    async def retrieve_media(name: str) -> Response:
        found = await door.media.find(name)
        if found is None:
            raise MediaNotFound(f"there is no file {shown(name)}; it was never here, has expired, or newer ones took its place")
        headers = {
            "cache-control": f"private, max-age={found.seconds_left}, immutable",
            "etag": f'"{name}"',
            "x-content-type-options": "nosniff",
        }
        return Response(found.file, media_type=found.media_type, headers=headers)

    return router


async def media_url(door: Door, request: HttpRequest, file: bytes, media_type: str, ending: str, param: str) -> str:
    """Stores `file`; the URL under which its client finds it."""
    name = await door.media.put(file, media_type, ending, param)
    base = door.settings.public_url or str(request.base_url).rstrip("/")
    return await door.media.link(name) or f"{base}{PATH}/{name}"
