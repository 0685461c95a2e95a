"""`omni-server inspect`: what a checkpoint holds and what it needs, from headers alone. Loads no weights."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omni_server.checkpoint import Checkpoint
from omni_server.conversion.tensors import Stored, read_header
from omni_server.profile import open_checkpoint

GIB = 1 << 30
HALF, WHOLE = 2, 4  # bytes of a bfloat16 and of a float32
WORKING_SHARE = 0.15  # of a component's weights, for what it computes with
# How much of a GPU is left to the engine's own buffers and to the driver.
SPARE = 2 * GIB
MACHINES = ((1, 80), (2, 40), (4, 24))


@dataclass(frozen=True, slots=True)
class Component:
    name: str
    tensors: int
    parameters: int
    stored: int  # bytes on disk
    types: tuple[str, ...]

    @property
    def running(self) -> int:
        """Bytes where it runs: the backbone in bfloat16, everything else in float32, as it is loaded today."""
        return self.parameters * (HALF if self.name == "backbone" else WHOLE)


def inspect(root: Path, sessions: int) -> list[str]:
    """The lines to print. Raises CheckpointError where the checkpoint must not be served; weights are not hashed here."""
    checkpoint = open_checkpoint(root, verify_hashes=False)
    components = read_components(checkpoint)
    return [*_holds(checkpoint, components), "", *_can(checkpoint), "", *_needs(checkpoint, components, sessions)]


def read_components(checkpoint: Checkpoint) -> list[Component]:
    found = []
    for name, folder in checkpoint.folders.items():
        if name != "backbone" and folder == checkpoint.folders["backbone"]:
            continue  # the tower lies in the same files
        stored: dict[str, Stored] = {}
        for file in sorted(folder.rglob("*.safetensors")):
            stored |= {f"{file}:{tensor}": place for tensor, place in read_header(file).items()}
        types = Counter(place.dtype for place in stored.values())
        sizes = [(place.elements, place.length) for place in stored.values()]
        parameters, length = sum(elements for elements, _ in sizes), sum(length for _, length in sizes)
        found.append(Component(name, len(stored), parameters, length, tuple(types)))
    return found


def _holds(checkpoint: Checkpoint, components: list[Component]) -> Iterator[str]:
    yield f"{checkpoint.name}: {checkpoint.vocabulary} token ids, context of {checkpoint.context_length} tokens"
    yield f"{'component':18}{'tensors':>8}{'parameters':>16}{'on disk':>12}  type"
    for part in components:
        yield f"{part.name:18}{part.tensors:8}{part.parameters:16,}{_size(part.stored):>12}  {', '.join(part.types)}"
    for band in checkpoint.bands.values():
        yield f"band {band.modality}: ids {band.first} to {band.first + band.size - 1}, between {band.open} and {band.close}"


def _can(checkpoint: Checkpoint) -> Iterator[str]:
    takes, gives = (", ".join(sorted(m)) for m in (checkpoint.modalities_in, checkpoint.modalities_out))
    yield f"takes {takes}; gives {gives}"
    roles = set(checkpoint.dialect.tags.values())
    abilities = [words for role, words in (("reasoning", "thinks"), ("tool_call", "calls tools")) if role in roles]
    if checkpoint.voices:
        abilities.append(f"speaks as {', '.join(checkpoint.voices)}")
    if "voice_cloner" in checkpoint.folders:
        abilities.append("can take the voice of a recording")
    if checkpoint.image is not None:
        grid = checkpoint.image
        abilities.append(f"draws {grid.rows} x {grid.columns} codes in {len(grid.ratios)} ratios")
    yield "; ".join(abilities) or "text only"


def _needs(checkpoint: Checkpoint, components: list[Component], sessions: int) -> Iterator[str]:
    backbone = next(part for part in components if part.name == "backbone")
    beside = [part for part in components if part.name != "backbone"]
    cache = cache_bytes_per_token(checkpoint.folders["backbone"])
    rest = sum(int(part.running * (1 + WORKING_SHARE)) for part in beside)
    yield f"backbone in bfloat16: {_size(backbone.running)}"
    yield f"the rest in float32, and {WORKING_SHARE:.0%} to work with: {_size(rest)}"
    total = cache * checkpoint.context_length * sessions
    yield f"key-value cache: {cache:,} bytes a token; {sessions} replies at full context: {_size(total)}"
    for count, size in MACHINES:
        yield f"{count} x {size} GB: {placement(backbone.running, rest, cache, count, size * 10**9)}"


def placement(backbone: int, rest: int, cache: int, count: int, size: int) -> str:
    """Where things go on `count` GPUs of `size` bytes: one GPU takes all; else the last one takes what is no backbone."""
    shared = count == 1
    share = backbone + (rest if shared else 0)
    for_backbone = max(1, count - 1)
    # The engine splits layers over powers of two only, for heads must divide.
    parallel = 1 << (for_backbone.bit_length() - 1)
    room = parallel * (size - SPARE) - share
    if room <= 0 or (not shared and rest > size - SPARE):
        return "does not fit"
    where = "everything on it" if shared else f"backbone over {parallel} (tensor parallel), encoders and decoders on the last"
    return f"{where}; {_size(room)} for the cache, {room // cache:,} tokens"


def cache_bytes_per_token(folder: Path) -> int:
    config: Mapping[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = config.get("text_config") or config
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return int(2 * HALF * config["num_hidden_layers"] * heads * width)


def _size(count: int) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB // 10 else f"{count / (1 << 20):.2f} MiB"
