"""Requests that are nearly right: made from the doors' own schemas, and then broken. The same seed makes the same requests."""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.hostile import corpus, flipped
from tests.media_samples import mp4_of, wav_of_tone
from tests.rest.scripts import png_url
from tests.test_ssrf import FORMS

GOOD_FILES = (base64.b64decode(png_url().partition(",")[2]), wav_of_tone(), mp4_of(0.5))
ODD_TEXTS = (
    "", " ", "\0", "\u202e", "𝕏" * 50, "\ud800", "a" * 100_000, "../../etc/passwd", "file:///etc/passwd", "${jndi:ldap://a}",
    "{{7*7}}", "<|im_end|>", "<|audio_start|>", "'; --", "%s%n", "null", "NaN", "-1", "omni-scripted", "mint", "wav",
)  # fmt: skip
ODD_NUMBERS = (0, -1, 1, 0.5, -0.0, 2, 7, 255, 2**31, 2**63, -(2**63), 10**30, 1e308, -1e308, 5e-324)
ODD_WORDS = ("NaN", "Infinity", "-Infinity", "1e999", "[" * 20_000, '{"a":' * 20_000, "nul", "'a'", "")


ODD = 0.1  # of the values are odd already where a request is made; then it is broken
LIKELY = {"model": "omni-scripted", "voice": "mint", "role": "user", "type": "text", "format": "wav", "size": "auto"}


def medium(chance: random.Random) -> bytes:
    """A broken, huge, hostile or good file."""
    kind = chance.random()
    if kind < 0.5:
        return chance.choice(tuple(corpus().values()))
    return flipped(chance.choice(GOOD_FILES), chance.randrange(10_000)) if kind < 0.8 else chance.choice(GOOD_FILES)


def medium_text(chance: random.Random) -> str:
    """As base64, as a data: URL, or as the URL of something that must not be fetched."""
    kind = chance.random()
    if kind < 0.2:
        return chance.choice(FORMS).replace("P", "1")
    text = base64.b64encode(medium(chance)).decode()
    text = text if kind < 0.9 else text[: chance.randrange(len(text) + 1)] + chance.choice("=%-_\n ")
    head = chance.choice(
        ("data:image/png;base64,", "data:audio/wav;base64,", "data:;base64,", "data:,", "data:text/html,", "data", "")
    )
    return head + text


def text(chance: random.Random) -> str:
    if chance.random() < 0.5:
        return chance.choice(ODD_TEXTS)
    return "".join(chance.choices(string.printable, k=chance.randrange(30)))


def value(chance: random.Random, depth: int = 0) -> Any:
    """Anything that JSON can hold."""
    kind = chance.randrange(7 if depth < 3 else 5)
    if kind == 5:
        return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
    if kind == 6:
        return {text(chance)[:20]: value(chance, depth + 1) for _ in range(chance.randrange(4))}
    return (None, True, chance.choice(ODD_NUMBERS), text(chance), chance.randrange(1000))[kind]


def likely_body(path: str, chance: random.Random) -> dict[str, Any]:
    """A request that a client could mean, but for its media."""
    medium_part = chance.choice(
        (
            {"type": "image_url", "image_url": {"url": medium_text(chance)}},
            {"type": "input_audio", "input_audio": {"data": medium_text(chance), "format": "wav"}},
            {"type": "text", "text": text(chance)},
        )
    )
    message = {"role": "user", "content": [{"type": "text", "text": "hello"}, medium_part]}
    bodies: dict[str, dict[str, Any]] = {
        "chat/completions": {"messages": [message], "stream": chance.random() < 0.5, "modalities": ["text"]},
        "audio/speech": {"input": "hello", "voice": "mint", "response_format": chance.choice(("wav", "mp3", "pcm", "opus"))},
        "images/generations": {"prompt": "a cat", "response_format": "b64_json"},
        "images/edits": {"prompt": "a cat", "images": [{"image_url": medium_text(chance)}]},
    }
    known = [body for name, body in bodies.items() if path.endswith(name)]
    return {"model": "omni-scripted", **(known[0] if known else {})}


