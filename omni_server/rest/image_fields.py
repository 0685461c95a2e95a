"""Step 1. What may be asked of pictures: the fields of `/v1/images`, each with effect, without, or refused by a message."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from omni_server.errors import RequestError
from omni_server.rest.fields import FormFields, JsonFields, Words, only
from omni_server.rest.kinds import Ignored, Refused

SEEDS = 2**32
SHORTEST_SIDE, LONGEST_SIDE, WIDEST = 16, 3840, 3
NO_CLEAR = "expected `opaque` or `auto`, because the decoder paints every pixel"
NO_MOTION = "this server draws single pictures"
NO_PLACES = "the model draws the whole picture anew; say in `prompt` what is to change"
NO_USERS = "nothing is counted by user here"
ONE_WAY = "the model sees the whole picture in one way"
MOST_IMAGES = 16


class Looks(BaseModel):
    """`seed` is not OpenAI's: picture k of a request has the seed `seed + k`. `partial_images` are for a stream; a picture of
    few steps has fewer."""

    model: str | None = None
    n: Annotated[int, Field(ge=1, le=10)] | None = None
    size: Annotated[str, Field(pattern=r"^(auto|[1-9]\d{0,4}x[1-9]\d{0,4})$")] | None = None
    seed: Annotated[int, Field(ge=0, lt=SEEDS)] | None = None
    stream: bool | None = None
    output_format: Literal["png", "webp", "jpeg"] | None = None
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    response_format: Literal["url", "b64_json"] | None = None
    background: Annotated[Literal["transparent", "opaque", "auto"], only("opaque", "auto", because=NO_CLEAR)] | None = None
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = None
    quality: Annotated[Any, Ignored("all pictures are drawn as well as the decoder can")] = None
    complexity: Annotated[Any, Ignored("nothing is planned before a picture is drawn")] = None
    moderation: Annotated[Any, Ignored("there is no moderation here")] = None
    style: Annotated[Any, Ignored("the words of `prompt` say the style")] = None
    user: Annotated[Any, Ignored(NO_USERS)] = None
    safety_identifier: Annotated[Any, Ignored(NO_USERS)] = None
    frame_count: Annotated[Any, Refused(NO_MOTION)] = None
    frame_duration_ms: Annotated[Any, Refused(NO_MOTION)] = None
    svg: Annotated[Any, Refused("this server draws pixels")] = None

    @property
    def format(self) -> str:
        return self.output_format or "png"

    @property
    def compression(self) -> int:
        return 100 if self.output_compression is None else self.output_compression


class ImageRequest(Looks, JsonFields):
    prompt: Annotated[Words, Field(max_length=32_000)]


class EditRequest(Looks, FormFields):
    prompt: Annotated[Words, Field(max_length=32_000)]
    input_fidelity: Annotated[Any, Ignored(ONE_WAY)] = None


class PictureUrl(JsonFields):
    image_url: str


class JsonEditRequest(Looks, JsonFields):
    """The same without a form: the pictures are data URLs, or http(s) URLs where the deployment allows these."""

    prompt: Annotated[Words, Field(max_length=32_000)]
    images: Annotated[list[PictureUrl], Field(min_length=1, max_length=MOST_IMAGES)]
    input_fidelity: Annotated[Any, Ignored(ONE_WAY)] = None
    mask: Annotated[Any, Refused(NO_PLACES)] = None
    markup: Annotated[Any, Refused(NO_PLACES)] = None


class VariationRequest(Looks, FormFields):
    """OpenAI has `model`, `n`, `size`, `response_format` and `user` here; the others are as for other pictures."""


def check_looks(asked: Looks) -> None:
    """What no single field can tell. Raises RequestError."""
    if asked.compression != 100 and asked.format == "png":
        raise RequestError(
            f"`output_compression` is `{asked.compression}`; expected `output_format` webp or jpeg with it, "
            "because a png loses nothing",
            param="output_compression",
        )
    if asked.stream and asked.response_format == "url":
        raise RequestError("`response_format` is `url`; expected `b64_json` with `stream`", param="response_format")
    size = size_of(asked)
    if size is not None and not _fits(*size):
        raise RequestError(
            f"`size` is `{asked.size}`; expected `auto`, or sides of {SHORTEST_SIDE} to {LONGEST_SIDE} pixels of which "
            f"one is at most {WIDEST} times the other",
            param="size",
        )


def size_of(asked: Looks) -> tuple[int, int] | None:
    """Width and height; None where the decoder's own will do."""
    if asked.size in (None, "auto"):
        return None
    width, _, height = str(asked.size).partition("x")
    return int(width), int(height)


def _fits(width: int, height: int) -> bool:
    short, long = sorted((width, height))
    return short >= SHORTEST_SIDE and long <= min(LONGEST_SIDE, WIDEST * short)
