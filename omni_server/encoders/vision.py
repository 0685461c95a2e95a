"""Step 3. Picture to what the backbone sees (continuous embeddings) and could also have said (codes of a fixed grid).

A folder is `config.json` and `model.safetensors`; all sizes come from the first, stored half floats are widened.
"""

import json
import math
import os
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from omni_server.encoders.beside_backbone import read_beside_backbone
from omni_server.encoders.ta_tok import UNUSED_PREFIXES, TaTok, TaTokConfig
from omni_server.errors import CheckpointError, MediaError

Folder = str | os.PathLike[str]

MAXIMUM_ASPECT_RATIO = 200
LEAST_FRAME_PIXELS = 128 * 28 * 28
CHUNK_FRAMES = 32  # the tower mixes nothing across more than a pair of frames, so a chunk changes only the memory it takes
# What the published encoders look at where a folder does not say it: two frames a second, 128 at most, of 378 x 378 pixels.
VIDEO = {"frames_per_second": 2, "max_frames": 128, "max_frame_pixels": 378 * 378}
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


class ImageCodebook:
    """Discrete picture codes by a TA-Tok network, in float32 and by argmax: the same picture has the same codes."""

    def __init__(self, network: TaTok) -> None:
        self.network = network.eval()
        self.size = network.config.codebook_size
        self.grid = (network.config.side, network.config.side)  # rows, columns
        with torch.inference_mode():
            self._directions = network.bottleneck.regularizer.directions()  # [size, bottleneck width]

    @classmethod
    def from_pretrained(cls, folder: Folder) -> Self:
        config, tensors = _read_folder(folder)
        network = TaTok(TaTokConfig(**config))
        result = network.load_state_dict(tensors, strict=False)
        unused_layers = tuple(
            f"encoder.encoder.layers.{layer}." for layer in range(network.config.used_layers, network.config.num_hidden_layers)
        )
        strange = [name for name in result.unexpected_keys if not name.startswith(UNUSED_PREFIXES + unused_layers)]
        if result.missing_keys or strange:
            raise CheckpointError(
                f"image codebook: expected exactly the tensors of its config.json; missing `{result.missing_keys}`, "
                f"unknown `{strange}`"
            )
        return cls(network)

    def to(self, device: str) -> Self:
        self.network.to(device)
        self._directions = self._directions.to(device)
        return self

    def encode(self, media: Image.Image) -> list[int]:
        """Codes in row-major order, each in [0, size)."""
        return self.encode_pixels(square_pixels(media, self.network.config.image_size))

    @torch.inference_mode()
    def encode_pixels(self, pixels: Tensor) -> list[int]:
        """The same of pixels [3, size, size] in 0..1."""
        codes: list[int] = self.network.codes(pixels[None].to(self._directions.device), self._directions)[0].tolist()
        return codes


