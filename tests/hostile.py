"""Media that no honest client sends: broken, huge, and made to harm. Made on the spot, the same each time."""

from __future__ import annotations

import io
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache

import numpy as np
import PIL.Image

from tests.media_samples import mp4_of, png_of, wav_of_tone


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *more: bytes, pixels: bytes | None = None, depth: int = 8, colour: int = 2) -> bytes:
    """`pixels` are deflated; `more` are chunks before them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(pixels if pixels is not None else b"\0" * 10_000, 9))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + body + chunk(b"IEND", b"")


def gif(width: int, height: int, frames: int) -> bytes:
    """Frames of one pixel on a screen of that size."""
    frame = b"\x21\xf9\x04\0\0\0\0\0" + b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + frame * frames + b"\x3b"


def wav(channels: int, rate: int, bits: int, size: int, format: int = 1, content: bytes = b"\0" * 4000) -> bytes:
    """What the header says is what it says; `content` is what there is."""
    frame = (channels * bits // 8) & 0xFFFF
    header = struct.pack("<HHIIHH", format, channels, rate, (rate * frame) & 0xFFFFFFFF, frame, bits)
    fields = b"WAVEfmt " + struct.pack("<I", 16) + header + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", (size + 36) & 0xFFFFFFFF) + fields + content


def box(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    return struct.pack(">I", len(content) + 8 if size is None else size) + kind + content


def changed(data: bytes, of: bytes, to: bytes) -> bytes:
    assert of in data
    return data.replace(of, to, 1)


def pictures() -> Iterator[tuple[str, bytes]]:
    good = png_of(PIL.Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)))
    bomb = zlib.compress(b"\0" * 80_000_000, 9)
    yield "png of 50000 x 50000", png(50_000, 50_000)
    yield "png of 2^31 - 1 squared", png(2**31 - 1, 2**31 - 1)
    yield "png of no size", png(0, 0)
    yield "png wide and flat", png(2**31 - 1, 1)
    yield "png with a text bomb", png(8, 8, chunk(b"zTXt", b"k\0\0" + bomb))
    yield "png with a profile bomb", png(8, 8, chunk(b"iCCP", b"k\0\0" + bomb))
    yield "png with an international bomb", png(8, 8, chunk(b"iTXt", b"k\0\1\0\0\0" + bomb))
    yield "png of ten thousand chunks", png(8, 8, *([chunk(b"tEXt", b"k\0v")] * 10_000))
    yield "png that expands", png(5000, 5000, pixels=b"\0" * (5001 * 5000 // 8), depth=1, colour=0)
    yield "png with a wrong sum", good[:-20] + bytes(20)
    yield "png with a chunk of 4 GB", good[:33] + struct.pack(">I", 2**32 - 1) + b"IDAT" + good[41:]
    yield "apng of many frames", png(8, 8, chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)))
    yield "gif of 65535 x 65535", gif(65_535, 65_535, 1)
    yield "gif of thousands of frames", gif(16, 16, 20_000)
    yield "gif of no frame", gif(16, 16, 0)
    yield "webp of 16383 x 16383", webp_of(16_383, 16_383)
    yield "webp whose canvas is 2^24", b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0" + b"\xff" * 6
    yield (
        "bmp of 2^31",
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0),
    )
    yield (
        "jpeg of 65535 x 65535",
        b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x22\0\x02\x11\x01\x03\x11\x01\xff\xda" + bytes(100),
    )
    yield "jpeg of scans", scans(2000)
    yield "tiff", b"II*\0\x08\0\0\0" + b"\xff" * 100
    yield "svg", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    yield "postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) (r) file\n"
    for part in (1, 8, 33, len(good) // 2, len(good) - 1):
        yield f"png cut after {part}", good[:part]


def webp_of(width: int, height: int) -> bytes:
    """The header of a lossless picture, and next to nothing behind it."""
    bits = (width - 1) | (height - 1) << 14
    content = b"\x2f" + struct.pack("<I", bits) + b"\x88\x88\x08\0" + bytes(16)
    return b"RIFF" + struct.pack("<I", len(content) + 12) + b"WEBPVP8L" + struct.pack("<I", len(content)) + content


def scans(count: int) -> bytes:
    """A progressive picture that goes over itself again and again."""
    file = io.BytesIO()
    PIL.Image.new("RGB", (1024, 1024), "grey").save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + b"\xff\xd9"


def sounds() -> Iterator[tuple[str, bytes]]:
    good, film = wav_of_tone(), mp4_of(1.0)
    yield "wav of 4 GB", wav(1, 16_000, 16, 2**32 - 37)
    yield "wav of 65535 channels", wav(65_535, 16_000, 16, 4000)
    yield "wav of 4 GHz", wav(1, 2**32 - 1, 16, 4000)
    yield "wav of no rate", wav(1, 0, 16, 4000)
    yield "wav of no channels", wav(0, 16_000, 16, 4000)
    yield "wav of 65535 bits", wav(1, 16_000, 65_535, 4000)
    yield "wav of an unknown kind", wav(1, 16_000, 16, 4000, format=0x1234)
    yield "wav of numbers that are none", wav(1, 16_000, 32, 4000, 3, struct.pack("<f", float("nan")) * 4000)
    yield "wav of a forever", wav(1, 8000, 8, 2**32 - 37, content=bytes(6_000_000))
    yield "wav without samples", wav(1, 16_000, 16, 0, content=b"")
    yield "flac of nothing", b"fLaC" + bytes(4000)
    yield "flac with a block of 16 MB", b"fLaC\x04\xff\xff\xff" + bytes(100)
    yield "ogg of nothing", b"OggS" + bytes(4000)
    yield "ogg of endless pages", b"OggS\0\2" + b"\xff" * 21 + b"\xff" * 255 + bytes(2000)
    yield "id3 of 256 MB", b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(1000)
    yield "mp3 of noise", b"\xff\xfb\x90\x64" + random.Random(1).randbytes(20_000)
    yield "aac of noise", b"\xff\xf1\x50\x80" + random.Random(2).randbytes(20_000)
    yield "matroska of 2^56", b"\x1a\x45\xdf\xa3\x01" + b"\xff" * 7 + bytes(1000)
    yield "matroska of noise", b"\x1a\x45\xdf\xa3" + random.Random(3).randbytes(5000)
    yield "mp4 of 2^63", box(b"ftyp", b"isom\0\0\0\0") + struct.pack(">I", 1) + b"moov" + struct.pack(">Q", 2**63) + bytes(100)
    yield "mp4 in itself", nested(2000)
    yield "mp4 of 4 billion samples", counted(film, b"stsz", 12)
    yield "mp4 whose first table has 4 billion lines", counted(film, b"stts")
    yield "mp4 whose chunks are 4 billion", counted(film, b"stco")
    yield "mp4 without its samples", changed(film, b"mdat", b"free")
    yield "flv of noise", b"FLV\x01\x05\0\0\0\x09" + random.Random(4).randbytes(5000)
    yield "avi of noise", b"RIFF\xff\xff\xff\xffAVI LIST" + random.Random(5).randbytes(5000)
    yield "playlist", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"
    yield "playlist of ffmpeg", b"ffconcat version 1.0\nfile /etc/passwd\n"
    yield "sdp", b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n"
    for part in (1, 12, 43, 44, 45, len(good) // 2):
        yield f"wav cut after {part}", good[:part]
    for part in (8, 40, len(film) // 2, len(film) - 50):
        yield f"mp4 cut after {part}", film[:part]


def nested(depth: int) -> bytes:
    inner = b""
    for _ in range(depth):
        inner = box(b"moov", inner)
    return box(b"ftyp", b"isom\0\0\0\0") + inner


def counted(film: bytes, table: bytes, place: int = 8) -> bytes:
    """A table that says that it has all the lines that a number can say."""
    at = film.index(table) + place
    return film[:at] + b"\xff\xff\xff\xff" + film[at + 4 :]


def anything() -> Iterator[tuple[str, bytes]]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a", b"\0" * 10_000_000)
    yield "nothing", b""
    yield "one byte", b"\0"
    yield "zeros", bytes(100_000)
    yield "noise", random.Random(6).randbytes(100_000)
    yield "pickle", pickle.dumps({"a": [1, 2, 3]})
    yield "zip", archive.getvalue()
    yield "program", b"\x7fELF" + bytes(1000)
    yield "path", b"/etc/passwd"


def flipped(data: bytes, seed: int) -> bytes:
    """A good file of which some bytes are others."""
    chance = random.Random(seed)
    broken = bytearray(data)
    for _ in range(chance.choice((1, 3, 30))):
        broken[chance.randrange(len(broken))] = chance.randrange(256)
    return bytes(broken)


@cache
def corpus() -> dict[str, bytes]:
    return dict([*pictures(), *sounds(), *anything()])