class Shapes:
    """Instances of JSON schemas. `definitions` are what `$ref` names."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def instance(self, schema: dict[str, Any], chance: random.Random, name: str = "", depth: int = 0) -> Any:
        if "$ref" in schema:
            found: Any = self._document
            for step in schema["$ref"].lstrip("#/").split("/"):
                found = found.get(step, {})
            return self.instance(found, chance, name, depth + 1)
        for either in ("anyOf", "oneOf", "allOf"):
            if schema.get(either):
                return self.instance(chance.choice(schema[either]), chance, name, depth + 1)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return chance.choice(schema["enum"])
        match schema.get("type"):
            case "object":
                properties = schema.get("properties", {})
                wanted = [
                    key for key in properties if key in schema.get("required", ()) or (depth < 6 and chance.random() < 0.12)
                ]
                return {key: self.instance(properties[key], chance, key, depth + 1) for key in wanted}
            case "array":
                return [self.instance(schema.get("items", {}), chance, name, depth + 1) for _ in range(chance.randrange(1, 3))]
            case "integer" | "number":
                odd = chance.random() < ODD
                return chance.choice(ODD_NUMBERS) if odd else schema.get("minimum", schema.get("maximum", 1))
            case "boolean":
                return chance.random() < 0.5
            case "string":
                if name in ("url", "data", "image", "audio", "file_data", "image_url", "mask"):
                    return medium_text(chance)
                return text(chance) if chance.random() < ODD else LIKELY.get(name, "hello")
            case _:
                return value(chance, depth)


def broken(document: Any, chance: random.Random) -> Any:
    """One thing in it is gone, another thing, or twice."""
    if isinstance(document, dict) and document:
        key = chance.choice(list(document))
        if chance.random() < 0.6:
            return {**document, key: broken(document[key], chance)}
        if chance.random() < 0.5:
            return {name: kept for name, kept in document.items() if name != key}
        return {**document, (text(chance)[:20] if chance.random() < 0.5 else key): value(chance)}
    if isinstance(document, list) and document and chance.random() < 0.7:
        place = chance.randrange(len(document))
        return [*document[:place], broken(document[place], chance), *document[place + chance.randrange(2) :]]
    return value(chance)


def encoded(document: Any, chance: random.Random) -> bytes:
    """JSON, or what is nearly JSON."""
    said = json.dumps(document, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
    if chance.random() < 0.1 and said:
        place = chance.randrange(len(said))
        extra = chance.choice((b"", b"\0", b"\xff", b"\xed\xa0\x80", *(word.encode() for word in ODD_WORDS)))
        return said[:place] + extra + said[place + chance.randrange(2) :]
    return said


def filled(message: Message, chance: random.Random, depth: int = 0) -> Message:
    """Fields of a message, some of them with what they cannot mean."""
    for field in message.DESCRIPTOR.fields:
        if depth > 5 or chance.random() < 0.5:
            continue
        many = chance.randrange(1, 3) if field.is_repeated else 1
        for _ in range(many):
            if field.message_type is not None:
                inner = getattr(message, field.name).add() if field.is_repeated else getattr(message, field.name)
                if not field.is_repeated:
                    inner.SetInParent()
                filled(inner, chance, depth + 1)
                continue
            made = SCALARS[field.cpp_type](chance, field)
            if field.is_repeated:
                getattr(message, field.name).append(made)
            else:
                setattr(message, field.name, made)
    return message


def _text_or_bytes(chance: random.Random, field: FieldDescriptor) -> str | bytes:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return medium(chance)
    if field.name == "url":
        return medium_text(chance)
    return "".join(letter for letter in text(chance) if not "\ud800" <= letter <= "\udfff")


def _number(low: int, high: int) -> Callable[[random.Random, FieldDescriptor], int]:
    return lambda chance, _: chance.choice((0, 1, low, high, chance.randrange(0, 50_000)))


SCALARS: dict[int, Callable[[random.Random, FieldDescriptor], Any]] = {
    FieldDescriptor.CPPTYPE_INT32: _number(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: _number(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: _number(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: _number(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_DOUBLE: lambda chance, _: float(chance.choice((*ODD_NUMBERS, float("nan"), float("inf")))),
    FieldDescriptor.CPPTYPE_FLOAT: lambda chance, _: float(chance.choice((0, 1, -1, 0.5, float("nan"), float("inf")))),
    FieldDescriptor.CPPTYPE_BOOL: lambda chance, _: chance.random() < 0.5,
    FieldDescriptor.CPPTYPE_ENUM: lambda chance, _: chance.choice((0, 1, 2, 3, 4, 99, -1)),
    FieldDescriptor.CPPTYPE_STRING: _text_or_bytes,
}
