"""Step 2. A video's frames at an even pace. Knows containers, no models.

The pace and the number of frames belong to the model that will look at them; how large a file may be, to the deployment.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np

from omni_server.config import MediaLimits
from omni_server.errors import MediaError, MediaTooLarge
from omni_server.wording import shown

LEAST_FRAMES = 4


@dataclass(frozen=True, slots=True)
class Frames:
    """`frames`: uint8 [n, height, width, 3], `pace` a second; `sounds` is whether there is sound in the file, `sound` what was
    read of it: float32 [n]."""

    frames: np.ndarray
    pace: float
    sounds: bool
    sound: np.ndarray | None = None


def read_frames(data: bytes, param: str, pace: float, most_frames: int, limits: MediaLimits) -> Frames:
    """Frames evenly over the whole, an even number of them, at most `most_frames`. Raises MediaError, MediaTooLarge."""
    try:
        with av.open(io.BytesIO(data), "r", format=video_container(data, param)) as container:
            if not container.streams.video:
                raise MediaError(f"`{param}` holds no moving pictures", param=param)
            sounds = bool(container.streams.audio)
            seconds, count = _length(container, limits, param)
            wanted = frame_count(seconds, pace, count, most_frames)
            places = set(np.linspace(0, count - 1, wanted).round().astype(int).tolist())
            frames = list(_chosen(container, places, limits, param))
    except (av.error.FFmpegError, ValueError) as problem:
        raise MediaError(f"`{param}` is a damaged video: {problem}", param=param) from None
    if not frames:
        raise MediaError(f"`{param}` holds no frames that can be read", param=param)
    while len(frames) < wanted:  # a file may promise more than it holds
        frames.append(frames[-1])
    stacked = np.stack(frames)
    return Frames(stacked, len(stacked) / seconds, sounds)


def frame_count(seconds: float, pace: float, frames: int, most: int) -> int:
    """An even number of at least 4, at most `most`, and never more than there are."""
    wanted = min(max(seconds * pace, LEAST_FRAMES), most, max(frames, 2))
    return max(2, int(wanted) // 2 * 2)


def film_container(data: bytes) -> str | None:
    """FFmpeg's name of a container that may hold a film or sound alone; from a short list, for playlist formats would make
    FFmpeg open other files."""
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if data[4:8] == b"ftyp":
        return "mov"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "avi"
    if data[:3] == b"FLV":
        return "flv"
    return None


def video_container(data: bytes, param: str) -> str:
    if (found := film_container(data)) is not None:
        return found
    raise MediaError(
        f"`{param}` is not a video that can be read; expected mp4, mov, webm, mkv, avi or flv, "
        f"got bytes that begin with {shown(data[:12])}",
        param=param,
    )


def _length(container: av.container.InputContainer, limits: MediaLimits, param: str) -> tuple[float, int]:
    """Seconds and frames, counted by packets: headers often lie."""
    stream = container.streams.video[0]
    if stream.width * stream.height > limits.pixels:
        raise MediaTooLarge(
            f"`{param}` has frames of `{stream.width}x{stream.height}`; expected at most {limits.pixels} pixels", param=param
        )
    count = sum(1 for packet in container.demux(stream) if packet.size)
    if count == 0:
        raise MediaError(f"`{param}` holds no frames", param=param)
    container.seek(0)
    rate = float(stream.average_rate or stream.guessed_rate or 0) or 24.0
    seconds = count / rate
    if seconds > limits.seconds:
        raise MediaTooLarge(f"`{param}` lasts `{seconds:.1f}` seconds; expected at most {limits.seconds:g}", param=param)
    return seconds, count


def _chosen(container: av.container.InputContainer, places: set[int], limits: MediaLimits, param: str) -> Iterator[np.ndarray]:
    """uint8 [height, width, 3] of each frame whose number is in `places`; all of the size of the first."""
    size: tuple[int, int] | None = None
    left = limits.film_pixels
    for number, frame in enumerate(container.decode(container.streams.video[0])):
        if number not in places:
            continue
        if frame.width * frame.height > limits.pixels:
            raise MediaTooLarge(f"`{param}` has frames of over {limits.pixels} pixels", param=param)
        size = size or (frame.width, frame.height)
        left -= size[0] * size[1]
        if left < 0:
            raise MediaTooLarge(
                f"`{param}` has frames of `{size[0]}x{size[1]}`, `{len(places)}` of which are looked at; "
                f"expected at most {limits.film_pixels} pixels in all",
                param=param,
            )
        yield frame.reformat(*size, format="rgb24").to_ndarray()
