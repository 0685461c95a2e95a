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
from omni_server.placement import SPARE_BYTES, place
from omni_server.profile import open_checkpoint

GIB = 1 << 30
HALF, WHOLE = 2, 4  # bytes of a bfloat16 and of a float32
WORKING_SHARE = 0.15  # of a component's weights, for what it computes with
SPEAKS, DRAWS, ON_CPU = ("backbone", "backbone_draft"), ("image_decoder",), ("audio_decoder", "voice_cloner")
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
        """Bytes where it runs: what the engine holds in bfloat16, everything else in float32, as it is loaded today."""
        return self.parameters * (HALF if self.name in SPEAKS else WHOLE)


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
    if checkpoint.draft_tokens:
        abilities.append(f"drafts {checkpoint.draft_tokens} tokens ahead")
    if checkpoint.image is not None:
        grid = checkpoint.image
        abilities.append(f"draws {grid.rows} x {grid.columns} codes in {len(grid.ratios)} ratios")
    yield "; ".join(abilities) or "text only"


def _needs(checkpoint: Checkpoint, components: list[Component], sessions: int) -> Iterator[str]:
    backbone = sum(part.running for part in components if part.name in SPEAKS)
    beside = [part for part in components if part.name not in SPEAKS]
    cache = cache_bytes_per_token(checkpoint.folders["backbone"], drafts=checkpoint.draft_tokens > 0)
    sees = sum(int(part.running * (1 + WORKING_SHARE)) for part in beside if part.name not in DRAWS + ON_CPU)
    draws = sum(int(part.running * (1 + WORKING_SHARE)) for part in beside if part.name in DRAWS)
    yield f"backbone in bfloat16: {_size(backbone)}"
    yield f"encoders in float32, and {WORKING_SHARE:.0%} to work with: {_size(sees)}"
    yield f"picture decoder, likewise: {_size(draws)}; voices run on the CPU"
    total = cache * checkpoint.context_length * sessions
    yield f"key-value cache: {cache:,} bytes a token; {sessions} replies at full context: {_size(total)}"
    for count, size in MACHINES:
        yield f"{count} x {size} GB: {fitting(backbone, sees, draws, cache, count, size * 10**9)}"


def fitting(backbone: int, sees: int, draws: int, cache: int, count: int, size: int) -> str:
    """What lies where on `count` GPUs of `size` bytes by the rule of placement.py, and what is left for the cache."""
    placed = place(count)
    taken = [backbone // placed.backbone if number < placed.backbone else 0 for number in range(count)]
    for device, load in ((placed.encoders, sees), (placed.decoders, draws)):
        taken[int(device.removeprefix("cuda:"))] += load
    if any(load > size - SPARE_BYTES for load in taken):
        return "does not fit"
    # The cache is split like the layers, so the fullest of the backbone's GPUs says how much there is.
    room = placed.backbone * min(size - SPARE_BYTES - load for load in taken[: placed.backbone])
    where = f"backbone on {placed.backbone}, encoders on {placed.encoders}, pictures on {placed.decoders}"
    return f"{where}; {_size(room)} for the cache, {room // cache:,} tokens"


def cache_bytes_per_token(folder: Path, *, drafts: bool) -> int:
    """Keys and values of every layer, and of the draft's one where it drafts."""
    config: Mapping[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = config.get("text_config") or config
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return int(2 * HALF * (config["num_hidden_layers"] + drafts) * heads * width)


def _size(count: int) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB // 10 else f"{count / (1 << 20):.2f} MiB"
