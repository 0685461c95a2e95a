"""What decoding strangers' media in processes of their own costs: time there over time here, and the time of a replacement.

python -m bench.decoding
"""

from __future__ import annotations

import asyncio
import io
import statistics
import time
import wave
from collections.abc import Callable

import numpy as np
import PIL.Image

from omni_server.config import Settings
from omni_server.decoding import HereDecoding
from omni_server.live_audio import FrameWriter, OpusReader
from omni_server.packets import PacketProcesses
from omni_server.quarantine import Quarantine

REPEATS = 15


def photo(width: int, height: int) -> bytes:
    """A JPEG of smooth colours with some noise: about as many bytes a pixel as a photograph has."""
    rows, columns = np.mgrid[0:height, 0:width]
    colours = np.stack([rows * 255 / height, columns * 255 / width, (rows + columns) % 256], axis=-1)
    noisy = colours + np.random.default_rng(0).normal(0, 8, colours.shape)
    file = io.BytesIO()
    PIL.Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()


def recording(seconds: float) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(24_000)
        written.writeframes(np.random.default_rng(0).integers(-9000, 9000, int(seconds * 24_000), np.int16).tobytes())
    return file.getvalue()


def median(call: Callable[[], object]) -> float:
    call()
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main() -> None:
    limits = Settings().media_limits
    here, there = HereDecoding(), Quarantine(Settings().media_decode_seconds)
    print("| medium | there over here | more, in ms |\n|---|---|---|")
    cases = {f"picture, {w} x {h}": (photo(w, h), "picture") for w, h in ((64, 64), (512, 512), (1024, 768), (4000, 3000))}
    cases |= {f"recording, {seconds} s": (recording(seconds), "speech") for seconds in (2, 60)}
    for name, (data, kind) in cases.items():
        mine = median(lambda: getattr(here, kind)(data, "m", limits))  # noqa: B023 - called at once
        theirs = median(lambda: getattr(there, kind)(data, "m", limits))  # noqa: B023
        print(f"| {name} | {theirs / mine:.2f} | {(theirs - mine) * 1000:.1f} |")
    there.close()
    small = photo(64, 64)

    def replaced() -> None:
        single = Quarantine(30.0, workers=1)
        single.picture(small, "m", limits)
        single.close()

    print(f"\na new process answers after {median(replaced) * 1000:.0f} ms")


async def packets() -> None:
    """Opus packets of 20 ms of live calls."""
    sound = np.random.default_rng(0).normal(0, 0.1, 48_000 * 4).cumsum() % 0.5
    sent = FrameWriter("opus_packets", 48_000, 48_000).feed(sound.astype(np.float32))
    reader, sources = OpusReader(), PacketProcesses()
    first = await sources.open()
    opened = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        another = await sources.open()
        opened.append(time.perf_counter() - began)
        another.close()
    here, there = [], []
    used = time.process_time()
    for packet in sent:
        began = time.perf_counter()
        reader.feed(packet)
        here.append(time.perf_counter() - began)
    between = time.process_time()
    for packet in sent:
        began = time.perf_counter()
        await first.read(packet)
        there.append(time.perf_counter() - began)
    own, passed = between - used, time.process_time() - between
    p99 = [sorted(taken)[len(taken) * 99 // 100] * 1000 for taken in (here, there)]
    print(
        f"\na packet of 20 ms of Opus, median and p99, in ms: here {statistics.median(here) * 1000:.3f} and {p99[0]:.3f}, "
        f"there {statistics.median(there) * 1000:.3f} and {p99[1]:.3f}; the server's own work for it, in ms: "
        f"here {own / len(sent) * 1000:.3f}, there {passed / len(sent) * 1000:.3f}"
    )
    print(f"a new call has its process after {statistics.median(opened) * 1000:.1f} ms")
    first.close()
    sources.close()


if __name__ == "__main__":
    main()
    asyncio.run(packets())
