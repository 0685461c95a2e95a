"""Step 8. Where stored media lie: a folder, or a bucket of S3-compatible storage. Knows no bounds and no expiry."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
import weakref
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from omni_server.errors import ConfigError, StorageUnavailable

logger = logging.getLogger(__name__)

LONGEST_SIGNATURE = 7 * 24 * 3600  # what S3 allows


class Place(Protocol):
    async def put(self, name: str, file: bytes, media_type: str) -> None: ...
    async def get(self, name: str) -> bytes:
        """Raises FileNotFoundError."""
        ...

    async def delete(self, name: str) -> None:
        """Without effect where there is nothing."""
        ...

    async def link(self, name: str, seconds: float) -> str | None:
        """A URL of the storage's own that holds for so long; None where only this server can hand the file out."""
        ...


class Folder:
    """A new folder inside of `parent`, made at the first `put` and removed with this object."""

    def __init__(self, parent: str | None = None) -> None:
        self._parent = parent
        self._path: Path | None = None

    async def put(self, name: str, file: bytes, media_type: str) -> None:
        try:
            await asyncio.to_thread((self._opened() / name).write_bytes, file)
        except OSError as problem:
            raise StorageUnavailable(f"a file of this answer could not be stored: {problem.strerror}") from problem

    async def get(self, name: str) -> bytes:
        return await asyncio.to_thread((self._opened() / name).read_bytes)

    async def delete(self, name: str) -> None:
        await asyncio.to_thread((self._opened() / name).unlink, missing_ok=True)

    async def link(self, name: str, seconds: float) -> str | None:
        return None

    def _opened(self) -> Path:
        """On the event loop, where no two can make it at once."""
        if self._path is None:
            self._path = Path(tempfile.mkdtemp(prefix="omni-media-", dir=self._parent))
            weakref.finalize(self, shutil.rmtree, self._path, ignore_errors=True)
        return self._path


class Bucket:
    """By an `s3://bucket/prefix` URL. Its keys and its endpoint come from the AWS_* variables."""

    def __init__(self, url: str) -> None:
        try:
            import obstore
            import obstore.exceptions
            import obstore.store
        except ImportError:
            raise ConfigError(
                f"--media-store is `{url}`, which needs the library `obstore`; install `omni-server[s3]`", param="--media-store"
            ) from None
        self._library: Any = obstore
        self._faults = (obstore.exceptions.BaseError, OSError)  # what is not there is a FileNotFoundError
        try:
            self._objects: Any = obstore.store.from_url(url)
        except obstore.exceptions.BaseError as problem:
            raise ConfigError(f"--media-store is `{url}`, which cannot be opened: {problem}", param="--media-store") from None

    async def put(self, name: str, file: bytes, media_type: str) -> None:
        try:
            await self._library.put_async(self._objects, name, file, attributes={"Content-Type": media_type})
        except self._faults as problem:
            raise StorageUnavailable(
                "a file of this answer could not be stored: the storage of this server refused it"
            ) from problem

    async def get(self, name: str) -> bytes:
        try:
            result = await self._library.get_async(self._objects, name)
            return bytes(await result.bytes_async())
        except self._faults as problem:
            raise FileNotFoundError(name) from problem

    async def delete(self, name: str) -> None:
        try:
            await self._library.delete_async(self._objects, name)
        except self._faults as problem:  # the answer at hand has no part in this
            logger.warning("a stored file could not be deleted: %s", problem)

    async def link(self, name: str, seconds: float) -> str | None:
        holds = timedelta(seconds=min(seconds, LONGEST_SIGNATURE))
        return str(await self._library.sign_async(self._objects, "GET", name, holds))
