"""Offline. A published vocoder archive (`.mar`, a zip with a pickle inside) becomes a vocoder folder of ours.

The pickle is read with weights only: whatever else it holds is refused, never run.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from omni_server.conversion.expected import check_shapes
from omni_server.errors import CheckpointError

MANIFEST = "MAR-INF/MANIFEST.json"
UNITS_PER_SECOND, SAMPLE_RATE = 25, 24_000
FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, ValueError, TypeError, NotImplementedError)


@dataclass(frozen=True, slots=True)
class Archive:
    """One archive: its network's config, the names of its voices, and where in the zip the weights lie."""

    path: Path
    config: Mapping[str, Any]
    speakers: tuple[str, ...]
    weights: str


def read_archive(path: Path, default_speaker: str) -> Archive:
    """Everything but the weights. Raises CheckpointError where the archive is cut short or another one."""
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = json.loads(archive.read(MANIFEST))
            config = json.loads(archive.read("config.json"))
            weights = str(manifest.get("model", manifest)["serializedFile"])
            archive.getinfo(weights)
            listed = "spk_list.txt" in archive.namelist()
            names = archive.read("spk_list.txt").decode("utf-8").splitlines() if listed else []
    except FAULTS as problem:
        raise CheckpointError(f"`{path}` is no vocoder archive, or is cut short: {problem!r}") from None
    speakers = tuple(name.strip() for name in names if name.strip())
    if speakers and default_speaker not in speakers:
        raise CheckpointError(f"`{path}`: spk_list.txt has no `{default_speaker}`; expected the default voice among {speakers}")
    rates = prod(config.get("upsample_rates", ()))
    if rates * UNITS_PER_SECOND != SAMPLE_RATE:
        raise CheckpointError(
            f"`{path}`: the product of `upsample_rates` is `{rates}`; expected {SAMPLE_RATE // UNITS_PER_SECOND} samples a unit"
        )
    shared = {"finetune": bool(speakers), **config, "sample_rate": SAMPLE_RATE, "units_per_second": UNITS_PER_SECOND}
    if speakers:
        shared |= {"num_spk": len(speakers), "speakers": list(speakers), "default_speaker": default_speaker}
    return Archive(path, shared, speakers, weights)


def read_weights(archive: Archive, component: str) -> dict[str, Any]:
    """The folded float32 tensors of the network, checked against it."""
    import torch

    from decoders.audio.unit_bigvgan import fold_weight_norm

    try:
        with zipfile.ZipFile(archive.path) as file, file.open(archive.weights) as stream:
            stored = torch.load(stream, map_location="cpu", weights_only=True)
    except UnpicklingError as problem:
        raise CheckpointError(
            f"`{archive.path}`: `{archive.weights}` holds more than weights, and is not read: {str(problem).splitlines()[0]}"
        ) from None
    except (*FAULTS, RuntimeError) as problem:
        raise CheckpointError(f"`{archive.path}`: `{archive.weights}` cannot be read: {problem!r}") from None
    if not isinstance(stored, dict) or not isinstance(stored.get("generator"), dict):
        raise CheckpointError(f"`{archive.path}`: `{archive.weights}` has no `generator`; expected a dict of tensors under it")
    tensors = fold_weight_norm(stored["generator"])
    check_shapes(component, archive.config, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    return {name: tensor.contiguous() for name, tensor in tensors.items()}
