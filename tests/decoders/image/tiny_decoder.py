"""Real components of the picture decoder at a tiny size: 3 x 3 codes of 16, 8 x 8 pixels to a latent, 32 x 32 pictures."""

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler

from decoders.image.image import ImageDecoder, Sizes
from decoders.image.token_diffusion import TokenDiffusionPipeline
from decoders.image.transformer import VisionTokenEmbedder, VisionTransformer

CODES = [3, 1, 4, 1, 5, 9, 2, 6, 5]


def tiny_decoder(slots: int = 8) -> ImageDecoder:
    """Random weights, the same each time; with a weak second transformer of another depth."""
    torch.manual_seed(0)
    levels = 4
    pipeline = TokenDiffusionPipeline(
        VisionTransformer(4, None, 8, 8, 24, 2.0, 2, 0, 2, [4, 4, 4]).eval(),
        AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * levels,
            up_block_types=["UpDecoderBlock2D"] * levels,
            block_out_channels=[4] * levels,
            latent_channels=4,
            norm_num_groups=2,
        ).eval(),
        VisionTokenEmbedder(16, 8, 9),
        FlowMatchEulerDiscreteScheduler(),
        VisionTransformer(4, None, 8, 8, 24, 2.0, 2, 0, 1, [4, 4, 4]).eval(),
    )
    pipeline.token_embedder.vocab_embeddings.normal_()
    return ImageDecoder(pipeline, Sizes(pixels=32 * 32, multiple=8, steps=2, guidance=0.0), slots)
