"""Step 1. Who may call: API keys in a file, as hashes, read again whenever the file changes. Knows no wire and no request.

Each line is a JSON object: `name`, `sha256` of the key, and limits of that name. A key holds 256 random bits, so a plain
hash cannot be turned back. Two lines of one name are two keys of one caller: that is how a key is changed without a gap.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from omni_server.errors import ConfigError
from omni_server.wording import shown

_log = logging.getLogger(__name__)

PREFIX = "sk-omni-"
NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one caller. None is no limit, 0 forbids. `audio_seconds` are of sound that is made; sound that is heard is tokens."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    audio_seconds_per_minute: float | None = None
    images_per_minute: float | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class KeyRecord:
    name: str
    limits: Limits


class KeyFile:
    """The keys of `path` as they are now."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError where the file cannot be read."""
        self._path = path
        self._seen = _version(path)
        self._records = read_keys(path)

    def find(self, key: str) -> KeyRecord | None:
        if (version := _version(self._path)) != self._seen:
            self._seen = version
            try:
                self._records = read_keys(self._path)
            except ConfigError as problem:  # half-written, or gone: who could call a moment ago still can
                _log.error("the keys stay as they were: %s", problem)
            else:
                _log.info("%d keys were read from `%s`", len(self._records), self._path)
        return self._records.get(hash_of(key))


def hash_of(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def read_keys(path: Path) -> dict[str, KeyRecord]:
    """By hash. Raises ConfigError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as problem:
        raise ConfigError(f"--keys-file is `{path}`, which cannot be read: {problem}", param="--keys-file") from None
    records: dict[str, KeyRecord] = {}
    limits: dict[str, Limits] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            hash, record = _record(line)
            if limits.setdefault(record.name, record.limits) != record.limits:
                raise ValueError(f"other limits than an earlier line of `{record.name}`; keys of one name share its limits")
        except ValueError as problem:
            told = f"line {number} of the keys file `{path}` has {problem}"
            raise ConfigError(told, param="--keys-file") from None
        records[hash] = record
    return records


def _record(line: str) -> tuple[str, KeyRecord]:
    """Raises ValueError with what is wrong; the line's own text stays out of it."""
    try:
        entry: Any = json.loads(line)
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        raise ValueError("no JSON object")
    name, hash = entry.pop("name", None), entry.pop("sha256", None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"the name {shown(name)}; expected 1 to 64 letters, digits, `.`, `_`, `@` or `-`")
    if not isinstance(hash, str) or not HASH.fullmatch(hash):
        raise ValueError("no `sha256` of 64 hexadecimal digits")
    known = {limit.name for limit in fields(Limits)}
    for limit, value in entry.items():
        if limit not in known:
            raise ValueError(f"the limit {shown(limit)}; expected some of {', '.join(sorted(known))}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise ValueError(f"`{limit}` of {shown(value)}; expected a number of at least 0")
    return hash, KeyRecord(name, Limits(**entry))


def add_key(path: Path, name: str, limits: Limits) -> str:
    """A new key of `name`, whose hash is now in the file; the key itself is kept nowhere. Raises ConfigError."""
    key = PREFIX + secrets.token_urlsafe(32)
    known = {record.name: record.limits for record in read_keys(path).values()} if path.exists() else {}
    limits = known.get(name, limits) if limits == Limits() else limits
    if known.get(name, limits) != limits:
        told = f"`{name}` has a key with other limits in `{path}`; keys of one name share its limits, change them there"
        raise ConfigError(told, param="name")
    said = {limit: value for limit, value in asdict(limits).items() if value is not None}
    line = json.dumps({"name": name, "sha256": hash_of(key), **said})
    try:
        _record(line)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "rb+") as file:
            size = file.seek(0, os.SEEK_END)
            cut = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
            os.write(handle, (("\n" if cut else "") + line + "\n").encode())  # one write: a server never reads half a line
    except ValueError as problem:
        raise ConfigError(f"the key would have {problem}", param="name") from None
    except OSError as problem:
        raise ConfigError(f"the keys file `{path}` cannot be written: {problem.strerror}", param="--keys-file") from None
    return key


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
