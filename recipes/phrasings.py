"""Data step: the phrasings of every task, those to train on and those kept for evaluation. Knows no turns."""

import json
from pathlib import Path

from recipes.domain import CATEGORIES, STYLE_NAMES, STYLES, Concept, load_concepts, load_wide_concepts
from recipes.korean_g2p import ends_closed
from recipes.utterances import with_article

DEFAULT_STYLE = 0
PARTICLES = {"을(를)": ("을", "를"), "은(는)": ("은", "는"), "이(가)": ("이", "가"), "와(과)": ("과", "와")}
PHRASINGS: dict[str, dict[str, dict[str, list[str]]]] = json.loads(
    (Path(__file__).parent / "phrasings.json").read_text(encoding="utf-8")
)


def held_out_phrasings(task: str, language: str) -> list[str]:
    """Phrasings for evaluation only, with the slots that `fill` knows; bare `str.format` does for most."""
    return list(PHRASINGS[task][language]["held_out"])


def training_phrasings(task: str, language: str) -> list[str]:
    return list(PHRASINGS[task][language]["train"])


def answer_text(concept: Concept, language: str) -> str:
    """The name in its carrier, as the output voices say it."""
    return f"{concept.korean}입니다" if language == "ko" else concept.with_article


def fill(phrasing: str, language: str, concept: Concept | None = None, **slots: str) -> str:
    """Fills a phrasing's slots and chooses the Korean particles. `category` is the English word."""
    if concept is not None:
        slots |= {"name": concept.name(language), "foreign": concept.name("en" if language == "ko" else "ko")}
        slots["a_name"] = concept.with_article
    if "category" in slots:
        slots["a_category"] = with_article(slots["category"])
        slots["category"] = CATEGORIES[slots["category"]] if language == "ko" else slots["category"]
    text = phrasing.format(**slots)
    for written, (closed, open_) in PARTICLES.items():
        while (place := text.find(written)) > 0:
            particle = closed if ends_closed(text[:place].rstrip("'\"")) else open_
            text = text[:place] + particle + text[place + len(written) :]
    return text


def other_names(held_out: bool) -> dict[str, list[str]]:
    """Things outside the domain, by language; every fourth is kept for evaluation."""
    concepts = load_concepts()
    known_english = {word for concept in concepts for word in concept.english.split()}
    names: dict[str, list[str]] = {"en": [], "ko": []}
    for index, row in enumerate(load_wide_concepts()):
        if (index % 4 == 0) != held_out or known_english & set(row["en"].split()):
            continue
        if any(
            (len(concept.korean) > 1 and concept.korean in row["ko"]) or concept.korean == row["ko"] for concept in concepts
        ):
            continue
        names["en"].append(row["en"])
        names["ko"].append(row["ko"])
    return names


def style_in(text: str, language: str) -> int:
    """The style a spoken request names."""
    words = f" {text} "
    named = [index for index, style in enumerate(STYLES) if f" {STYLE_NAMES[style][language]} " in words]
    return named[0] if named else DEFAULT_STYLE


def category_in(text: str, language: str) -> str:
    """The category a spoken request names; the last one, for a concept may contain the word of another."""
    spoken = {category: text.rfind(CATEGORIES[category] if language == "ko" else category) for category in CATEGORIES}
    return max(spoken, key=lambda category: spoken[category])
