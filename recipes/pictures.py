"""Data step: emoji picture sets -> RGBA arrays in the cache. Knows nothing about training."""

import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recipes.domain import STYLES, cache_folder, load_concepts, load_wide_concepts

PACKS = {
    "noto": ("@iconify-json/noto", "1.2.9"),
    "flat": ("@iconify-json/fluent-emoji-flat", "1.2.6"),
    "twemoji": ("@iconify-json/twemoji", "1.2.5"),
    "openmoji": ("@iconify-json/openmoji", "1.2.29"),
}
# Only looked at, never drawn: variety lets the encoder name a style that it never saw. Not each has every concept.
LOOKED_AT_PACKS = {
    "noto-v1": ("@iconify-json/noto-v1", "1.2.5"),
    "emojione": ("@iconify-json/emojione", "1.2.3"),
    "emojione-monotone": ("@iconify-json/emojione-monotone", "1.2.1"),
    "fxemoji": ("@iconify-json/fxemoji", "1.2.2"),
    "fluent": ("@iconify-json/fluent-emoji", "1.2.7"),
    "high-contrast": ("@iconify-json/fluent-emoji-high-contrast", "1.2.6"),
    "streamline": ("@iconify-json/streamline-emojis", "1.2.4"),
}
HELD_OUT_STYLE = "openmoji"  # CC-BY-SA: tests only, never trained on, never shipped
SIZE = 160


class PicturePack:
    """One downloaded icon set, addressed by emoji."""

    def __init__(self, archive: Path) -> None:
        with tarfile.open(archive) as tar:
            self.icons = _read_json(tar, "package/icons.json")
            self.names: dict[str, str] = _read_json(tar, "package/chars.json")

    def __contains__(self, emoji: str) -> bool:
        return codepoints(emoji) in self.names

    def svg(self, emoji: str) -> str:
        name = self.names[codepoints(emoji)]
        while name in self.icons.get("aliases", {}):
            name = self.icons["aliases"][name]["parent"]
        icon = self.icons["icons"][name]
        left, top = icon.get("left", 0), icon.get("top", 0)
        width = icon.get("width", self.icons.get("width", 16))
        height = icon.get("height", self.icons.get("height", 16))
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
        )

    def names_of(self, emoji: str) -> set[str]:
        """What this pack calls an emoji."""
        name = self.names.get(codepoints(emoji))
        aliases: dict[str, dict[str, str]] = self.icons.get("aliases", {})
        return {name, *(alias for alias, row in aliases.items() if row["parent"] == name)} if name else set()

    def learn(self, emoji: str, names: set[str]) -> None:
        """Addresses an emoji by another pack's names, for a pack that has none of its own."""
        known = sorted(names & (self.icons["icons"].keys() | self.icons.get("aliases", {}).keys()))
        if known and emoji not in self:
            self.names[codepoints(emoji)] = known[0]

    def render(self, emoji: str, size: int = SIZE) -> np.ndarray:
        """uint8 [size, size, 4], straight alpha."""
        import resvg_py

        png = bytes(resvg_py.svg_to_bytes(svg_string=self.svg(emoji), width=size, height=size))
        picture = Image.open(io.BytesIO(png)).convert("RGBA")
        if picture.size != (size, size):
            canvas = Image.new("RGBA", (size, size))
            canvas.paste(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
            picture = canvas
        return np.asarray(picture)


def codepoints(emoji: str) -> str:
    """The key of an emoji in a pack: hex code points without the variation selector."""
    return "-".join(f"{ord(character):x}" for character in emoji if character != "\ufe0f")


def fetch_pack(style: str, folder: Path) -> PicturePack:
    package, version = (PACKS | LOOKED_AT_PACKS)[style]
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{package.removeprefix('@').replace('/', '-')}-{version}.tgz"
    if not archive.exists():
        subprocess.run(["npm", "pack", "--silent", f"{package}@{version}"], cwd=folder, check=True)
    return PicturePack(archive)


def on_white(images: np.ndarray) -> np.ndarray:
    """uint8 [..., 4] straight alpha -> uint8 [..., 3] composited on white."""
    alpha = images[..., 3:].astype(np.float32) / 255
    flat = images[..., :3].astype(np.float32) * alpha + 255 * (1 - alpha)
    return flat.round().astype(np.uint8)


def load_pictures(cache: Path, name: str = "domain") -> np.ndarray:
    """uint8 [concepts, styles, 160, 160, 4]; `name` is "domain", "all", "openmoji" or "looked_at"."""
    images: np.ndarray = np.load(cache / "pictures" / f"{name}.npz")["images"]
    return images


def main() -> None:
    folder = cache_folder() / "pictures"
    packs = {style: fetch_pack(style, folder / "packs") for style in PACKS | LOOKED_AT_PACKS}
    concepts = load_concepts()
    emojis = [concept.emoji for concept in concepts]
    _save(folder / "domain.npz", images=_render_all(packs, STYLES, emojis))
    _save(folder / "openmoji.npz", images=_render_all(packs, (HELD_OUT_STYLE,), emojis))
    images, present = _render_looked_at(packs, emojis)
    _save(folder / "looked_at.npz", images=images, present=present)
    wide = load_wide_concepts()
    kept = [index for index, row in enumerate(wide) if all(row["emoji"] in packs[style] for style in STYLES)]
    _save(
        folder / "all.npz",
        images=_render_all(packs, STYLES, [wide[index]["emoji"] for index in kept]),
        indices=np.array(kept),
        english=np.array([wide[index]["en"] for index in kept]),
        korean=np.array([wide[index]["ko"] for index in kept]),
    )
    print(f"{len(concepts)} domain concepts, {len(kept)} of {len(wide)} wide concepts -> {folder}")


def _render_all(packs: dict[str, PicturePack], styles: tuple[str, ...], emojis: list[str]) -> np.ndarray:
    return np.stack([np.stack([packs[style].render(emoji) for style in styles]) for emoji in emojis])


def _render_looked_at(packs: dict[str, PicturePack], emojis: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [concepts, looked-at styles, 160, 160, 4], and bool [concepts, looked-at styles]: which there are."""
    for emoji in emojis:
        names = set().union(*(packs[style].names_of(emoji) for style in PACKS))
        for style in LOOKED_AT_PACKS:
            packs[style].learn(emoji, names)
    present = np.array([[emoji in packs[style] for style in LOOKED_AT_PACKS] for emoji in emojis])
    images = np.zeros((*present.shape, SIZE, SIZE, 4), np.uint8)
    for row, column in np.argwhere(present):
        images[row, column] = packs[list(LOOKED_AT_PACKS)[column]].render(emojis[row])
    return images, present


def _save(path: Path, **arrays: np.ndarray) -> None:
    unfinished = path.with_suffix(".part.npz")
    np.savez_compressed(unfinished, **arrays)  # type: ignore[arg-type]
    unfinished.rename(path)


def _read_json(tar: tarfile.TarFile, name: str) -> Any:
    member = tar.extractfile(name)
    if member is None:
        raise FileNotFoundError(f"`{name}` is missing from the picture pack")
    return json.load(member)


if __name__ == "__main__":
    main()
