"""TA-Tok against numbers of the published network, and what the codebook promises about pictures."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from omni_server.encoders.vision import ImageCodebook
from omni_server.errors import CheckpointError

GOLDEN = Path(__file__).parents[1] / "golden" / "image_tokenizer.safetensors"


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with safe_open(GOLDEN, "pt") as archive:
        return {name: archive.get_tensor(name) for name in set(archive.keys())}


def write_folder(folder: Path, tensors: dict[str, Tensor]) -> Path:
    """A component folder with the published network's sizes."""
    with safe_open(GOLDEN, "pt") as archive:
        published = json.loads(archive.metadata()["config"])
    quantiser = published["args"]["bottleneck"]["args"]
    config = {name: value for name, value in published["vision_config"].items() if name != "num_channels"} | {
        "select_layer": published["args"]["select_layer_id"],
        "bottleneck_dim": quantiser["bottleneck_dim"],
        "codebook_size": quantiser["regularizer"]["args"]["codebook_size"],
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def weights(golden: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("weights."): value for name, value in golden.items() if name.startswith("weights.")}


@pytest.fixture(scope="module")
def codebook(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> ImageCodebook:
    return ImageCodebook.from_pretrained(write_folder(tmp_path_factory.mktemp("image_codebook"), weights))


def test_golden_features_and_codes(golden: dict[str, Tensor], codebook: ImageCodebook) -> None:
    """A network that would not compute the published codes: layer choice, activation, scale, projection, argmax."""
    network, pixels = codebook.network, golden["io.image"]
    with torch.inference_mode():
        torch.testing.assert_close(network.features(pixels), golden["io.vq_feats"], atol=1e-4, rtol=0)
        torch.testing.assert_close(network.project(pixels), golden["io.projected_z"], atol=1e-4, rtol=0)
    codes = [codebook.encode_pixels(picture) for picture in pixels]
    assert codes == golden["io.indices"].tolist()


def test_codes_fit_grid_and_are_repeatable(codebook: ImageCodebook) -> None:
    """Sampled codes, a grid that depends on the picture's shape, codes out of range."""
    picture = Image.effect_noise((90, 40), 80).convert("RGB")
    codes = codebook.encode(picture)
    assert len(codes) == codebook.grid[0] * codebook.grid[1] == 16
    assert all(0 <= code < codebook.size for code in codes)
    assert codebook.encode(picture) == codes


def test_transparent_pictures_are_seen_on_white(codebook: ImageCodebook) -> None:
    """Transparency read as black, which the network never saw."""
    ink = Image.new("RGB", (56, 56), "navy")
    stencil = Image.linear_gradient("L").resize((56, 56))
    transparent = ink.copy()
    transparent.putalpha(stencil)
    on_white = Image.composite(ink, Image.new("RGB", (56, 56), "white"), stencil)
    assert codebook.encode(transparent) == codebook.encode(on_white)


def test_misnamed_tensor_is_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    """A foreign checkpoint half loaded in silence: random layers in the middle of a good network."""
    wrong = {name.replace("layers.1.", "blocks.1."): value for name, value in weights.items()}
    with pytest.raises(CheckpointError, match=r"layers\.1\."):
        ImageCodebook.from_pretrained(write_folder(tmp_path, wrong))
