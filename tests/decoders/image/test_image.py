"""The image decoder's outside: sizes, refusals, seeds, progress and cuts."""

from typing import Any

import pytest
import torch
from PIL import Image

from decoders.image.image import CodesError, DecodeOptions, ImageDecoder, ImageSpan, Progress, Sizes
from tests.decoders.image.tiny_decoder import CODES, tiny_decoder
from tests.incremental import assert_split_invariant

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
    return tiny_decoder()


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


def test_a_size_takes_the_ratios_place(decoder: ImageDecoder) -> None:
    """Width and height swapped, or a size that is rounded to another."""
    assert draw(decoder, CODES, seed=1, size=(48, 16)).size == (48, 16)
    assert draw(decoder, CODES, seed=1, size=(40, 16)).tobytes() == draw(decoder, CODES, seed=1, ratio="2:1").tobytes()


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


def test_progress_and_previews(decoder: ImageDecoder) -> None:
    """A progress bar that ends early, or never; previews at wrong steps or of another size than the picture."""
    span = _filled(decoder.open(DecodeOptions(seed=1, steps=6, previews=2, ratio="2:1")))
    outputs: list[Any] = []
    while (new := span.advance()) is not None:
        outputs += new
    picture = outputs.pop()
    assert isinstance(picture, Image.Image) and all(isinstance(output, Progress) for output in outputs)
    assert [(output.step, output.steps) for output in outputs] == [(step, 6) for step in range(1, 7)]
    assert [output.step for output in outputs if output.preview is not None] == [2, 4]
    assert {output.preview.size for output in outputs if output.preview is not None} == {picture.size} == {(40, 16)}
    assert draw(decoder, CODES, seed=1, steps=6, ratio="2:1").tobytes() == picture.tobytes()


def test_previews_come_nearer_to_the_picture() -> None:
    """A preview of the noise instead of what is under it. A network that knows the way shows the picture at once."""
    decoder = tiny_decoder()
    with torch.no_grad():  # velocity zero: the flow stands still, so every guess is the picture
        decoder.pipeline.transformer.final_layer.linear.weight.zero_()
        decoder.pipeline.transformer.final_layer.linear.bias.zero_()
    span = _filled(decoder.open(DecodeOptions(seed=1, steps=4, previews=3)))
    outputs: list[Any] = [span.advance() for _ in range(4)]
    picture = outputs[-1][-1].tobytes()
    assert [progress.preview.tobytes() == picture for (progress, *_) in outputs[:3]] == [True] * 3


@pytest.mark.parametrize(("steps", "previews", "expected"), [(1, 3, 0), (2, 1, 1), (2, 3, 1), (4, 3, 3), (200, 3, 3)])
def test_no_more_previews_than_steps_between(steps: int, previews: int, expected: int, decoder: ImageDecoder) -> None:
    """A last preview that is the picture itself, paid twice; a preview before the first step."""
    drawing = _filled(decoder.open(DecodeOptions(steps=steps, previews=previews)))._drawing()
    assert len([step for step in drawing.previews if 0 < step < steps]) == expected


@pytest.mark.parametrize(
    ("codes", "message"),
    [([], "got `0`"), (CODES[:8], "got `8`"), (CODES * 4, "got `36`"), ([*CODES[:8], 16], "`16`"), ([-1, *CODES[:8]], "`-1`")],
)
def test_wrong_codes_are_refused(decoder: ImageDecoder, codes: list[int], message: str) -> None:
    """Too few codes drawn as another grid, a negative code read from the end of the codebook."""
    with pytest.raises(CodesError, match=message):
        draw(decoder, codes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps: expected 1 to 200, got `0`"),
        ({"steps": 201}, "steps: expected 1 to 200, got `201`"),
        ({"guidance": -0.5}, "guidance: expected 0 to 2, got `-0.5`"),
        ({"guidance": 3.0}, "guidance: expected 0 to 2, got `3.0`"),
        ({"previews": 4}, "previews: expected 0 to 3, got `4`"),
        ({"size": (30, 32)}, "multiples of 8, got `30x32`"),
        ({"size": (0, 32)}, "sides of 8 to 2048 pixels, .* got `0x32`"),
        ({"size": (8, 4096)}, "sides of 8 to 2048 pixels, .* got `8x4096`"),
        ({"size": (256, 256)}, "at most 4096 pixels in all, got `256x256`"),
    ],
)
def test_strange_options_are_refused_at_once(decoder: ImageDecoder, options: dict[str, Any], message: str) -> None:
    """A request that fails after the model has spoken, or that holds the lane for minutes; a limit that is not told."""
    with pytest.raises(CodesError, match=message):
        decoder.open(DecodeOptions(**options))
