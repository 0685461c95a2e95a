"""omni_server/senses.py: what is remembered of the media that were met, and how much of it."""

from __future__ import annotations

import PIL.Image
import pytest
import torch

from omni_server import senses
from omni_server.senses import Sense
from omni_server.types import Modality, Picture

ROW = 1 << 10  # bytes


class Eye:
    """Sees `rows` rows in every picture, as a part of a larger tensor where `spare` is given."""

    hidden_size = ROW // 4

    def __init__(self, rows: int, spare: int = 0) -> None:
        self.rows, self.spare = rows, spare

    def encode(self, media: PIL.Image.Image) -> torch.Tensor:
        return torch.zeros(self.rows + self.spare, ROW // 4)[: self.rows]


def pictures(count: int) -> list[Picture]:
    return [Picture(PIL.Image.new("RGB", (8, 8)), f"digest-{number}") for number in range(count)]


async def test_the_picture_met_last_is_known_and_the_oldest_makes_room() -> None:
    """Would catch a memory that forgets what is used, or one that holds more than it may."""
    sense = Sense(Modality.IMAGE, Eye(1), None, capacity=2)
    first, second, third = pictures(3)
    for picture, encoded in ((first, 1), (second, 2), (first, 2), (third, 3), (first, 3), (second, 4)):
        await sense.encode(picture)
        assert sense.encoded == encoded
    sense.breaker.close()


@pytest.mark.parametrize(("rows", "spare"), [(4, 0), (1, 3)])
async def test_large_media_make_room_by_their_bytes(rows: int, spare: int) -> None:
    """Would catch 256 pictures of a large model, 64 MB each, that fill the machine; or a view that keeps a whole tensor."""
    rows, spare = (rows * senses.MOST_BYTES // ROW // 10, spare * senses.MOST_BYTES // ROW // 10)
    sense = Sense(Modality.IMAGE, Eye(rows, spare), None)
    for picture in pictures(3):
        await sense.encode(picture)
    assert len(sense._memory) == 2
    await sense.encode(pictures(3)[-1])
    assert sense.encoded == 3
    sense.breaker.close()


async def test_what_is_larger_than_the_memory_is_encoded_all_the_same() -> None:
    """Would catch a medium that cannot be answered because it cannot be remembered, or the others forgotten for good."""
    sense = Sense(Modality.IMAGE, Eye(senses.MOST_BYTES // ROW + 1), None)
    (picture,) = pictures(1)
    assert (await sense.encode(picture)).digest == picture.digest
    assert (len(sense._memory), sense._bytes) == (0, 0)
    sense.breaker.close()
