"""The picture pipeline against numbers of the published networks, by way of a diffusers folder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from decoders.image.token_diffusion import TokenDiffusionPipeline

GOLDEN = Path(__file__).parents[2] / "golden"
PARTS = ("transformer", "transformer2", "vae", "token_embedder")


def read_golden(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as archive:
        tensors = {key: archive.get_tensor(key) for key in set(archive.keys())}
        return json.loads(archive.metadata()["config"]), tensors


def write_folder(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    """The published layout: one sub-folder for each component."""
    for part in PARTS:
        if not config.get(part):
            continue
        prefix = f"weights.{part}."
        weights = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        (folder / part).mkdir()
        (folder / part / "config.json").write_text(json.dumps(config[part]))
        save_file(weights, folder / part / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    FlowMatchEulerDiscreteScheduler(**config["scheduler"]).save_pretrained(folder / "scheduler")
    return folder


@pytest.mark.parametrize("name", ["image_decoder_plain", "image_decoder_autoguidance"])
def test_golden(name: str, tmp_path: Path) -> None:
    """A network, a sampler or a guidance that would not draw the published picture from the published weights."""
    config, tensors = read_golden(name)
    pipeline = TokenDiffusionPipeline.from_folder(write_folder(tmp_path, config, tensors))
    forward = [tensors[f"io.forward.{part}"] for part in ("img", "img_ids", "timesteps", "y")]
    with torch.inference_mode():
        torch.testing.assert_close(pipeline.transformer(*forward), tensors["io.forward.out"], atol=1e-3, rtol=0)
    call = config["call"]
    image = pipeline(
        tensors["io.tokens"][None],
        call["height"],
        call["width"],
        call["num_inference_steps"],
        call["guidance_scale"],
        latents=tensors["io.initial_latents"],
    )
    torch.testing.assert_close(image, tensors["io.image"], atol=1e-3, rtol=0)
