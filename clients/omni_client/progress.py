"""Says that something is being worked on, once it takes long enough for a person to wonder. Knows not what."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

AFTER_SECONDS = 2.0
EVERY_SECONDS = 0.5


@contextmanager
def progress(doing: str, out: TextIO | None = None, after: float = AFTER_SECONDS) -> Iterator[None]:
    """Writes `doing ... 3 s` over itself on a terminal, and a single line into a file, to standard error by default; nothing
    where the work is done before `after` seconds."""
    finished = threading.Event()
    writer = threading.Thread(target=_write, args=(doing, out or sys.stderr, after, finished), daemon=True)
    writer.start()
    try:
        yield
    finally:
        finished.set()
        writer.join()


def _write(doing: str, out: TextIO, after: float, finished: threading.Event) -> None:
    start = time.monotonic()
    if finished.wait(after):
        return
    if not out.isatty():
        print(f"{doing} ...", file=out, flush=True)
        return
    while True:
        print(f"\r{doing} ... {time.monotonic() - start:.0f} s", end="", file=out, flush=True)
        if finished.wait(EVERY_SECONDS):
            break
    print("\r\x1b[K", end="", file=out, flush=True)  # the line is free again for what comes next
