"""Step 8. Responses that later ones may go on from, in memory: each is its caller's, kept for a time, within bounds."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from omni_server.access import current_account
from omni_server.errors import ResponseNotFound
from omni_server.segments import Body
from omni_server.types import MediaPart, Message, TextPart
from omni_server.wording import shown

MOST, MOST_BYTES, LIFETIME = 10_000, 256 << 20, 3600.0


@dataclass(frozen=True)
class Kept:
    """A response as its client has seen it; the conversation to its end, without `instructions`; the tools that were called
    in it, by the ids of the calls; the items that it was made from, in their order."""

    body: Body
    messages: tuple[Message, ...]
    calls: Mapping[str, str] = field(default_factory=dict)
    items: tuple[Body, ...] = ()

    @cached_property
    def size(self) -> int:
        """About so many bytes. What responses of one conversation share counts for each: rather too much than too little."""
        parts = [part for message in self.messages for part in message.parts]
        texts = sum(len(part.text) for part in parts if isinstance(part, TextPart))
        media = [part.source for part in parts if isinstance(part, MediaPart)]
        return (
            _letters(self.body)
            + _letters(list(self.items))
            + texts
            + sum(len(source.url or source.data or "") for source in media)
        )


class ResponseStore:
    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        most: int = MOST,
        most_bytes: int = MOST_BYTES,
        lifetime: float = LIFETIME,
    ) -> None:
        self._clock = clock
        self._most = most
        self._most_bytes = most_bytes
        self._lifetime = lifetime
        self._bytes = 0
        self._kept: OrderedDict[tuple[str, str], tuple[float, Kept]] = OrderedDict()  # (caller, id) -> (end, ...), oldest first

    def keep(self, kept: Kept) -> None:
        """The oldest make room; one that is too large for the whole store is not kept."""
        if kept.size > self._most_bytes:
            return
        self._kept[_key(kept.body["id"])] = (self._clock() + self._lifetime, kept)
        self._bytes += kept.size
        while self._kept and (len(self._kept) > self._most or self._bytes > self._most_bytes or self._oldest_is_over()):
            self._drop(next(iter(self._kept)))

    def find(self, response_id: str) -> Kept:
        end, kept = self._kept.get(_key(response_id), (0.0, None))
        if kept is None or end <= self._clock():
            raise ResponseNotFound(
                f"there is no response {shown(response_id)}; it was never here, was not to be stored, has expired, "
                "or newer ones took its place"
            )
        return kept

    def delete(self, response_id: str) -> None:
        self.find(response_id)
        self._drop(_key(response_id))

    def _oldest_is_over(self) -> bool:
        end, _ = next(iter(self._kept.values()))
        return end <= self._clock()

    def _drop(self, key: tuple[str, str]) -> None:
        _, kept = self._kept.pop(key)
        self._bytes -= kept.size


def _letters(value: object) -> int:
    if isinstance(value, dict):
        return sum(map(_letters, value.values()))
    return len(value) if isinstance(value, str) else sum(map(_letters, value)) if isinstance(value, list) else 0


def _key(response_id: str) -> tuple[str, str]:
    account = current_account()
    return (account.name if account is not None else "", response_id)
