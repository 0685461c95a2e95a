"""Step 2. Strangers' bytes are decoded in processes of their own, which are kept warm and killed when they hang.

A decoder is megabytes of C that reads whatever comes. Here it can crash, hang or eat memory, and one request fails with a
MediaError; the others go on. What comes back is bytes with a short JSON description, never a pickle, and believed only as far
as it fits: a decoder that was taken over has no way further in.
"""

from __future__ import annotations

import fcntl
import json
import logging
import mmap
import os
import queue
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL.Image

from omni_server.config import MediaLimits
from omni_server.decoding import SAMPLE_RATE
from omni_server.errors import MediaError, MediaTooLarge
from omni_server.plain_json import parsed
from omni_server.video import Frames

_log = logging.getLogger(__name__)

Made = TypeVar("Made")
MadeOf = Callable[[dict[str, Any], memoryview], Made]

MODULE = "omni_server.decoder_process"
LENGTH = struct.Struct("<I")  # of a description
LONGEST_DESCRIPTION = 1 << 16
ERRORS = {kind.__name__: kind for kind in (MediaError, MediaTooLarge)}
# One thread each. Memory that is freed is kept for the next medium: to get fresh pages takes longer than most decoding.
HABITS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
}


def describe(channel: socket.socket, description: dict[str, Any], *files: int) -> None:
    said = json.dumps(description).encode()
    socket.send_fds(channel, [LENGTH.pack(len(said)) + said], files)


def described(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Raises EOFError where the other side is gone, ValueError where it says what cannot be."""
    head, files, _, _ = socket.recv_fds(channel, LENGTH.size, 1)
    if len(head) < LENGTH.size:
        raise EOFError
    (length,) = LENGTH.unpack(head)
    if length > LONGEST_DESCRIPTION:
        raise ValueError(f"a description of `{length}` bytes; expected at most {LONGEST_DESCRIPTION}")
    said = b""
    while len(said) < length:
        if not (piece := channel.recv(length - len(said))):
            raise EOFError
        said += piece
    return parsed(said), list(files)


@contextmanager
def shared_memory(content: bytes, most: int) -> Iterator[int]:
    """A file of memory with `content` in it and room for `most` bytes. It keeps its size, whatever is done to it elsewhere;
    what is not touched takes no memory. Pictures of many megabytes pass without the two sides waiting for each other."""
    file = os.memfd_create("medium", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.truncate(file, max(most, len(content)))
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        os.pwrite(file, content, 0)
        yield file
    finally:
        os.close(file)


class Worker:
    """One process, and the channel to it."""

    def __init__(self, module: str, seconds: float, kind: socket.SocketKind = socket.SOCK_STREAM) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, kind)
        with theirs:
            command = [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(seconds)]
            # A session of its own: Ctrl-C stops the server, which then stops this.
            self.channel.settimeout(seconds)
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True, env=environment())

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.channel.close()


def environment() -> dict[str, str]:
    """Nothing that an operator has told the server, such as keys: a decoder that was taken over finds none of it."""
    kept = ("PATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LANG", "TMPDIR")
    path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {name: os.environ[name] for name in kept if name in os.environ} | {"PYTHONPATH": path} | HABITS


class Quarantine:
    """A Decoding in `workers` processes; as many threads may ask at once, more wait. `seconds` is the limit for one medium."""

    def __init__(self, seconds: float, workers: int = 2) -> None:
        self._seconds = seconds
        self._idle: queue.LifoQueue[Worker] = queue.LifoQueue()
        self._closed = False
        for _ in range(workers):
            self._idle.put(Worker(MODULE, seconds))

    def picture(self, data: bytes, param: str, limits: MediaLimits) -> PIL.Image.Image:
        return self._ask("picture", data, param, limits, 3 * limits.pixels, picture_of)

    def speech(self, data: bytes, param: str, limits: MediaLimits) -> np.ndarray:
        return self._ask("speech", data, param, limits, _most_sound(limits), speech_of)

    def video(self, data: bytes, param: str, limits: MediaLimits, pace: float, most_frames: int, hears: bool) -> Frames:
        most = 3 * limits.film_pixels + _most_sound(limits)
        return self._ask("video", data, param, limits, most, video_of, pace=pace, most_frames=most_frames, hears=hears)

    def close(self) -> None:
        self._closed = True
        while not self._idle.empty():
            self._idle.get_nowait().stop()

    def _ask(
        self, kind: str, data: bytes, param: str, limits: MediaLimits, most: int, made_of: MadeOf[Made], **wish: Any
    ) -> Made:
        worker = self._idle.get()
        try:
            if worker.process.poll() is not None:  # it died while it waited, of nobody's request
                worker = self._renewed(worker)
            asked = {"kind": kind, "param": param, "size": len(data), "limits": asdict(limits), **wish}
            try:
                with shared_memory(data, most) as file:
                    return answer_of(worker.channel, asked, file, most, made_of)
            except (OSError, EOFError, ValueError, LookupError, TypeError, BufferError) as problem:
                late = isinstance(problem, TimeoutError)
                worker = self._renewed(worker)
                _log.warning("a decoder %s and was killed", "did not end" if late else f"died ({problem!r})")
                how = f"could not be decoded within {self._seconds:g} seconds" if late else "cannot be decoded"
                raise MediaError(f"`{param}` {how}", param=param) from None
        finally:
            if self._closed:
                worker.stop()
            else:
                self._idle.put(worker)

    def _renewed(self, worker: Worker) -> Worker:
        worker.stop()
        return Worker(MODULE, self._seconds)


def answer_of(channel: socket.socket, asked: dict[str, Any], file: int, most: int, made_of: MadeOf[Made]) -> Made:
    describe(channel, asked, file)
    said, files = described(channel)
    for unasked in files:
        os.close(unasked)
    if "error" in said:
        raise ERRORS.get(said["error"], MediaError)(said["message"], param=asked["param"])
    if not 0 <= said["size"] <= most:
        raise ValueError(f"`{said['size']}` bytes; expected at most {most}")
    with mmap.mmap(file, most) as shared, memoryview(shared) as whole, whole[: said["size"]] as content:
        return made_of(said, content)


# Each copies, for the decoder still has its hands on the memory.


def picture_of(said: dict[str, Any], content: memoryview) -> PIL.Image.Image:
    return PIL.Image.frombuffer("RGB", (said["width"], said["height"]), content, "raw", "RGB", 0, 1)  # type: ignore[arg-type]


def speech_of(said: dict[str, Any], content: memoryview) -> np.ndarray:
    return np.frombuffer(content, np.float32).copy()


def video_of(said: dict[str, Any], content: memoryview) -> Frames:
    count, height, width = said["shape"]
    size = count * height * width * 3
    frames = np.frombuffer(content, np.uint8, size).reshape(count, height, width, 3).copy()
    sound = np.frombuffer(content, np.float32, offset=size).copy() if said["sound"] else None
    return Frames(frames, float(said["pace"]), bool(said["sounds"]), sound)


def _most_sound(limits: MediaLimits) -> int:
    return int((limits.seconds + 1) * SAMPLE_RATE) * 4
