"""Pictures and recordings: what a reply hands out. Needs nothing; PIL and numpy only where their objects are asked for."""

from __future__ import annotations

import io
import os
import wave
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omni_client.errors import MediaError, MissingDependency

if TYPE_CHECKING:
    import numpy
    import PIL.Image

PICTURE_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif", "bmp": "image/bmp"}
AUDIO_TYPES = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "aac": "audio/aac",
    "webm": "audio/webm",
    "m4a": "audio/mp4",
}
# OpenAI's `pcm` and `pcm16` have no header: they are 24 kHz mono by definition.
OPENAI_SAMPLE_RATE = 24_000
OTHER_NAMES = {"jpg": "jpeg", "opus": "ogg", "mp4": "m4a", "wave": "wav"}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as a file in memory. `format` is `png`, `jpeg`, `webp`, `gif` or `bmp`; `seed` makes it again, where known."""

    data: bytes = field(repr=False)
    format: str = "png"
    seed: int | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Picture:
        """Reads a file. MediaError where it holds no picture."""
        return cls.from_bytes(_read(path), f"`{os.fspath(path)}`")

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "the picture") -> Picture:
        """The format is read from the bytes; `name` is how an error calls them."""
        kind, format = sniff(data, name)
        if kind != "image":
            raise MediaError(f"{name} is a recording ({format}); expected a picture")
        return cls(data, format)

    @classmethod
    def from_image(cls, image: PIL.Image.Image) -> Picture:
        """A PIL image, as a PNG."""
        out = io.BytesIO()
        (image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA") else image.convert("RGB")).save(out, "PNG")
        return cls(out.getvalue())

    @property
    def image(self) -> PIL.Image.Image:
        """The pixels, as a PIL image. MissingDependency without Pillow."""
        image = _pillow().open(io.BytesIO(self.data))
        image.load()
        return image

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the file and returns its path; a name without a suffix gets one. Another suffix than the picture's own
        converts it, which needs Pillow."""
        path, wanted = _named(path, self.format)
        if wanted == self.format:
            path.write_bytes(self.data)
        elif wanted in PICTURE_TYPES:
            image = self.image
            image = image.convert("RGB") if wanted in ("jpeg", "bmp") else image
            image.save(path, wanted.upper())
        else:
            raise MediaError(f"`{path}` ends in `{path.suffix}`; expected one of {_listed(PICTURE_TYPES)}")
        return path

    def _repr_mimebundle_(self, **_: Any) -> dict[str, bytes]:
        """How a notebook shows it."""
        return {PICTURE_TYPES[self.format]: self.data}


