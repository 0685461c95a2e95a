"""Step 8. Media that a reply names by URL instead of holding them: bounded in bytes, in number and in time.

The index is in memory, so nothing outlives the process: what is left at the end is deleted.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from omni_server.config import StorePolicy
from omni_server.errors import MediaTooLarge, StorageUnavailable
from omni_server.media_places import Bucket, Folder, Place

PATIENCE = 30.0  # seconds for one file
NAME_BYTES = 24  # of randomness: the name is the only key to what is stored


@dataclass(frozen=True, slots=True)
class Stored:
    media_type: str
    size: int
    expires_at: float


@dataclass(frozen=True, slots=True)
class Found:
    file: bytes
    media_type: str
    seconds_left: int


class MediaStore:
    def __init__(
        self,
        policy: StorePolicy,
        clock: Callable[[], float] = time.monotonic,
        place: Place | None = None,
        patience: float = PATIENCE,
    ) -> None:
        """`place`: that of the policy, unless another is given. `patience`: seconds that one file may take on its way."""
        self._policy = policy
        self._clock = clock
        self._patience = patience
        self._kept: OrderedDict[str, Stored] = OrderedDict()  # oldest first, so first to expire first
        self._size = 0
        in_bucket = policy.place is not None and "://" in policy.place
        self._place: Place = place or (Bucket(str(policy.place)) if in_bucket else Folder(policy.place))

    async def put(self, file: bytes, media_type: str, ending: str, param: str) -> str:
        """The name under which `file` is found until it expires, or until newer ones need its place."""
        if len(file) > self._policy.bytes:
            raise MediaTooLarge(
                f"the file for `{param}` has `{len(file)}` bytes; this server stores at most {self._policy.bytes} in all",
                param=param,
            )
        name = f"{secrets.token_urlsafe(NAME_BYTES)}.{ending}"
        try:
            async with asyncio.timeout(self._patience):
                await self._put(name, file, media_type)
        except TimeoutError:
            told = f"a file of this answer could not be stored: it took longer than {self._patience:g} seconds"
            raise StorageUnavailable(told) from None
        return name

    async def _put(self, name: str, file: bytes, media_type: str) -> None:
        await self._make_room(len(file))
        # Counted before it is written: two that are put at once must not both fit where one does. It stays counted where
        # writing fails or is cancelled, for some of it may be there.
        self._kept[name] = Stored(media_type, len(file), self._clock() + self._policy.seconds)
        self._size += len(file)
        await self._place.put(name, file, media_type)
        if name not in self._kept:  # dropped while it was being written
            await self._place.delete(name)

    async def find(self, name: str) -> Found | None:
        await self._make_room(0)
        stored = self._kept.get(name)
        if stored is None:
            return None
        try:
            async with asyncio.timeout(self._patience):
                file = await self._place.get(name)
        except TimeoutError:
            raise StorageUnavailable(f"a stored file could not be read within {self._patience:g} seconds") from None
        except FileNotFoundError:  # dropped while it was being read
            return None
        if len(file) != stored.size:  # cut short by whoever else writes there: better none than half of one
            return None
        return Found(file, stored.media_type, int(stored.expires_at - self._clock()))

    async def link(self, name: str) -> str | None:
        """A URL of the storage's own that expires with the file; None where this server must hand the file out."""
        return await self._place.link(name, self._policy.seconds)

    async def close(self) -> None:
        while self._kept:
            await self._drop(next(iter(self._kept)))

    async def _make_room(self, size: int) -> None:
        """Drops what has expired, and the oldest until `size` more bytes fit."""
        now = self._clock()
        while self._kept:
            name, oldest = next(iter(self._kept.items()))
            full = size > 0 and (len(self._kept) >= self._policy.files or self._size + size > self._policy.bytes)
            if oldest.expires_at > now and not full:
                return
            await self._drop(name)

    async def _drop(self, name: str) -> None:
        self._size -= self._kept.pop(name).size
        await self._place.delete(name)
