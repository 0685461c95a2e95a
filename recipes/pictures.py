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
    package, version = PACKS[style]
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
    """uint8 [concepts, styles, 160, 160, 4]; `name` is "domain", "all" or "openmoji"."""
    images: np.ndarray = np.load(cache / "pictures" / f"{name}.npz")["images"]
    return images


def main() -> None:
    folder = cache_folder() / "pictures"
    packs = {style: fetch_pack(style, folder / "packs") for style in PACKS}
    concepts = load_concepts()
    emojis = [concept.emoji for concept in concepts]
    _save(folder / "domain.npz", images=_render_all(packs, STYLES, emojis))
    _save(folder / "openmoji.npz", images=_render_all(packs, (HELD_OUT_STYLE,), emojis))
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
