"""Step 3. The vision tower of a Hugging Face folder that holds it beside its language model: only its tensors are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from omni_server.errors import CheckpointError

# Published folders and the libraries that save them do not agree on these names.
PREFIXES = {
    "model.vision_model.": "vision_model.",
    "vision_model.": "vision_model.",
    "model.mm_projector.": "mm_projector.",
    "mm_projector.": "mm_projector.",
    "model.vision_projector.": "mm_projector.",
    "model.projector.": "mm_projector.",
}
NOT_SIZES = ("model_type", "architectures", "torch_dtype", "dtype", "transformers_version", "_attn_implementation")
LEAST_PIXELS, MOST_PIXELS = 3136, 12_845_056


def read_beside_backbone(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """A component's configuration and its tensors as float32, under the names of our own format."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as stored:
            for name in stored.keys():  # noqa: SIM118 - the file is no mapping
                prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
                if prefix is not None:
                    tensors[PREFIXES[prefix] + name.removeprefix(prefix)] = stored.get_tensor(name).float()
    if not tensors:
        raise CheckpointError(
            f"`{folder}` says `vision_config`, but holds no vision tower; expected one of {', '.join(PREFIXES)}"
        )
    least, most = _pixel_limits(folder)
    return {
        "hidden_size": config["text_config"]["hidden_size"],
        "min_pixels": least,
        "max_pixels": most,
        "vision_config": {name: value for name, value in config["vision_config"].items() if name not in NOT_SIZES},
    }, tensors


def _pixel_limits(folder: Path) -> tuple[int, int]:
    """Two generations of preprocessors: pixels by name, or a size with a shortest and a longest edge, squared."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        if not (folder / name).is_file():
            continue
        said = json.loads((folder / name).read_text(encoding="utf-8"))
        said = said.get("image_processor", said)
        size = said.get("size") or {}
        least = said.get("min_pixels") or size.get("shortest_edge") or LEAST_PIXELS
        most = said.get("max_pixels") or size.get("longest_edge") or MOST_PIXELS
        return int(least), int(most)
    return LEAST_PIXELS, MOST_PIXELS
