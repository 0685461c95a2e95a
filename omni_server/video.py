"""Step 2. A video's frames at an even pace, and its sound. Knows containers, no models.

The pace and the number of frames belong to the model that will look at them; how large a file may be, to the deployment.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator

import av
import numpy as np

from omni_server.config import MediaLimits
from omni_server.errors import MediaError, MediaTooLarge
from omni_server.types import Speech, Video
from omni_server.wording import shown

LEAST_FRAMES = 4


def read_video(data: bytes, param: str, pace: float, most_frames: int, limits: MediaLimits, sound: Speech | None) -> Video:
    """Frames evenly over the whole, an even number of them, at most `most_frames`; `sound` is what was read of it before.

    Raises MediaError, MediaTooLarge.
    """
    try:
        with av.open(io.BytesIO(data), "r", format=video_container(data, param)) as container:
            if not container.streams.video:
                raise MediaError(f"`{param}` holds no moving pictures", param=param)
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
    digest = hashlib.sha256(stacked.tobytes() + (sound.digest.encode() if sound else b"")).hexdigest()
    return Video(stacked, len(stacked) / seconds, digest, sound)


def frame_count(seconds: float, pace: float, frames: int, most: int) -> int:
    """An even number of at least 4, at most `most`, and never more than there are."""
    wanted = min(max(seconds * pace, LEAST_FRAMES), most, max(frames, 2))
    return max(2, int(wanted) // 2 * 2)


def holds_sound(data: bytes, param: str) -> bool:
    try:
        with av.open(io.BytesIO(data), "r", format=video_container(data, param)) as container:
            return bool(container.streams.audio)
    except (av.error.FFmpegError, ValueError):
        return False


def video_container(data: bytes, param: str) -> str:
    """FFmpeg's name, from a short list: playlist formats would make FFmpeg open other files."""
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if data[4:8] == b"ftyp":
        return "mov"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "avi"
    if data[:3] == b"FLV":
        return "flv"
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
    for number, frame in enumerate(container.decode(container.streams.video[0])):
        if number not in places:
            continue
        if frame.width * frame.height > limits.pixels:
            raise MediaTooLarge(f"`{param}` has frames of over {limits.pixels} pixels", param=param)
        size = size or (frame.width, frame.height)
        yield frame.reformat(*size, format="rgb24").to_ndarray()
