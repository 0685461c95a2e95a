"""What the embedded checkpoint knows: its concepts, drawing styles and voices. Knows nothing about recordings."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

LANGUAGES = ("en", "ko")
STYLES = ("noto", "flat", "twemoji")
STYLE_NAMES = {
    "noto": {"en": "classic", "ko": "기본"},
    "flat": {"en": "flat", "ko": "플랫"},
    "twemoji": {"en": "simple", "ko": "심플"},
}
OUTPUT_VOICES = {"heart": "af_heart", "kumo": "jm_kumo"}
CATEGORIES = {"animal": "동물", "plant": "식물", "food": "음식", "vehicle": "탈것", "thing": "물건"}

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Concept:
    index: int
    emoji: str
    english: str
    korean: str
    article: str
    category_english: str
    category_korean: str

    def name(self, language: str) -> str:
        return self.korean if language == "ko" else self.english

    def category(self, language: str) -> str:
        return self.category_korean if language == "ko" else self.category_english

    @property
    def with_article(self) -> str:
        return f"{self.article} {self.english}".strip()


def cache_folder() -> Path:
    """Where downloads and generated data live; outside the repository, kept between runs."""
    folder = Path(os.environ.get("OMNI_RECIPES_CACHE", Path.home() / ".cache" / "omni-recipes"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def load_concepts() -> list[Concept]:
    """The concepts the checkpoint is trained on; the index is the row in domain.json."""
    rows = json.loads((_HERE / "domain.json").read_text(encoding="utf-8"))
    return [
        Concept(index, row["emoji"], row["en"], row["ko"], row["article"], row["category"]["en"], row["category"]["ko"])
        for index, row in enumerate(rows)
    ]


def load_wide_concepts() -> list[dict[str, str]]:
    """The 667 candidates the domain was chosen from: emoji, en, ko, category."""
    rows: list[dict[str, str]] = json.loads((_HERE / "concepts.json").read_text(encoding="utf-8"))
    return rows
