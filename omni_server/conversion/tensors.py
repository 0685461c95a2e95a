"""Offline. safetensors files as byte ranges: read by header, written as a stream. Holds one chunk in memory, never a tensor.

A 3 GB embedding table is copied, and narrowed to bfloat16, in pieces of some megabytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from omni_server.errors import CheckpointError

CHUNK = 32 << 20
WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
FLOATS = ("F64", "F32", "F16", "BF16")
LONGEST_HEADER = 100 << 20

Progress = Callable[[int], None]  # bytes read since the last call


@dataclass(frozen=True, slots=True)
class Stored:
    """Where one tensor lies on disk."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int  # from the beginning of the file
    length: int

    @property
    def elements(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Placed:
    """One tensor of an output file: its new name, where it comes from, and the type and shape it gets."""

    name: str
    stored: Stored
    dtype: str
    shape: tuple[int, ...]

    @property
    def length(self) -> int:
        return self.stored.elements * WIDTHS[self.dtype]


def read_header(file: Path) -> dict[str, Stored]:
    """The tensors of one file. Raises CheckpointError where the file is cut short or is no safetensors file."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        begin = stream.read(8)
        length = int.from_bytes(begin, "little")
        if len(begin) < 8 or not 2 <= length <= min(LONGEST_HEADER, size - 8):
            raise CheckpointError(f"`{file}` is no safetensors file, or is cut short: `{size}` bytes, header of `{length}`")
        try:
            header = json.loads(stream.read(length))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            stored = {name: _stored(file, entry, 8 + length) for name, entry in entries.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise CheckpointError(f"`{file}` has a damaged safetensors header: {problem!r}") from None
    end = max((tensor.start + tensor.length for tensor in stored.values()), default=8 + length)
    if end != size:
        raise CheckpointError(f"`{file}` is cut short or padded: `{size}` bytes; its header says `{end}`")
    return stored


def _stored(file: Path, entry: Mapping[str, Any], base: int) -> Stored:
    dtype, shape = str(entry["dtype"]), tuple(int(size) for size in entry["shape"])
    first, last = (int(offset) for offset in entry["data_offsets"])
    if dtype not in WIDTHS:
        raise CheckpointError(f"`{file}` holds a tensor of type `{dtype}`; expected one of {', '.join(WIDTHS)}")
    if last - first != prod(shape) * WIDTHS[dtype]:
        raise CheckpointError(f"`{file}` holds a tensor of shape `{shape}` in `{last - first}` bytes, which do not fit")
    return Stored(file, dtype, shape, base + first, last - first)


def read_folder(folder: Path, stem: str) -> dict[str, Stored]:
    """The tensors of `<stem>.safetensors`, or of the shards that `<stem>.safetensors.index.json` names."""
    index, single = folder / f"{stem}.safetensors.index.json", folder / f"{stem}.safetensors"
    if not index.is_file():
        if not single.is_file():
            raise CheckpointError(f"`{folder}` has neither `{single.name}` nor `{index.name}`; expected one of them")
        return read_header(single)
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(places.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise CheckpointError(f"`{index}` cannot be read: {problem!r}; expected an object with `weight_map`") from None
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"`{folder}` lacks {len(missing)} of {len(names)} shards that its index names: `{missing[0]}`")
    stored: dict[str, Stored] = {}
    for name in names:
        stored |= read_header(folder / name)
    absent = sorted(set(places) - set(stored))
    if absent:
        raise CheckpointError(f"`{index}` names {len(absent)} tensors that no shard holds, such as `{absent[0]}`")
    return stored


def write_file(target: Path, tensors: Sequence[Placed], progress: Progress) -> str:
    """Writes `target` from what `tensors` names and returns its SHA-256. An interrupted write leaves only `.partial`."""
    header: dict[str, object] = {}
    at = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.length],
        }
        at += tensor.length
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    partial = target.with_name(target.name + ".partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("wb") as stream:
        for piece in _pieces(len(text).to_bytes(8, "little") + text, tensors, progress):
            digest.update(piece)
            stream.write(piece)
    partial.replace(target)
    return digest.hexdigest()


def _pieces(head: bytes, tensors: Sequence[Placed], progress: Progress) -> Iterator[bytes]:
    yield head
    for tensor in tensors:
        with tensor.stored.file.open("rb") as source:
            source.seek(tensor.stored.start)
            left = tensor.stored.length
            while left:
                piece = source.read(min(CHUNK, left))
                if not piece:
                    raise CheckpointError(f"`{tensor.stored.file}` ended while `{tensor.name}` was read")
                left -= len(piece)
                yield _cast(piece, tensor.stored.dtype, tensor.dtype)
                progress(len(piece))


def _cast(piece: bytes, found: str, wanted: str) -> bytes:
    if found == wanted:
        return piece
    import torch

    types = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    values = torch.frombuffer(bytearray(piece), dtype=types[found]).to(types[wanted])
    return values.view(torch.uint8).numpy().tobytes()
