"""The picture step's pure parts."""

import io
import json
import random
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from recipes.backbone_media import Media
from recipes.domain import LANGUAGES, STYLE_NAMES, STYLES, load_concepts, load_wide_concepts
from recipes.pictures import PicturePack, codepoints, on_white
from recipes.turns import SeenPicture


def test_codepoints_leave_out_the_variation_selector() -> None:
    """Catches `✈️` not being found in packs that know it as 2708."""
    assert codepoints("✈\ufe0f") == codepoints("✈") == "2708"
    assert codepoints("🐕‍🦺") == "1f415-200d-1f9ba"


def test_on_white() -> None:
    """Catches transparent pixels that keep their hidden colour."""
    pixels = np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 0, 0, 51]]], np.uint8)
    assert on_white(pixels)[0].tolist() == [[255, 255, 255], [10, 20, 30], [204, 204, 204]]


def test_the_domain_is_complete() -> None:
    """Catches a concept without a name, or a style without one."""
    concepts = load_concepts()
    assert len(concepts) == 104
    assert all(concept.name(language) and concept.category(language) for concept in concepts for language in LANGUAGES)
    assert len({concept.english for concept in concepts}) == len({concept.korean for concept in concepts}) == 104
    assert {concept.emoji for concept in concepts} <= {row["emoji"] for row in load_wide_concepts()}
    assert set(STYLES) == set(STYLE_NAMES)


def pack(folder: Path, icons: dict[str, Any], names: dict[str, str]) -> PicturePack:
    """An icon set as npm would carry it."""
    folder.mkdir()
    with tarfile.open(folder / "pack.tgz", "w:gz") as tar:
        for name, content in (("icons.json", icons), ("chars.json", names)):
            written = json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(written)
            tar.addfile(member, io.BytesIO(written))
    return PicturePack(folder / "pack.tgz")


def test_a_pack_without_characters_learns_names_of_another(tmp_path: Path) -> None:
    """Catches styles that are only looked at coming out empty, for they name icons and know no emoji."""
    fox = {"fox": {"body": '<rect width="16" height="16" fill="red"/>'}}
    named = pack(tmp_path / "named", {"icons": fox, "aliases": {"fox-face": {"parent": "fox"}}}, {codepoints("🦊"): "fox"})
    unnamed = pack(tmp_path / "unnamed", {"icons": {"fox-face": fox["fox"]}}, {})
    assert named.names_of("🦊") == {"fox", "fox-face"}
    assert named.names_of("🐺") == set()
    assert "🦊" not in unnamed
    unnamed.learn("🦊", named.names_of("🦊"))
    unnamed.learn("🐺", named.names_of("🐺"))
    assert "🦊" in unnamed
    assert "🐺" not in unnamed
    assert "red" in unnamed.svg("🦊")


def test_only_pictures_that_there_are_are_seen() -> None:
    """Catches the empty picture of a style that lacks a concept being taught as that concept."""
    codes = np.arange(12).reshape(1, 2, 3, 2)  # [variants, concepts, styles, cells]
    media = Media(seen_codes=codes, seen_styles=[[0, 1], [0, 1, 2]])
    chooser = random.Random(0)
    assert {tuple(media.seen(SeenPicture(0, 0), chooser).codes) for _ in range(99)} == {(0, 1), (2, 3)}
    assert {tuple(media.seen(SeenPicture(1, 0), chooser).codes) for _ in range(99)} == {(6, 7), (8, 9), (10, 11)}
