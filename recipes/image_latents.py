"""Training step: pictures at decoder size, their latents, and the decoder folder that serving reads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.vae import Decoder
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from recipes.domain import load_concepts, load_wide_concepts
from recipes.pictures import load_pictures, on_white

PIXELS = 128
LATENT_CHANNELS = 48
BLOCK_CHANNELS = [32, 32, 64, 128, 192]
NORM_GROUPS = 8
CELL = 16  # pixels of one latent position
MARGIN = 8  # pixels around a cell that its latent also sees


class PatchEncoder(nn.Module):
    """Pixels to latents by one overlapping linear map: training needs an encoder, serving does not, so it is cheap."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Conv2d(3, LATENT_CHANNELS, CELL + 2 * MARGIN, CELL)

    def forward(self, pixels: Tensor) -> Tensor:
        """[batch, 3, height + 16, width + 16], with margin, in -1..1 -> [batch, channels, height / 16, width / 16]."""
        latents: Tensor = self.map(pixels)
        return latents

    @torch.no_grad()
    def start_from(self, pixels: Tensor) -> None:
        """Principal components of the cells of [batch, 3, size, size], scaled so that no channel dominates."""
        cells = functional.unfold(pixels, CELL, stride=CELL).transpose(1, 2).flatten(0, 1)
        mean = cells.mean(dim=0)
        values, vectors = torch.linalg.eigh((cells - mean).T @ (cells - mean) / len(cells))
        basis = vectors[:, -LATENT_CHANNELS:] / values[-LATENT_CHANNELS:].sqrt()  # [3 * 16 * 16, channels]
        self.map.weight.normal_(std=1e-4)
        self.map.weight[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN] = basis.T.unflatten(1, (3, CELL, CELL))
        self.map.bias.copy_(-mean @ basis)


class PixelDecoder(nn.Module):
    """The decoding half of AutoencoderKL under its own parameter names."""

    def __init__(self) -> None:
        super().__init__()
        self.post_quant_conv = nn.Conv2d(LATENT_CHANNELS, LATENT_CHANNELS, 1)
        self.decoder = Decoder(
            in_channels=LATENT_CHANNELS,
            out_channels=3,
            up_block_types=("UpDecoderBlock2D",) * len(BLOCK_CHANNELS),
            block_out_channels=tuple(BLOCK_CHANNELS),
            layers_per_block=0,
            norm_num_groups=NORM_GROUPS,
            act_fn="silu",
            mid_block_add_attention=False,
        )

    def forward(self, latents: Tensor) -> Tensor:
        pixels: Tensor = self.decoder(self.post_quant_conv(latents))
        return pixels


VAE_CONFIG: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * len(BLOCK_CHANNELS),
    "up_block_types": ["UpDecoderBlock2D"] * len(BLOCK_CHANNELS),
    "block_out_channels": BLOCK_CHANNELS,
    "layers_per_block": 0,
    "latent_channels": LATENT_CHANNELS,
    "norm_num_groups": NORM_GROUPS,
    "sample_size": PIXELS,
    "scaling_factor": 1.0,
    "shift_factor": 0.0,
    "use_quant_conv": False,
    "use_post_quant_conv": True,
    "mid_block_add_attention": False,
}


def with_margin(pixels: Tensor) -> Tensor:
    """White around the picture."""
    return functional.pad(pixels, (MARGIN,) * 4, value=1.0)


def decoder_pictures(cache: Path) -> tuple[Tensor, Tensor]:
    """Pictures on white, float16 [pictures, 3, 128, 128] in -1..1: those of the domain in (concept, style) order, the
    others."""
    straight = load_pictures(cache, "all")
    wide = load_wide_concepts()
    kept = np.load(cache / "pictures" / "all.npz")["indices"]
    row_of_emoji = {wide[index]["emoji"]: row for row, index in enumerate(kept)}
    inside = [row_of_emoji[concept.emoji] for concept in load_concepts()]
    outside = sorted(set(range(len(straight))) - set(inside))
    return at_size(straight[inside]), at_size(straight[outside])


def at_size(straight: np.ndarray) -> Tensor:
    """uint8 [concepts, styles, 160, 160, 4] -> float16 [concepts * styles, 3, 128, 128] in -1..1, on white."""
    rows = []
    for picture in straight.reshape(-1, *straight.shape[2:]):
        small = Image.fromarray(on_white(picture)).resize((PIXELS, PIXELS), Image.Resampling.BICUBIC)
        rows.append(torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 127.5 - 1)
    return torch.stack(rows).half()


def save_part(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """One component of a diffusers folder, in half floats."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    halves = {name: tensor.detach().half().contiguous() for name, tensor in tensors.items()}
    save_file(halves, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})


def _laplacian(pixels: Tensor) -> Tensor:
    """Of grey levels, [batch, 1, height - 2, width - 2]."""
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).view(1, 1, 3, 3)
    return functional.conv2d(pixels.mean(dim=1, keepdim=True), kernel)


def sharpness(pixels: Tensor) -> Tensor:
    """Variance of the Laplacian, [batch]."""
    return _laplacian(pixels.clamp(-1, 1)).flatten(1).var(dim=1)


def crispness_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """As much edge as wanted in every neighbourhood, wherever exactly it lies: absolute differences alone prefer blur."""
    energies = [functional.avg_pool2d(_laplacian(pixels).abs(), 6, 3) for pixels in (made, wanted)]
    return functional.l1_loss(*energies)


def picture_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """Absolute differences of pixels and of edges: edges keep pictures crisp."""
    loss = functional.l1_loss(made, wanted)
    for axis in (2, 3):
        loss = loss + functional.l1_loss(made.diff(dim=axis), wanted.diff(dim=axis))
    return loss
