"""Steps 1 and 8. The REST door: one file per OpenAI resource, built into one app here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from omni_server import __version__
from omni_server.access import Access, open_access
from omni_server.config import Settings
from omni_server.door import Door, Responder
from omni_server.media_store import MediaStore
from omni_server.metered import Metered
from omni_server.rest import access as access_gate, errors
from omni_server.rest.chat import chat_router
from omni_server.rest.completions import completions_router
from omni_server.rest.health import health_router
from omni_server.rest.images import images_router
from omni_server.rest.media import media_router
from omni_server.rest.metrics import metrics_router
from omni_server.rest.models import models_router
from omni_server.rest.openapi import DescribedApp
from omni_server.rest.patience import Patience
from omni_server.rest.response_store import ResponseStore
from omni_server.rest.responses import responses_router
from omni_server.rest.speech import speech_router
from omni_server.rest.transcriptions import transcriptions_router
from omni_server.rest.voices import consents_router, voices_router
from omni_server.vad import Ears, SileroEars

__all__ = ["create_app"]


def create_app(
    pipeline: Responder,
    settings: Settings,
    access: Access | None = None,
    live: Sequence[Callable[[Door], APIRouter]] = (),
    ears: Ears | None = None,
    media: MediaStore | None = None,
) -> FastAPI:
    """`access` and `ears` are shared with the other doors; without them, this one has its own. `live`: the routers of live
    conversations, where there are ears for them. `media`: the store of the settings, unless another is given."""
    media = media or MediaStore(settings.store_policy)
    door = Door(Metered(pipeline), settings, access or open_access(settings), ears=ears or SileroEars(), media=media)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await door.media.close()

    app = DescribedApp(title="omni-server", version=__version__, lifespan=lifespan)
    access_gate.install(app, door)
    errors.install(app)
    app.add_middleware(Patience, seconds=settings.reader_seconds)
    app.include_router(chat_router(door))
    app.include_router(completions_router(door))
    app.include_router(responses_router(door, ResponseStore()))
    app.include_router(speech_router(door))
    app.include_router(transcriptions_router(door))
    app.include_router(images_router(door))
    app.include_router(voices_router(door))
    app.include_router(consents_router(door))
    app.include_router(media_router(door))
    app.include_router(models_router(door))
    app.include_router(health_router(door))
    app.include_router(metrics_router(door))
    for router in live:
        app.include_router(router(door))
    return app
