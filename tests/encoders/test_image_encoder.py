"""The continuous picture encoder: sizes, patch order, and the folder it loads."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from omni_server.encoders.vision import ImageEncoder, cut_video_patches, fitting_size, normalised
from omni_server.errors import MediaError

CONFIG: dict[str, Any] = {
    "hidden_size": 24,
    "min_pixels": 32 * 32,
    "max_pixels": 64 * 96,
    "vision_config": {
        "depth": 2,
        "hidden_size": 32,
        "num_heads": 4,
        "intermediate_size": 48,
        "patch_size": 8,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "window_size": 32,
        "fullatt_block_indexes": [1],
        "out_hidden_size": 40,
        "in_channels": 3,
    },
}


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    torch.manual_seed(0)
    return ImageEncoder(CONFIG)


def test_one_embedding_for_each_merged_block(encoder: ImageEncoder) -> None:
    """Placeholders in the prompt that do not match what the backbone is given."""
    embeddings = encoder.encode(Image.effect_noise((96, 64), 60).convert("RGB"))
    assert embeddings.shape == (6 * 4, encoder.hidden_size)
    assert embeddings.dtype == torch.float32


def test_patches_are_those_of_the_published_processor(encoder: ImageEncoder) -> None:
    """Patches in another order or normalised otherwise: features that look right and mean nothing."""
    processing = pytest.importorskip("transformers.models.qwen2_vl.image_processing_qwen2_vl")
    limits = {"min_pixels": encoder.pixel_limits[0], "max_pixels": encoder.pixel_limits[1]}
    processor = processing.Qwen2VLImageProcessor(patch_size=8, merge_size=2, temporal_patch_size=2, **limits)
    picture = Image.effect_noise((96, 64), 60).convert("RGB")  # fits as it is: the two ways to resize differ a little
    wanted = processor(images=picture, return_tensors="pt")
    patches, grid = encoder.patches(picture)
    torch.testing.assert_close(patches, wanted["pixel_values"], atol=1e-5, rtol=0)
    assert grid.tolist() == wanted["image_grid_thw"].tolist()


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (640, 480), (5000, 30), (96, 64)])
def test_every_size_fits(size: tuple[int, int]) -> None:
    """Sizes that do not divide into blocks, or a picture that costs more positions than the checkpoint allows."""
    height, width = fitting_size(*size, 16, 1024, 6144)
    assert height % 16 == width % 16 == 0
    assert height >= 16 and width >= 16
    assert height * width <= 6144 * 2  # a rounded-up small or narrow picture may pass the limit, never twice


def test_thread_like_picture_is_refused() -> None:
    """A 1 x 10000 picture that would become a strip of garbage or of thousands of positions."""
    with pytest.raises(MediaError, match="`10000x1`"):
        fitting_size(1, 10_000, 16, 1024, 6144)


def test_folder_round_trip(encoder: ImageEncoder, tmp_path: Path) -> None:
    """Tensor names other than the 8B's, or half floats that are not widened."""
    parts = {"vision_model.": encoder.tower, "mm_projector.": encoder.projector}
    tensors = {prefix + name: value.half() for prefix, part in parts.items() for name, value in part.state_dict().items()}
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    save_file(tensors, tmp_path / "model.safetensors")
    picture = Image.effect_noise((64, 64), 60).convert("RGB")
    loaded = ImageEncoder.from_pretrained(tmp_path).encode(picture)
    torch.testing.assert_close(loaded, encoder.encode(picture), atol=2e-2, rtol=0)


def test_video_patches_are_those_of_transformers() -> None:
    """Frames that are paired, or patches that are ordered, otherwise than the tower was trained."""
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    frames = torch.randint(0, 255, (6, 3, 56, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    processor = Qwen2VLVideoProcessor(do_resize=False, do_sample_frames=False)
    made = processor(videos=[frames], return_tensors="pt")
    assert made["video_grid_thw"].tolist() == [[3, 4, 6]]
    ours = cut_video_patches(normalised(frames.float() / 255), 14, 2, 2)
    torch.testing.assert_close(ours, made["pixel_values_videos"], atol=1e-5, rtol=0)
