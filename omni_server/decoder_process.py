"""Step 2. The process that strangers' bytes are decoded in, one after another, with little memory and no files.

`python -m omni_server.decoder_process CHANNEL SECONDS`; quarantine.py starts it.
"""

from __future__ import annotations

import logging
import math
import mmap
import os
import resource
import signal
import socket
import sys
from typing import Any

import numpy as np

from omni_server.config import MediaLimits
from omni_server.decoding import HereDecoding
from omni_server.errors import MediaError, MediaTooLarge, OmniError
from omni_server.quarantine import describe, described

_log = logging.getLogger(__name__)

MEMORY = 4 << 30  # bytes of addresses; a film of the largest size needs half of it
GRACE = 2  # seconds after which it ends itself, should the server not be there any more to end it


def confine() -> None:
    """This process, for good."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file can be written


def main(channel: socket.socket, seconds: float) -> None:
    confine()
    decoding = HereDecoding()
    while True:
        signal.alarm(0)
        try:
            asked, (file,) = described(channel)
        except (EOFError, OSError):
            return  # the server is gone
        signal.alarm(math.ceil(seconds) + GRACE)
        with mmap.mmap(file, 0) as shared:
            os.close(file)
            describe(channel, answer(decoding, asked, shared))


def answer(decoding: HereDecoding, asked: dict[str, Any], shared: mmap.mmap) -> dict[str, Any]:
    """What is told of the medium, whose content is then in the shared memory; or the error."""
    param = asked["param"]
    try:
        said, contents = decoded(decoding, asked, shared[: asked["size"]])
        at = 0
        for content in contents:
            shared[at : at + len(content)] = content
            at += len(content)
        return {"size": at, **said}
    except OmniError as error:
        return {"error": type(error).__name__, "message": error.message}
    except MemoryError:
        return {"error": MediaTooLarge.__name__, "message": f"`{param}` needs too much memory to be decoded"}
    except Exception:  # noqa: BLE001 - whatever a stranger's bytes set off is theirs, and the log has it
        _log.exception("a fault that no decoder was known to have")
        return {"error": MediaError.__name__, "message": f"`{param}` is damaged"}


def decoded(decoding: HereDecoding, asked: dict[str, Any], data: bytes) -> tuple[dict[str, Any], list[Any]]:
    given = (data, asked["param"], MediaLimits(**asked["limits"]))
    match asked["kind"]:
        case "picture":
            image = decoding.picture(*given)
            return {"width": image.width, "height": image.height}, [image.tobytes()]
        case "speech":
            return {}, [_bytes(decoding.speech(*given))]
        case _:
            film = decoding.video(*given, asked["pace"], asked["most_frames"], asked["hears"])
            said = {"shape": film.frames.shape[:3], "pace": film.pace, "sounds": film.sounds, "sound": film.sound is not None}
            return said, [_bytes(film.frames), *([_bytes(film.sound)] if film.sound is not None else [])]


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).data.cast("B")


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), float(sys.argv[2]))
