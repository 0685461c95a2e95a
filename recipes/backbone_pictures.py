"""Training step: pictures as users send them, as codes and features. Knows nothing about turns or tokens.

`python -m recipes.backbone_pictures` runs the very classes that serve over clean and augmented pictures; features are
added once the continuous encoder exists.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from omni_server.encoders.vision import ImageCodebook, ImageEncoder
from recipes.domain import STYLES, cache_folder
from recipes.picture_batches import PictureSource
from recipes.train_image_encoder import FULL, features, strength_at

VARIANTS = {"train": 24, "eval": 3}
SEEDS = {"train": 31, "eval": 10_031}
GENTLE_SHARE = 0.15  # the strength that `strength_at` gives early: most users' pictures are not that bad


class EveryPicture(PictureSource):
    """Goes through the domain instead of drawing lots; a picture that there is not is empty."""

    def choose(self, size: int, domain_share: float) -> tuple[Tensor, Tensor]:
        every = torch.arange(len(self.domain) * self.styles)
        assert size == len(every)
        return self.domain[every // self.styles], every % self.styles


@torch.inference_mode()
def write_pictures(cache: Path, split: str) -> None:
    """seen_pictures_<split>.npz: codes [variants, concepts, styles, cells], features [..., blocks, width], of drawn styles
    and of those that are only looked at; present [concepts, styles] tells which there are."""
    source = EveryPicture(cache, SEEDS[split])
    source.look_at_more(cache)
    codebook = ImageCodebook.from_pretrained(cache / "image_codebook")
    encoder = ImageEncoder.from_pretrained(cache / "image_encoder") if (cache / "image_encoder").exists() else None
    shape = (len(source.domain), source.styles)
    size = codebook.network.config.image_size
    seen = []
    for variant in range(VARIANTS[split]):
        strength = strength_at(GENTLE_SHARE) if variant % 2 else FULL
        seen.append(source.batch(shape[0] * shape[1], (size, size), strength, 1.0).seen)
    if split == "train":  # one variant of the drawn styles is clean
        seen[1].unflatten(0, shape)[:, : len(STYLES)] = source.clean_pixels(size)
    codes = [np.array([codebook.encode_pixels(picture) for picture in pictures], np.int16) for pictures in seen]
    present = source.present[source.domain].bool().numpy()
    arrays = {"codes": np.stack(codes).reshape(len(seen), *shape, -1), "present": present}
    if encoder is not None:
        rows = [torch.cat([features(encoder, part) for part in pictures.split(64)]).half().numpy() for pictures in seen]
        arrays["features"] = np.stack(rows).reshape(len(seen), *shape, *rows[0].shape[1:])
    path = cache / "backbone" / f"seen_pictures_{split}.npz"
    unfinished = path.with_suffix(".part.npz")
    np.savez(unfinished, **arrays)  # type: ignore[arg-type]
    unfinished.rename(path)
    print(f"{path.name}: { ({name: array.shape for name, array in arrays.items()}) }", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in VARIANTS:
        write_pictures(cache_folder(), each)
