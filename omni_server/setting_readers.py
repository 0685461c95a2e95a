"""How one setting is read from text: each reader returns the value, or raises ValueError with what was expected."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

UNITS = {"": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def text(value: str) -> str:
    if not value.strip():
        raise ValueError("some text")
    return value.strip()


def one_of(*names: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in names:
            raise ValueError("one of " + ", ".join(names))
        return value

    return read


def whole(least: int, most: int) -> Callable[[str], int]:
    expected = f"a whole number from {least} to {most}"

    def read(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise ValueError(expected) from None
        if not least <= number <= most:
            raise ValueError(expected)
        return number

    return read


def seconds(value: str) -> float:
    expected = "a number of seconds above 0"
    try:
        number = float(value)
    except ValueError:
        raise ValueError(expected) from None
    if not 0 < number < float("inf"):
        raise ValueError(expected)
    return number


def size(value: str) -> int:
    expected = "a number of bytes above 0 such as 1048576, 20MiB or 2GB"
    digits = value.strip().upper()
    unit = digits.lstrip("0123456789_.").strip()
    try:
        number = int(float(digits.removesuffix(unit)) * UNITS[unit])
    except (KeyError, ValueError, OverflowError):
        raise ValueError(expected) from None
    if number < 1:
        raise ValueError(expected)
    return number


def switch(value: str) -> bool:
    meaning = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if value.strip().lower() not in meaning:
        raise ValueError("true or false")
    return meaning[value.strip().lower()]


def device(value: str) -> str:
    kind, colon, number = value.partition(":")
    if value not in ("auto", "cpu") and not (kind == "cuda" and colon and number.isdigit()):
        raise ValueError("auto, cpu or cuda:N")
    return value


def ratio(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise ValueError("a number above 0, at most 1")
    return number


def json_object(value: str) -> dict[str, Any]:
    try:
        document = json.loads(value)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ValueError('a JSON object such as `{"name": "value"}`')
    return document


def hosts(value: str) -> tuple[str, ...]:
    names = tuple(host.strip().lower() for host in value.split(",") if host.strip())
    if any(not set(host) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-:[]_") for host in names):
        raise ValueError("host names separated by commas")
    return names


def place(value: str) -> str:
    """A folder that is there, or a bucket of S3-compatible storage."""
    scheme, mark, rest = value.strip().partition("://")
    if mark and (scheme != "s3" or not rest.strip("/")):
        raise ValueError("a folder or a URL such as `s3://bucket/prefix`")
    if not mark and not Path(value.strip()).is_dir():
        raise ValueError("a folder that is there, or a URL such as `s3://bucket/prefix`")
    return value.strip()


def web_address(value: str) -> str:
    scheme, _, rest = value.strip().partition("://")
    if scheme not in ("http", "https") or not rest:
        raise ValueError("a URL such as `https://omni.example`")
    return value.strip().rstrip("/")


def origins(value: str) -> tuple[str, ...]:
    names = tuple(origin.strip().lower() for origin in value.split(",") if origin.strip())
    if any(origin != "*" and not re.fullmatch(r"https?://[a-z0-9.\-\[\]:]+", origin) for origin in names):
        raise ValueError("origins such as https://chat.example or http://localhost:3000, separated by commas, or *")
    return names
