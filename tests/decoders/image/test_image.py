"""The image decoder's outside: sizes, refusals, seeds, progress and cuts."""

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from PIL import Image

from decoders.image.image import CodesError, DecodeOptions, ImageDecoder, ImageSpan, Sizes
from decoders.image.token_diffusion import TokenDiffusionPipeline
from decoders.image.transformer import VisionTokenEmbedder, VisionTransformer
from tests.incremental import assert_split_invariant

CODES = [3, 1, 4, 1, 5, 9, 2, 6, 5]
LARGE = Sizes(pixels=768 * 768, multiple=16, steps=50, guidance=0.75)
RESOLUTIONS = {
    "1:1": (768, 768),
    "1:2": (528, 1072),
    "3:4": (656, 880),
    "3:5": (592, 976),
    "4:5": (672, 848),
    "6:9": (624, 928),
    "9:16": (576, 1024),
}


@pytest.fixture(scope="module")
def decoder() -> ImageDecoder:
    """Real components at a tiny size: 3 x 3 codes of 16, 8 x 8 pixels to a latent, 32 x 32 pictures."""
    torch.manual_seed(0)
    levels = 4
    pipeline = TokenDiffusionPipeline(
        VisionTransformer(4, None, 8, 8, 24, 2.0, 2, 0, 1, [4, 4, 4]),
        AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * levels,
            up_block_types=["UpDecoderBlock2D"] * levels,
            block_out_channels=[4] * levels,
            latent_channels=4,
            norm_num_groups=2,
        ),
        VisionTokenEmbedder(16, 8, 9),
        FlowMatchEulerDiscreteScheduler(),
    )
    pipeline.token_embedder.vocab_embeddings.normal_()
    return ImageDecoder(pipeline, Sizes(pixels=32 * 32, multiple=8, steps=2, guidance=0.0))


def draw(decoder: ImageDecoder, codes: list[int], **options: Any) -> Image.Image:
    span = decoder.open(DecodeOptions(**options))
    assert span.feed(codes) == []
    [picture] = span.finish()
    return picture


@pytest.mark.parametrize("ratio", RESOLUTIONS)
def test_resolution_of_each_ratio(ratio: str) -> None:
    """A picture of other size than the 8B draws: floats rounded down, width and height swapped."""
    assert LARGE.resolution(ratio) == RESOLUTIONS[ratio]
    assert LARGE.resolution(":".join(reversed(ratio.split(":")))) == RESOLUTIONS[ratio][::-1]


@pytest.mark.parametrize("ratio", ["", "1", "0:1", "1:0", "1:1:1", "a:b", "-1:2", "1:9999"])
def test_strange_ratio_is_refused(decoder: ImageDecoder, ratio: str) -> None:
    """An assertion or a division by zero in the middle of a reply."""
    with pytest.raises(CodesError, match=f"`{ratio}`"):
        decoder.open(DecodeOptions(ratio=ratio))


def test_picture_has_the_asked_size(decoder: ImageDecoder) -> None:
    """A picture that is square whatever was asked."""
    assert draw(decoder, CODES, seed=1).size == (32, 32)
    wide = draw(decoder, CODES, seed=1, ratio="2:1")
    assert wide.size == (40, 16)
    assert wide.mode == "RGB"


def test_seed_decides(decoder: ImageDecoder) -> None:
    """Noise from torch's global state: the same request drawn differently, or all requests drawn alike."""
    torch.manual_seed(5)
    first = draw(decoder, CODES, seed=1).tobytes()
    torch.manual_seed(6)
    assert draw(decoder, CODES, seed=1).tobytes() == first
    assert draw(decoder, CODES, seed=2).tobytes() != first
    torch.manual_seed(6)
    free = draw(decoder, CODES).tobytes()
    torch.manual_seed(6)
    assert draw(decoder, CODES).tobytes() != free


def test_options_of_another_kind_will_do(decoder: ImageDecoder) -> None:
    """A server whose own options say seed and steps, and which must not be known here."""

    class Options:
        voice = "heart"
        seed = 1
        steps = 2

    [picture] = _filled(decoder.open(Options())).finish()
    assert picture.tobytes() == draw(decoder, CODES, seed=1, steps=2).tobytes()


def _filled(span: ImageSpan) -> ImageSpan:
    span.feed(CODES)
    return span


def test_cuts_do_not_matter(decoder: ImageDecoder) -> None:
    """Codes lost or drawn early where the backbone's chunks end."""
    assert_split_invariant(
        lambda: decoder.open(DecodeOptions(seed=3)), CODES, lambda out: [picture.tobytes() for picture in out], cuts=3
    )


def test_progress_is_heard_after_each_step(decoder: ImageDecoder) -> None:
    """A progress bar that ends early, or never."""
    heard: list[tuple[int, int]] = []
    draw(decoder, CODES, seed=1, steps=3, progress=lambda step, steps: heard.append((step, steps)))
    assert heard == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("codes", "message"),
    [([], "got `0`"), (CODES[:8], "got `8`"), (CODES * 4, "got `36`"), ([*CODES[:8], 16], "`16`"), ([-1, *CODES[:8]], "`-1`")],
)
def test_wrong_codes_are_refused(decoder: ImageDecoder, codes: list[int], message: str) -> None:
    """Too few codes drawn as another grid, a negative code read from the end of the codebook."""
    with pytest.raises(CodesError, match=message):
        draw(decoder, codes)


@pytest.mark.parametrize("options", [{"steps": 0}, {"steps": 201}, {"guidance": -0.5}, {"guidance": 3.0}])
def test_strange_options_are_refused_at_once(decoder: ImageDecoder, options: dict[str, Any]) -> None:
    """A request that fails after the model has spoken, or that holds the lane for minutes."""
    with pytest.raises(CodesError):
        decoder.open(DecodeOptions(**options))
