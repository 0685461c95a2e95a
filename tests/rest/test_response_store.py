"""What is kept of responses: for how long, how much, and for whom."""

from __future__ import annotations

import inspect
import time
from pathlib import Path

import pytest

from omni_server.access import Access
from omni_server.errors import ResponseNotFound
from omni_server.keys import KeyFile, Limits, add_key
from omni_server.rest.response_store import Kept, ResponseStore
from omni_server.types import ImagePart, MediaSource, Message, TextPart
from tests.doubles import HandClock


def kept(name: str, letters: int = 0, picture: str = "") -> Kept:
    parts = (TextPart("x" * letters), *([ImagePart(MediaSource("p", url=picture))] if picture else []))
    return Kept({"id": name}, (Message("user", parts),))


def test_time_and_number() -> None:
    """Would catch a store that grows for ever, or that forgets the newest."""
    clock = HandClock()
    store = ResponseStore(clock, most=2, lifetime=60)
    for name in ("a", "b", "c"):
        store.keep(kept(name))
    with pytest.raises(ResponseNotFound, match="`a`"):
        store.find("a")
    assert store.find("c").body == {"id": "c"}
    clock.now += 61
    with pytest.raises(ResponseNotFound):
        store.find("c")
    store.keep(kept("d"))
    assert len(store._kept) == 1


def test_bytes() -> None:
    """Would catch pictures in conversations that fill the memory, and room that is never given back."""
    store = ResponseStore(HandClock(), most_bytes=1000)
    store.keep(kept("a", 400))
    store.keep(kept("b", 10, "y" * 400))
    store.keep(kept("c", 300))
    with pytest.raises(ResponseNotFound):
        store.find("a")
    assert store.find("b") and store.find("c")
    store.keep(kept("huge", 2000))
    assert store.find("c")
    for name in ("b", "c"):
        store.delete(name)
    assert store._bytes == 0


def test_each_caller_has_its_own(tmp_path: Path) -> None:
    """Would catch one caller who reads what another has said."""
    path = tmp_path / "keys"
    keys = {name: add_key(path, name, Limits()) for name in ("ann", "bob")}
    access = Access(KeyFile(path))
    store = ResponseStore(HandClock())
    with access.call(keys["ann"]):
        store.keep(kept("a"))
    with access.call(keys["bob"]), pytest.raises(ResponseNotFound):
        store.find("a")
    with access.call(keys["ann"]):
        assert store.find("a")


def test_the_time_of_day_does_not_count() -> None:
    """Would catch responses that are all gone, or never go, because the clock of the machine was set."""
    assert inspect.signature(ResponseStore).parameters["clock"].default is time.monotonic
