"""Offline. The published picture decoder, a diffusers folder: read by its sub-configs, checked against our networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from omni_server.conversion.expected import check_shapes
from omni_server.conversion.published import read_commented
from omni_server.conversion.tensors import Stored, read_folder
from omni_server.errors import CheckpointError

STEM = "diffusion_pytorch_model"
NETWORKS = ("transformer", "transformer2", "vae", "token_embedder")
OPTIONAL = ("transformer2",)


@dataclass(frozen=True, slots=True)
class PictureFolder:
    """`files`: relative path -> tensors; `documents`: the small files to copy; `multiple`: what a picture's sides divide by."""

    folder: Path
    files: Mapping[str, Mapping[str, Stored]]
    documents: tuple[str, ...]
    codes: int
    multiple: int
    guided: bool


def read_picture_folder(folder: Path) -> PictureFolder:
    files: dict[str, dict[str, Stored]] = {}
    documents = [name for name in ("model_index.json",) if (folder / name).is_file()]
    guided = (folder / "transformer2").is_dir()
    for network in NETWORKS:
        if network in OPTIONAL and not (folder / network).is_dir():
            continue
        config = read_commented(folder / network / "config.json")
        stored = read_folder(folder / network, STEM)
        check_shapes(network, config, stored)
        for name, tensor in stored.items():
            files.setdefault(f"{network}/{tensor.file.name}", {})[name] = tensor
        documents += [f"{network}/config.json"]
        if (folder / network / f"{STEM}.safetensors.index.json").is_file():
            documents.append(f"{network}/{STEM}.safetensors.index.json")
    scheduler = read_commented(folder / "scheduler" / "scheduler_config.json")
    if scheduler.get("use_dynamic_shifting"):
        raise CheckpointError(f"`{folder}`: the scheduler's `use_dynamic_shifting` is `true`; expected it off")
    documents.append("scheduler/scheduler_config.json")
    blocks = read_commented(folder / "vae" / "config.json")["block_out_channels"]
    embedder = read_commented(folder / "token_embedder" / "config.json")
    codes = int(embedder.get("vocab_size", 65_536))
    # A side must hold whole latents, in pairs.
    return PictureFolder(folder, files, tuple(documents), codes, 2 * 2 ** (len(blocks) - 1), guided)