@dataclass(frozen=True, slots=True)
class Audio:
    """A recording as a file in memory. `format` is `wav`, `mp3`, `flac`, `ogg` (opus), `aac`, `webm` or `m4a`; `transcript`
    is what is said in it, where known."""

    data: bytes = field(repr=False)
    format: str = "wav"
    transcript: str | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Audio:
        """Reads a file. MediaError where it holds no recording."""
        return cls.from_bytes(_read(path), f"`{os.fspath(path)}`")

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "the recording") -> Audio:
        """The format is read from the bytes; `name` is how an error calls them."""
        kind, format = sniff(data, name)
        if kind != "audio":
            raise MediaError(f"{name} is a picture ({format}); expected a recording")
        return cls(data, format)

    @classmethod
    def from_pcm(cls, pcm: bytes, sample_rate: int, transcript: str | None = None) -> Audio:
        """A WAV around 16-bit little-endian mono samples."""
        out = io.BytesIO()
        with wave.open(out, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(sample_rate)
            file.writeframes(pcm[: len(pcm) - len(pcm) % 2])
        return cls(out.getvalue(), "wav", transcript)

    @classmethod
    def from_waveform(cls, waveform: numpy.typing.ArrayLike, sample_rate: int) -> Audio:
        """A WAV of samples [n] or [n, channels], which are mixed to one: floats in -1..1, or 16-bit integers."""
        numpy = _numpy()
        samples = numpy.asarray(waveform)
        if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[1] > 8):
            raise MediaError(f"the waveform has the shape `{list(samples.shape)}`; expected [n] or [n, channels]")
        if samples.dtype.kind == "f":
            if not numpy.isfinite(samples).all():
                raise MediaError("the waveform holds samples that are not numbers")
        elif samples.dtype == numpy.int16:
            samples = samples.astype(numpy.float32) / 32767.0
        else:
            raise MediaError(f"the waveform holds `{samples.dtype}`; expected floats in -1..1 or int16")
        mono = samples.mean(axis=1) if samples.ndim == 2 else samples
        pcm = numpy.round(numpy.clip(mono, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()
        return cls.from_pcm(pcm, sample_rate)

    @property
    def sample_rate(self) -> int:
        """Samples per second, of a WAV; MediaError for another format."""
        return self._wav()[1]

    @property
    def pcm(self) -> bytes:
        """16-bit little-endian mono samples, of a WAV; MediaError for another format."""
        return self._wav()[0]

    @property
    def seconds(self) -> float:
        """How long it is, of a WAV; MediaError for another format."""
        pcm, sample_rate = self._wav()
        return len(pcm) / 2 / sample_rate

    @property
    def waveform(self) -> numpy.ndarray[Any, numpy.dtype[numpy.float32]]:
        """float32 [n] in -1..1, of a WAV. MediaError for another format, MissingDependency without numpy."""
        numpy = _numpy()
        return numpy.frombuffer(self.pcm, "<i2").astype(numpy.float32) / 32767.0

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the file and returns its path; a name without a suffix gets one. Nothing is converted."""
        path, wanted = _named(path, self.format)
        if wanted != self.format:
            raise MediaError(f"`{path}` ends in `{path.suffix}`, and the recording is `{self.format}`; ask for that format")
        path.write_bytes(self.data)
        return path

    def _wav(self) -> tuple[bytes, int]:
        if self.format != "wav":
            raise MediaError(f"the recording is `{self.format}`; expected `wav`, whose samples can be read here")
        try:
            with wave.open(io.BytesIO(self.data)) as file:
                shape = (file.getnchannels(), file.getsampwidth())
                sample_rate, pcm = file.getframerate(), file.readframes(file.getnframes())
        except (wave.Error, EOFError) as problem:
            raise MediaError(f"the recording is not a WAV of plain samples: {problem}") from None
        if shape != (1, 2):
            raise MediaError(f"the WAV has {shape[0]} channels of {8 * shape[1]} bits; expected 1 channel of 16 bits")
        return pcm, sample_rate


def sniff(data: bytes, name: str) -> tuple[str, str]:
    """(`image` or `audio`, format), from the first bytes; a declared name or type is never believed."""
    head = bytes(data[:16])
    if head[:4] == b"RIFF":
        if head[8:12] == b"WEBP":
            return "image", "webp"
        if head[8:12] == b"WAVE":
            return "audio", "wav"
    for start, kind, format in (
        (b"\x89PNG\r\n\x1a\n", "image", "png"),
        (b"\xff\xd8\xff", "image", "jpeg"),
        (b"GIF8", "image", "gif"),
        (b"BM", "image", "bmp"),
        (b"fLaC", "audio", "flac"),
        (b"OggS", "audio", "ogg"),
        (b"ID3", "audio", "mp3"),
        (b"\x1aE\xdf\xa3", "audio", "webm"),
    ):
        if head.startswith(start):
            return kind, format
    if head[4:8] == b"ftyp":
        return "audio", "m4a"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        # Layer 0 is what ADTS has where an MPEG layer would stand.
        return "audio", "mp3" if head[1] & 0x06 else "aac"
    expected = ", ".join([*PICTURE_TYPES, *AUDIO_TYPES])
    raise MediaError(f"{name} begins with `{head!r}`; expected a file of one of the formats {expected}")


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as problem:
        raise MediaError(f"`{os.fspath(path)}` cannot be read: {problem.strerror or problem}") from None


def _named(path: str | os.PathLike[str], format: str) -> tuple[Path, str]:
    """The path with a suffix, and the format that the suffix names."""
    path = Path(path)
    if not path.suffix:
        return path.with_name(f"{path.name}.{format}"), format
    suffix = path.suffix[1:].lower()
    return path, OTHER_NAMES.get(suffix, suffix)


def _listed(names: Any) -> str:
    return ", ".join(f"`.{name}`" for name in names)


def _pillow() -> Any:
    try:
        import PIL.Image
    except ImportError:
        raise MissingDependency("this needs Pillow: `pip install pillow`") from None
    return PIL.Image


def _numpy() -> Any:
    try:
        import numpy
    except ImportError:
        raise MissingDependency("this needs numpy: `pip install numpy`") from None
    return numpy
