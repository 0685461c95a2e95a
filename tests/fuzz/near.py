"""Values next to good ones: what one thing of a good request becomes. The same seed makes the same."""

from __future__ import annotations

import random
import re
from functools import cache
from typing import Any

import numpy as np
import PIL.Image
from google.protobuf.message import Message

from omni_server.audio_format import encode
from omni_server.live_audio import FrameWriter
from tests.fuzz.shapes import ODD_NUMBERS, ODD_TEXTS, SCALARS
from tests.hostile import corpus, flipped
from tests.media_samples import mp4_of, png_of
from tests.rest.scripts import tone

UNREAD = "unread"
# What is said of a body or a message that could not be read as a whole.
UNREADABLE = re.compile(
    r"is not of this wire|body is not JSON|is not a form that can be read|expected a JSON object with a `type`"
)
DEEP = ('{"a":' * 20_000, "[" * 20_000, "9" * 5_000)
NEAR_TEXTS = (
    "auto",
    "none",
    "en",
    "ko",
    "wav",
    "mp3",
    "url",
    "json",
    "high",
    "1x1",
    "9999x9999",
    "file_1",
    "resp_1",
    "a" * 300,
    *DEEP,
)


@cache
def good_files() -> dict[str, tuple[bytes, ...]]:
    sound = tone(0.6, 220.0, 16_000)
    noise = PIL.Image.fromarray(np.random.default_rng(3).integers(0, 255, (40, 56, 3), np.uint8))
    return {
        "picture": (png_of(noise), png_of(noise.convert("L")), png_of(noise.convert("RGBA")), png_of(noise.convert("P"))),
        "sound": tuple(encode(kind, sound, 16_000) for kind in ("wav", "mp3", "flac", "opus", "aac")),
        "film": (mp4_of(0.5), mp4_of(0.5, sound=False)),
    }


@cache
def packets() -> tuple[bytes, ...]:
    return tuple(FrameWriter("opus_packets", 24_000, 24_000).feed(tone(1.0)))


def file_like(kind: str, chance: random.Random) -> bytes:
    """Good, cut, flipped, with something behind it, or made to harm."""
    good = chance.choice(good_files()[kind])
    match chance.randrange(6):
        case 0:
            return good
        case 1:
            return good[: chance.randrange(len(good))]
        case 2:
            return flipped(good, chance.randrange(10_000))
        case 3:
            return good[: chance.randrange(len(good))] + chance.randbytes(chance.randrange(200))
        case 4:
            return chance.choice(good_files()[chance.choice(("picture", "sound", "film"))])
        case _:
            return chance.choice(tuple(corpus().values()))


def packet_like(chance: random.Random) -> bytes:
    """Of Opus."""
    good = bytearray(chance.choice(packets()))
    match chance.randrange(4):
        case 0:
            return bytes(good)
        case 1:
            return bytes(good[: chance.randrange(len(good))])
        case 2:
            return chance.randbytes(chance.choice((1, 2, 3, 40, 1275, 20_000, 70_000)))
        case _:
            for _ in range(chance.randrange(1, 5)):
                good[chance.randrange(len(good))] = chance.randrange(256)
            return bytes(good)


def nudged(document: Any, chance: random.Random) -> Any:
    """One thing in it, at any depth, is next to what it was."""
    if isinstance(document, dict) and document and chance.random() < 0.85:
        key = chance.choice(list(document))
        if chance.random() < 0.1:
            return {name: kept for name, kept in document.items() if name != key}
        return {**document, key: nudged(document[key], chance)}
    if isinstance(document, list) and document and chance.random() < 0.85:
        place = chance.randrange(len(document))
        if chance.random() < 0.1:
            return [*document, *document, *document[:1]]
        return [*document[:place], nudged(document[place], chance), *document[place + 1 :]]
    return next_to(document, chance)


def next_to(value: Any, chance: random.Random) -> Any:
    if chance.random() < 0.2:
        return chance.choice((None, [], {}, "", 0, True, [value], {"type": value}, str(value)))
    match value:
        case bool():
            return chance.choice((not value, None, 2))
        case int() | float():
            return chance.choice((value + 1, value - 1, -value, value + 0.5, value * 1000, *ODD_NUMBERS))
        case str():
            return chance.choice((value + "x", value[:-1], value.upper(), *NEAR_TEXTS, *ODD_TEXTS))
        case _:
            return chance.choice((None, "", 1, [[]], {"a": 1}))


def nudged_message(message: Message, chance: random.Random) -> Message:
    """The same for a message of gRPC: of a field that is set, or of one that was not."""
    fields = [field for field, _ in message.ListFields()] if chance.random() < 0.75 else list(message.DESCRIPTOR.fields)
    if not fields:
        return message
    field = chance.choice(fields)
    many = field.is_repeated
    if field.message_type is not None:
        if many and not getattr(message, field.name):
            getattr(message, field.name).add()
        inner = chance.choice(getattr(message, field.name)) if many else getattr(message, field.name)
        inner.SetInParent()
        nudged_message(inner, chance)
        return message
    text = field.cpp_type == field.CPPTYPE_STRING and field.type != field.TYPE_BYTES
    made = chance.choice(NEAR_TEXTS) if text and chance.random() < 0.5 else SCALARS[field.cpp_type](chance, field)
    if many:
        getattr(message, field.name).append(made)
    else:
        setattr(message, field.name, made)
    return message