class ImageEncoder:
    """Continuous embeddings by a Qwen2.5-VL vision tower and a linear projector into the backbone's width."""

    def __init__(self, config: dict[str, Any]) -> None:
        from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
        from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

        self.vision_config = Qwen2_5_VLVisionConfig(**config["vision_config"], attn_implementation="sdpa")
        self.hidden_size: int = config["hidden_size"]
        self.pixel_limits = (int(config["min_pixels"]), int(config["max_pixels"]))
        video = VIDEO | config.get("video", {})
        self.pace, self.most_frames = float(video["frames_per_second"]), int(video["max_frames"])
        self._frame_pixels = int(video["max_frame_pixels"])
        self.tower = Qwen2_5_VisionTransformerPretrainedModel(self.vision_config).eval()
        self.projector = nn.Linear(self.vision_config.out_hidden_size, self.hidden_size).eval()

    @classmethod
    def from_pretrained(cls, folder: Folder) -> Self:
        return cls._from(*_read_folder(folder))

    @classmethod
    def from_backbone(cls, folder: Folder) -> Self:
        """The tower and the projector that a vision-language folder keeps beside its language model."""
        return cls._from(*read_beside_backbone(Path(folder)))

    @classmethod
    def _from(cls, config: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        encoder = cls(config)
        for prefix, module in (("vision_model.", encoder.tower), ("mm_projector.", encoder.projector)):
            module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        return encoder

    def to(self, device: str) -> Self:
        self.tower.to(device)
        self.projector.to(device)
        return self

    @torch.inference_mode()
    def encode(self, media: Image.Image) -> Tensor:
        """Embeddings [n, hidden] on the CPU, one for each merged block of patches, in row-major order."""
        projected: Tensor = self.projector(self.encode_features(media))
        return projected.cpu()

    @torch.inference_mode()
    def encode_features(self, media: Image.Image) -> Tensor:
        """The same up to just before the projector: [n, out_hidden]."""
        patches, grid = self.patches(media)
        return self._features(patches, grid)

    def _features(self, patches: Tensor, grid: Tensor) -> Tensor:
        device = self.projector.weight.device
        features: Tensor = self.tower(patches.to(device), grid_thw=grid.to(device)).pooler_output
        return features

    @torch.inference_mode()
    def encode_video(self, frames: np.ndarray) -> Tensor:
        """uint8 [n, height, width, 3], n even -> [n / 2 * blocks, hidden], pair by pair of frames."""
        config = self.vision_config
        unit = config.patch_size * config.spatial_merge_size
        least = min(LEAST_FRAME_PIXELS, self._frame_pixels)
        height, width = fitting_size(frames.shape[1], frames.shape[2], unit, least, self._frame_pixels)
        features = []
        for chunk in torch.from_numpy(frames).split(CHUNK_FRAMES):
            pixels = chunk.permute(0, 3, 1, 2).float() / 255  # [frames, 3, height, width]
            pixels = nn.functional.interpolate(pixels, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
            patches = cut_video_patches(
                normalised(pixels), config.patch_size, config.spatial_merge_size, config.temporal_patch_size
            )
            grid = [len(chunk) // config.temporal_patch_size, height // config.patch_size, width // config.patch_size]
            features.append(self.projector(self._features(patches, torch.tensor([grid]))).cpu())
        return torch.cat(features)

    def patches(self, media: Image.Image) -> tuple[Tensor, Tensor]:
        """Normalised patches [rows * columns, channels * time * patch * patch] and the grid [[1, rows, columns]]."""
        image = on_white(media)
        config = self.vision_config
        unit = config.patch_size * config.spatial_merge_size
        height, width = fitting_size(image.height, image.width, unit, *self.pixel_limits)
        pixels = _resized(image, width, height)  # [3, height, width]
        patches = cut_patches(
            normalised(pixels)[None], config.patch_size, config.spatial_merge_size, config.temporal_patch_size
        )
        return patches, torch.tensor([[1, height // config.patch_size, width // config.patch_size]])


def on_white(image: Image.Image) -> Image.Image:
    """RGB; transparent pictures are laid on white, as the 8B's encoder was trained."""
    if image.mode == "RGB":
        return image
    if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
        return image.convert("RGB")
    canvas = Image.new("RGBA", image.size, "white")
    canvas.alpha_composite(image.convert("RGBA"))
    return canvas.convert("RGB")


def square_pixels(image: Image.Image, size: int) -> Tensor:
    """[3, size, size] in 0..1; the aspect ratio is not kept, as the discrete tokenizer expects."""
    return _resized(on_white(image), size, size)


def fitting_size(height: int, width: int, unit: int, minimum: int, maximum: int) -> tuple[int, int]:
    """The nearest height and width in multiples of `unit` whose product lies within the pixel limits."""
    if max(height, width) > MAXIMUM_ASPECT_RATIO * min(height, width):
        raise MediaError(
            f"image too narrow: expected an aspect ratio of at most {MAXIMUM_ASPECT_RATIO}, got `{width}x{height}`"
        )
    sizes = [max(unit, round(side / unit) * unit) for side in (height, width)]
    if math.prod(sizes) > maximum:
        shrink = math.sqrt(height * width / maximum)
        sizes = [max(unit, math.floor(side / shrink / unit) * unit) for side in (height, width)]
    elif math.prod(sizes) < minimum:
        grow = math.sqrt(minimum / (height * width))
        sizes = [math.ceil(side * grow / unit) * unit for side in (height, width)]
    # A narrow picture's short side cannot shrink below one unit; the long side then pays, so that the limit holds.
    shorter, longer = sorted((0, 1), key=lambda axis: sizes[axis])
    if sizes[shorter] == unit:
        sizes[longer] = min(sizes[longer], maximum // unit // unit * unit)
    return sizes[0], sizes[1]


def cut_patches(pixels: Tensor, patch: int, merge: int, times: int) -> Tensor:
    """[batch, 3, height, width] -> [batch * patches, 3 * times * patch * patch], ordered by merged block.

    A still picture is the same frame `times` times over.
    """
    batch, channels, height, width = pixels.shape
    blocks = pixels.view(
        batch, channels, height // patch // merge, merge, patch, width // patch // merge, merge, patch
    ).permute(0, 2, 5, 3, 6, 1, 4, 7)  # [batch, block row, block column, row, column, channels, patch, patch]
    frames = blocks.reshape(-1, channels, 1, patch, patch).expand(-1, -1, times, -1, -1)
    return frames.reshape(-1, channels * times * patch * patch)


def cut_video_patches(pixels: Tensor, patch: int, merge: int, times: int) -> Tensor:
    """[frames, 3, height, width] -> [frames / times * patches, 3 * times * patch * patch], ordered by merged block."""
    frames, channels, height, width = pixels.shape
    blocks = pixels.view(
        frames // times, times, channels, height // patch // merge, merge, patch, width // patch // merge, merge, patch
    ).permute(0, 3, 6, 4, 7, 2, 1, 5, 8)  # [pair, block row, block column, row, column, channels, times, patch, patch]
    return blocks.reshape(-1, channels * times * patch * patch)


def normalised(pixels: Tensor) -> Tensor:
    """[..., 3, height, width] in 0..1 to the tower's range."""
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_DEVIATION))
    return (pixels - mean) / deviation


def _resized(image: Image.Image, width: int, height: int) -> Tensor:
    """[3, height, width] in 0..1."""
    resized = image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255


def _read_folder(folder: Folder) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A component folder: its configuration and its tensors as float32."""
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(Path(folder) / "model.safetensors")
    return config, {name: tensor.float() for name, tensor in tensors.items()}
