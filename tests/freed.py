"""What is over must go by itself: the collector of rings comes late, and a ring may hold megabytes of sound."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def freed(*kinds: type) -> AsyncIterator[None]:
    """Of these, nothing that is made inside is left soon afterwards, though the collector stands still."""
    gc.collect()
    gc.freeze()  # what was there before is told no more
    gc.disable()
    try:
        yield
        for _ in range(200):
            left = [type(thing).__name__ for thing in gc.get_objects() if type(thing) in kinds]
            if not left:
                break
            await asyncio.sleep(0.02)
        assert not left, f"kept by rings: {left}"
    finally:
        gc.enable()
        gc.unfreeze()
