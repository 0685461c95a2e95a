"""Training's quick patches are the tower's own."""

import torch

from omni_server.encoders.vision import ImageEncoder
from recipes.train_image_encoder import CONFIG, embed_patches


@torch.inference_mode()
def test_patches_as_a_product_are_the_convolution() -> None:
    """Catches weights flattened in another order than patches are cut."""
    torch.manual_seed(0)
    tower = ImageEncoder(CONFIG).tower
    patches = torch.randn(6, 3 * 2 * 16 * 16)
    assert (embed_patches(tower, patches) - tower.patch_embed(patches)).abs().max() < 1e-4
