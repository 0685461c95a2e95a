"""Data step: seeded batches of augmented pictures for every picture recipe. Knows nothing about networks."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from omni_server.encoders.vision import square_pixels
from recipes.domain import load_concepts, load_wide_concepts
from recipes.pictures import load_pictures, on_white

# Little more than the pictures are drawn at, so that drawing needs no anti-aliasing of its own and stays cheap.
STORED_SIZE = 112


@dataclass(frozen=True, slots=True)
class Strength:
    """How far augmentation goes; shares are probabilities, the others are ranges around the clean picture."""

    zoom: tuple[float, float] = (0.65, 1.1)  # size of the object relative to the clean picture
    stretch: float = 0.08
    turn: float = 0.12  # radians
    colour: float = 0.0
    background: float = 0.4  # share of pictures not on white
    jpeg: float = 0.3  # share of pictures that went through JPEG
    soften: float = 0.0  # share of pictures that were once smaller


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures as seen, the same without background and compression, and what they show."""

    seen: Tensor  # [batch, 3, height, width] in 0..1
    clean: Tensor  # the same shape
    concept: Tensor  # [batch]; row of the wide list that the picture set kept
    style: Tensor  # [batch]


class PictureSource:
    """All pictures, premultiplied, with the rows of the domain among them."""

    def __init__(self, cache: Path, seed: int) -> None:
        self.straight = load_pictures(cache, "all")  # uint8 [concepts, styles, 160, 160, 4]
        self.concepts, self.styles = self.straight.shape[:2]
        self.stored = _store(self.straight)
        wide = load_wide_concepts()
        kept = np.load(cache / "pictures" / "all.npz")["indices"]
        row_of_emoji = {wide[index]["emoji"]: row for row, index in enumerate(kept)}
        self.domain = torch.tensor([row_of_emoji[concept.emoji] for concept in load_concepts()])
        self.random = torch.Generator().manual_seed(seed)
        self.present = torch.ones(self.concepts, self.styles)  # 1 where there is a picture

    def look_at_more(self, cache: Path) -> None:
        """Adds the styles that are only looked at, behind the drawn ones; `choose` takes only pictures that there are."""
        looked_at = np.load(cache / "pictures" / "looked_at.npz")
        more = np.zeros((self.concepts, looked_at["present"].shape[1], *self.straight.shape[2:]), np.uint8)
        more[self.domain.numpy()] = looked_at["images"]
        self.present = torch.ones(self.concepts, self.styles + more.shape[1])
        self.present[:, self.styles :] = 0
        self.present[self.domain, self.styles :] = torch.from_numpy(looked_at["present"]).float()
        self.stored = torch.cat([self.stored, _store(more)], dim=1)
        self.styles = self.stored.shape[1]

    def uniform(self, size: int, low: float, high: float) -> Tensor:
        return torch.rand(size, generator=self.random) * (high - low) + low

    def choose(self, size: int, domain_share: float) -> tuple[Tensor, Tensor]:
        """Concept rows and styles, [size] each."""
        inside = self.domain[torch.randint(len(self.domain), (size,), generator=self.random)]
        anywhere = torch.randint(self.concepts, (size,), generator=self.random)
        concept = torch.where(self.uniform(size, 0, 1) < domain_share, inside, anywhere)
        return concept, torch.multinomial(self.present[concept], 1, generator=self.random).flatten()

    def batch(self, size: int, shape: tuple[int, int], strength: Strength, domain_share: float) -> Batch:
        """Augmented pictures of `shape` = height, width."""
        concept, style = self.choose(size, domain_share)
        warped = self._warp(self._premultiplied(concept, style), shape, strength)  # [size, 4, height, width]
        colour, alpha = warped[:, :3], warped[:, 3:]
        if strength.colour:
            colour = self._recolour(colour, alpha, strength.colour)
        clean = (colour + 1 - alpha).clamp(0, 1)
        seen = (colour + self._backgrounds(size, shape, strength.background) * (1 - alpha)).clamp(0, 1)
        seen = self._soften(seen, strength.soften)
        seen = self._compress(seen, strength.jpeg)
        return Batch(seen, clean, concept, style)

    def clean_pixels(self, size: int) -> Tensor:
        """The canonical domain pictures on white as the server sees them, [concepts, styles, 3, size, size]."""
        pictures = on_white(self.straight[self.domain.numpy()])
        rows = [[square_pixels(Image.fromarray(picture), size) for picture in row] for row in pictures]
        return torch.stack([torch.stack(row) for row in rows])

    def _premultiplied(self, concept: Tensor, style: Tensor) -> Tensor:
        return self.stored[concept, style].float() / 255  # [size, 4, 112, 112]

    def _warp(self, pixels: Tensor, shape: tuple[int, int], strength: Strength) -> Tensor:
        size = len(pixels)
        zoom, turn = self.uniform(size, *strength.zoom), self.uniform(size, -strength.turn, strength.turn)
        across = self.uniform(size, -strength.stretch, strength.stretch).exp() / zoom
        along = self.uniform(size, -strength.stretch, strength.stretch).exp() / zoom
        room = (1 / zoom - 0.9).clamp(min=0.05)  # a small object may lie anywhere, a large one stays in view
        shift = [self.uniform(size, -1, 1) * room for _ in range(2)]
        # Objects keep their proportions on canvases that are not square.
        wide, tall = shape[1] / min(shape), shape[0] / min(shape)
        rows = [
            torch.stack([turn.cos() * across * wide, -turn.sin() * along * tall, shift[0]], dim=1),
            torch.stack([turn.sin() * across * wide, turn.cos() * along * tall, shift[1]], dim=1),
        ]
        grid = functional.affine_grid(torch.stack(rows, dim=1), [size, 4, *shape], align_corners=False)
        return functional.grid_sample(pixels, grid, align_corners=False)

    def _recolour(self, colour: Tensor, alpha: Tensor, amount: float) -> Tensor:
        gain = self.uniform(3 * len(colour), -amount, amount).exp().view(-1, 3, 1, 1)
        lift = self.uniform(len(colour), -amount, amount).view(-1, 1, 1, 1) / 3
        grey = colour.mean(dim=1, keepdim=True)
        mix = self.uniform(len(colour), 0, 1).view(-1, 1, 1, 1) * amount
        return ((colour * gain + lift * alpha) * (1 - mix) + grey * mix).clamp(min=0).minimum(alpha)

    def _backgrounds(self, size: int, shape: tuple[int, int], share: float) -> Tensor:
        """White, a plain colour, or a soft random texture: [size, 3, height, width]."""
        plain = torch.rand(size, 3, 1, 1, generator=self.random)
        noise = torch.rand(size, 3, 4, 4, generator=self.random)
        texture = functional.interpolate(noise, shape, mode="bilinear", align_corners=False)
        kind = self.uniform(size, 0, 1).view(-1, 1, 1, 1)
        coloured = torch.where(kind < share / 3, texture, plain.expand_as(texture))
        return torch.where(kind < share, coloured, torch.ones(()))

    def _soften(self, pixels: Tensor, share: float) -> Tensor:
        chosen = (self.uniform(len(pixels), 0, 1) < share).nonzero().flatten()
        if len(chosen):
            scale = float(self.uniform(1, 0.4, 0.9))
            small = functional.interpolate(pixels[chosen], scale_factor=scale, mode="bilinear", antialias=True)
            back = functional.interpolate(small, pixels.shape[-2:], mode="bicubic", antialias=True)
            pixels[chosen] = back.clamp(0, 1)
        return pixels

    def _compress(self, pixels: Tensor, share: float) -> Tensor:
        for index in (self.uniform(len(pixels), 0, 1) < share).nonzero().flatten().tolist():
            quality = int(self.uniform(1, 30, 95))
            picture = Image.fromarray((pixels[index].permute(1, 2, 0) * 255).round().byte().numpy())
            stream = io.BytesIO()
            picture.save(stream, "JPEG", quality=quality)
            pixels[index] = torch.from_numpy(np.array(Image.open(stream))).permute(2, 0, 1).float() / 255
        return pixels


def _store(straight: np.ndarray) -> Tensor:
    """uint8 [concepts, styles, 160, 160, 4] straight alpha -> uint8 [concepts, styles, 4, 112, 112] premultiplied."""
    rows = []
    for row in straight:
        pixels = torch.from_numpy(row).permute(0, 3, 1, 2).float()
        pixels = torch.cat([pixels[:, :3] * pixels[:, 3:] / 255, pixels[:, 3:]], dim=1)
        small = functional.interpolate(pixels, (STORED_SIZE, STORED_SIZE), mode="bilinear", antialias=True)
        rows.append(small.round().byte())
    return torch.stack(rows)
