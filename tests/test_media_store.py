"""omni_server/media_store.py and media_places.py: what is stored is found until it expires or newer files need its place."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path

import pytest

from omni_server.config import StorePolicy
from omni_server.errors import ConfigError, MediaTooLarge, StorageUnavailable
from omni_server.media_store import MediaStore


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def files_in(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


async def put(store: MediaStore, file: bytes) -> str:
    return await store.put(file, "image/png", "png", "response_format")


async def test_found_as_it_was_put(tmp_path: Path) -> None:
    """Catches another file, type or time than the one that was stored, and names that repeat or can be guessed."""
    clock = Clock()
    store = MediaStore(StorePolicy(str(tmp_path), seconds=60), clock)
    names = [await put(store, b"one"), await put(store, b"one")]
    clock.now += 10
    found = await store.find(names[0])
    assert found is not None
    assert (found.file, found.media_type, found.seconds_left) == (b"one", "image/png", 50)
    assert len(set(names)) == 2
    assert all(len(name) >= 32 and name.endswith(".png") for name in names)
    assert await store.link(names[0]) is None


async def test_expiry(tmp_path: Path) -> None:
    """Catches a file that is handed out, or lies in the folder, after its time."""
    clock = Clock()
    store = MediaStore(StorePolicy(str(tmp_path), seconds=60), clock)
    first = await put(store, b"one")
    clock.now += 30
    second = await put(store, b"two")
    clock.now += 30
    assert await store.find(first) is None
    assert await store.find(second) is not None
    assert files_in(tmp_path) == 1


@pytest.mark.parametrize("policy", [{"bytes": 10}, {"files": 2}])
async def test_bounds(tmp_path: Path, policy: dict[str, int]) -> None:
    """Catches a store that grows without end, and one that drops more than it must, or the newest."""
    store = MediaStore(StorePolicy(str(tmp_path), **policy))
    names = [await put(store, b"12345") for _ in range(5)]
    assert [await store.find(name) is not None for name in names] == [False, False, False, True, True]
    assert files_in(tmp_path) == 2


async def test_bounds_hold_for_files_that_are_put_at_once(tmp_path: Path) -> None:
    """Catches files that each see room for one and together take the room of many."""
    store = MediaStore(StorePolicy(str(tmp_path), files=2))
    names = await asyncio.gather(*(put(store, b"1") for _ in range(20)))
    assert sum([await store.find(name) is not None for name in names]) == 2
    assert files_in(tmp_path) == 2


async def test_a_file_that_cannot_fit_is_refused(tmp_path: Path) -> None:
    """Catches all files thrown away for one that fits nowhere."""
    store = MediaStore(StorePolicy(str(tmp_path), bytes=4))
    kept = await put(store, b"1")
    with pytest.raises(MediaTooLarge, match="`5` bytes"):
        await put(store, b"12345")
    assert await store.find(kept) is not None


async def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """Catches files that stay when the server ends, in order or not; and a folder where nothing was ever stored."""
    unused = MediaStore(StorePolicy(str(tmp_path)))
    await unused.close()
    assert os.listdir(tmp_path) == []
    closed, dropped = MediaStore(StorePolicy(str(tmp_path))), MediaStore(StorePolicy(str(tmp_path)))
    await put(closed, b"1")
    await put(dropped, b"2")
    await closed.close()
    assert files_in(tmp_path) == 1
    del dropped
    gc.collect()
    assert files_in(tmp_path) == 0


async def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Catches a traceback, or a machine path in an answer, where the disk refuses."""
    store = MediaStore(StorePolicy(str(tmp_path / "gone")))
    with pytest.raises(StorageUnavailable) as caught:
        await put(store, b"1")
    assert caught.value.http_status == 503
    assert "could not be stored" in caught.value.message
    assert str(tmp_path) not in caught.value.message


def test_a_bucket_that_cannot_be_opened_refuses_to_start() -> None:
    """Catches a server that starts and then fails at the first picture."""
    with pytest.raises(ConfigError, match="cannot be opened"):
        MediaStore(StorePolicy("s3://"))
