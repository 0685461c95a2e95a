"""Step 2. The process that makes one for each live call that sends Opus: a fork of itself, with everything loaded.

`python -m omni_server.packet_process CHANNEL SECONDS`; packets.py starts it.
"""

from __future__ import annotations

import gc
import math
import os
import signal
import socket
import sys

from omni_server.decoder_process import GRACE, confine
from omni_server.errors import MediaError
from omni_server.live_audio import OpusReader
from omni_server.packets import BAD, GOOD, LARGEST_PACKET


def main(channel: socket.socket, seconds: float) -> None:
    confine()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those that end leave nothing behind
    OpusReader()  # what is found and loaded once is there for all
    gc.freeze()
    while True:
        try:
            said, calls, _, _ = socket.recv_fds(channel, 1, 1)
        except OSError:
            return
        if not said or not calls:
            return  # the server is gone
        with socket.socket(fileno=calls[0]) as call:
            try:
                process = os.fork()
            except OSError:
                channel.send(BAD)
                continue
            if process == 0:
                channel.close()
                decode(call, seconds)
                os._exit(0)
        try:
            file = os.pidfd_open(process)
        except ProcessLookupError:
            channel.send(BAD)  # killed at once: memory is short
            continue
        socket.send_fds(channel, [GOOD], [file])
        os.close(file)


def decode(call: socket.socket, seconds: float) -> None:
    """One call, until its end."""
    reader = OpusReader()
    while packet := call.recv(LARGEST_PACKET):
        signal.alarm(math.ceil(seconds) + GRACE)
        try:
            answer = GOOD + reader.feed(packet).astype("<i2").tobytes()
        except MediaError as error:
            answer = BAD + error.message.encode()
        signal.alarm(0)
        call.send(answer)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), float(sys.argv[2]))
