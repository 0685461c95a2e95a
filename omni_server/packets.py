"""Step 2. Opus packets of live calls are decoded in a process for each call, killed where a packet hangs or crashes it.

Such a decoder has a state, so calls cannot share one; each is a fork of a process that has everything loaded, which takes
milliseconds. Packets and samples pass over a socket that keeps them apart, and nobody's frame waits for another call's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from omni_server.errors import MediaError, OutOfMemory, Stalled
from omni_server.quarantine import Worker

ReadFrame = Callable[[bytes], Awaitable[bytes]]
_log = logging.getLogger(__name__)

START_SECONDS = 30.0  # for the process that the others come from, at most
PACKET_SECONDS = 5.0  # for one packet, which takes a decoder some 0.1 ms; a machine that is overrun takes longer
LARGEST_PACKET = 1 << 16  # bytes; 48 frames of 1275, the most that Opus knows, are less
LARGEST_SOUND = 1 << 16  # bytes of samples; 120 ms, the longest packet, are 11,520
GOOD, BAD = b"+", b"-"  # the first byte of an answer: then samples, or what is wrong with the packet
TRIES = 2


class PacketProcesses:
    """Where the processes come from. `seconds` is the limit for one packet."""

    def __init__(self, seconds: float = PACKET_SECONDS) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._source: Worker | None = None

    def start(self) -> Worker:
        """Ahead of the first call, which would wait for it."""
        if self._source is None:
            self._source = Worker("omni_server.packet_process", self._seconds, socket.SOCK_SEQPACKET)
            self._source.channel.settimeout(START_SECONDS)
        return self._source

    async def open(self) -> PacketReader:
        """For one call. Raises OutOfMemory or Stalled where there is no process for it."""
        opening = asyncio.ensure_future(asyncio.to_thread(self._open))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_unwanted)
            raise

    @asynccontextmanager
    async def reading(self, *, opus: bool) -> AsyncIterator[ReadFrame]:
        """What makes samples of the frames of one call: a process where they are packets, nothing where they are samples."""
        if not opus:
            yield _as_it_is
            return
        reader = await self.open()
        try:
            yield reader.read
        finally:
            reader.close()

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _open(self) -> PacketReader:
        for _ in range(TRIES):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with self._lock, theirs:
                source = self.start()
                try:
                    socket.send_fds(source.channel, [GOOD], [theirs.fileno()])
                    said, processes, _, _ = socket.recv_fds(source.channel, 1, 1)
                    if said == BAD:
                        ours.close()
                        raise OutOfMemory("no memory is left for a decoder of Opus")
                    if processes:
                        return PacketReader(ours, processes[0], self._seconds)
                    problem = "is gone"
                except OSError as broken:
                    problem = str(broken)
                ours.close()
                _log.warning("the process that makes decoders of Opus is started anew: %s", problem)
                self._stop()
        raise Stalled("decoders of Opus cannot be started")

    def _stop(self) -> None:
        if self._source is not None:
            self._source.stop()
            self._source = None


class PacketReader:
    """One call's process. After an error that says `cannot` or `could not`, there is none any more."""

    def __init__(self, channel: socket.socket, process: int, seconds: float) -> None:
        """`process` is an open file of it (pidfd), so that no other is ever killed."""
        channel.setblocking(False)
        self._channel, self._process, self._seconds = channel, process, seconds

    async def read(self, packet: bytes) -> bytes:
        """Its samples, 16 bits each, at 48 kHz. Raises MediaError."""
        if not packet:
            return b""  # an empty packet would tell the decoder that the stream is over
        if len(packet) > LARGEST_PACKET:
            told = f"`audio` holds `{len(packet)}` bytes; expected a packet of Opus, at most {LARGEST_PACKET}"
            raise MediaError(told, param="audio")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._seconds):
                await loop.sock_sendall(self._channel, packet)
                said = await loop.sock_recv(self._channel, 1 + LARGEST_SOUND)
        except TimeoutError:
            raise self._ended(f"`audio` could not be decoded within {self._seconds:g} seconds") from None
        except OSError:
            said = b""
        if not said:
            raise self._ended("`audio` cannot be decoded")
        if said[:1] == BAD:
            raise MediaError(f"`audio` is not a packet of Opus: {said[1:].decode(errors='replace')}", param="audio")
        return said[1:]

    def close(self) -> None:
        if self._process >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
            os.close(self._process)
            self._process = -1
        self._channel.close()

    def _ended(self, how: str) -> MediaError:
        _log.warning("the decoder of a live call was killed: %s", how)
        self.close()
        return MediaError(how, param="audio")


async def _as_it_is(frame: bytes) -> bytes:
    return frame


def _unwanted(opening: asyncio.Future[PacketReader]) -> None:
    """The call has ended before it had its process."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
