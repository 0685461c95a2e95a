"""Speech step: what is said, by the server's own voices and to it. Knows nothing about who says it."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from recipes.domain import CATEGORIES, STYLE_NAMES, Concept
from recipes.korean_g2p import ends_closed


@dataclass(frozen=True, slots=True)
class Utterance:
    text: str
    language: str
    concept: int | None
    template: str


FIXED_ANSWERS = {
    "en": {
        "yes": "yes, it is",
        "no": "no, it is not",
        "hello": "hello",
        "abilities": "I can draw, name and say things",
        "refusal": "sorry, I cannot do that",
    },
    "ko": {
        "yes": "네, 맞습니다",
        "no": "아니요, 아닙니다",
        "hello": "안녕하세요",
        "abilities": "그리고 이름을 말할 수 있습니다",
        "refusal": "죄송하지만 할 수 없습니다",
    },
}

# {name} fox, {a_name} a fox, {topic} 여우는, {quoted} 여우라고. The last phrasing of a list is for evaluation only.
CONCEPT_PHRASINGS = {
    "en": {
        "draw": (
            "draw {a_name}",
            "please draw {a_name}",
            "can you draw {a_name}",
            "paint {a_name}",
            "show me a picture of {a_name}",
        ),
        "draw_style": (
            "draw {a_name} in the {style} style",
            "please draw a {style} {name}",
            "paint {a_name} in {style} style",
        ),
        "say": ("say {name}", "please say {name}", "can you say {name}", "say the word {name}"),
        "translate": (
            "what is {name} in Korean",
            "how do you say {name} in Korean",
            "{name} in Korean",
            "translate {name} into Korean",
        ),
        "is_category": (
            "is {a_name} {a_category}",
            "is {a_name} a kind of {category}",
            "tell me is {a_name} {a_category}",
        ),
    },
    "ko": {
        "draw": (
            "{name} 그려줘",
            "{name} 그려 주세요",
            "{name} 그림 그려줘",
            "{name} 하나 그려줘",
            "{name} 그림 보여줘",
        ),
        "draw_style": (
            "{style} 스타일로 {name} 그려줘",
            "{name} {style} 스타일로 그려줘",
            "{name} 그림 {style} 스타일로 그려 주세요",
        ),
        "say": ("{quoted} 말해줘", "{quoted} 말해 주세요", "{name} 읽어줘", "{quoted} 해봐"),
        "translate": ("{topic} 영어로 뭐야", "{topic} 영어로 뭐예요", "{name} 영어로 말해줘", "{name} 영어로 알려줘"),
        "is_category": ("{topic} {category}이야", "{topic} {category}이에요", "{topic} {category}인가요"),
    },
}

# Further ways to ask, each said once of each concept: who knows only a few sentences by heart hears no other one.
MORE_PHRASINGS = {
    "en": {
        "draw": (
            "draw me {a_name}",
            "show me {a_name}",
            "a picture of {a_name}",
            "give me a picture of {a_name}",
            "make a picture of {a_name} please",
            "can I see {a_name}",
            "show me a drawing of {a_name}",
            "I want to see {a_name}",
            "sketch {a_name} for me",
            "could you paint {a_name}",
        ),
        "draw_style": (
            "show me {a_name} in the {style} style",
            "a {style} picture of {a_name}",
            "make {a_name} in {style} style",
        ),
        "say": ("repeat {name}", "pronounce {name}", "read {name}", "I want to hear {name}"),
        "translate": (
            "say {name} in Korean",
            "what do you call {a_name} in Korean",
            "how is {name} said in Korean",
            "what is the Korean word for {name}",
            "what is {a_name} in Korean please",
        ),
        "is_category": (
            "do you think {a_name} is {a_category}",
            "would you call {a_name} {a_category}",
            "{a_name} is {a_category} right",
            "is the {name} {a_category}",
            "is {name} {a_category} or not",
            "can we say {a_name} is {a_category}",
        ),
    },
    "ko": {
        "draw": (
            "{name} 보여줘",
            "{name} 그림",
            "{name} 그림 만들어줘",
            "{name} 보고 싶어",
            "{name} 그림 부탁해",
            "{name} 좀 그려줘",
            "{name} 그려줄래",
            "{name} 그림 하나 주세요",
        ),
        "draw_style": (
            "{style} 스타일로 {name} 보여줘",
            "{style} 스타일로 {name} 그려 주세요",
            "{style} 스타일 {name} 그려줘",
            "{name} {style} 스타일로 보여줘",
        ),
        "say": ("{name} 발음해줘", "{quoted} 읽어줘", "{quoted} 해줘", "{name} 듣고 싶어"),
        "translate": ("{topic} 영어로 뭐라고 해", "{name} 영어로", "{name} 영어로 번역해줘", "{topic} 영어로 어떻게 말해"),
        "is_category": (
            "{topic} {category} 맞아",
            "{topic} {category}입니까",
            "{name} {category}이야",
            "{topic} {category} 맞나요",
            "{topic} {category}인지 알려줘",
        ),
    },
}

GENERAL_PHRASINGS = {
    "en": {
        "what_is_this": (
            "what is this",
            "what do you see",
            "what is in the picture",
            "tell me what this is",
            "name this",
            "what can you see",
        ),
        "name_one": (
            "name {a_category}",
            "tell me {a_category}",
            "say the name of {a_category}",
            "can you name {a_category}",
        ),
        "hello": ("hello", "hi there", "good morning", "hello there"),
        "abilities": ("what can you do", "how can you help me", "help", "what are you able to do"),
        "refusal": (
            "what is the weather today",
            "tell me a joke",
            "play some music",
            "who is the president",
            "write a poem",
            "what time is it",
            "book a flight to Paris",
        ),
    },
    "ko": {
        "what_is_this": (
            "이게 뭐야",
            "이것은 무엇인가요",
            "이거 뭐예요",
            "뭐가 보여",
            "이 그림은 뭐야",
            "무엇이 보이나요",
        ),
        "name_one": (
            "{category} 하나 말해줘",
            "{category} 하나 알려줘",
            "{category} 이름 하나 말해줘",
            "{category} 하나만 말해 주세요",
        ),
        "hello": ("안녕", "안녕하세요", "반가워", "안녕하십니까"),
        "abilities": ("뭐 할 수 있어", "무엇을 할 수 있나요", "도와줘", "뭘 할 줄 알아"),
        "refusal": (
            "오늘 날씨 어때",
            "농담 하나 해줘",
            "노래 틀어줘",
            "대통령이 누구야",
            "시를 써줘",
            "지금 몇 시야",
            "비행기표 예약해줘",
        ),
    },
}


def answers(concepts: list[Concept], language: str) -> Iterator[Utterance]:
    """What the server says: a name in its carrier, and the fixed sentences."""
    for concept in concepts:
        text = f"{concept.korean}입니다" if language == "ko" else concept.with_article
        yield Utterance(text, language, concept.index, "answer")
    for template, text in FIXED_ANSWERS[language].items():
        yield Utterance(text, language, None, template)


def request(concept: Concept, language: str, template: str, phrasing: str, chooser: random.Random) -> Utterance:
    """One spoken request about a concept."""
    category = concept.category_english
    if chooser.random() < 0.5:
        category = chooser.choice(sorted(CATEGORIES))
    style = chooser.choice(list(STYLE_NAMES.values()))[language]
    particle_topic, particle_quote = ("은", "이라고") if ends_closed(concept.korean) else ("는", "라고")
    text = phrasing.format(
        name=concept.name(language),
        a_name=concept.with_article,
        topic=concept.korean + particle_topic,
        quoted=concept.korean + particle_quote,
        category=category if language == "en" else CATEGORIES[category],
        a_category=with_article(category),
        style=style,
    )
    return Utterance(text, language, concept.index, template)


def concept_requests(
    concept: Concept, language: str, template: str, count: int, held_out: bool, seed: str
) -> Iterator[Utterance]:
    if template == "name":
        for _ in range(count):
            yield Utterance(concept.name(language), language, concept.index, template)
        return
    *known, last = CONCEPT_PHRASINGS[language][template]
    chooser = random.Random(f"{seed}|{concept.index}|{language}|{template}|{held_out}")
    for number in range(count):
        phrasing = last if held_out else known[number % len(known)]
        yield request(concept, language, template, phrasing, chooser)


def more_requests(concept: Concept, language: str, seed: str) -> Iterator[Utterance]:
    """Each of the further phrasings once."""
    chooser = random.Random(f"{seed}|{concept.index}|{language}|more")
    for template, phrasings in MORE_PHRASINGS[language].items():
        for phrasing in phrasings:
            yield request(concept, language, template, phrasing, chooser)


def general_requests(language: str, count: int, held_out: bool) -> Iterator[Utterance]:
    """Requests about no concept: every text `count` times."""
    for template, phrasings in GENERAL_PHRASINGS[language].items():
        for phrasing in phrasings[-1:] if held_out else phrasings[:-1]:
            for category in sorted(CATEGORIES) if "category}" in phrasing else [""]:
                text = phrasing.format(
                    category=CATEGORIES.get(category, "") if language == "ko" else category,
                    a_category=with_article(category),
                )
                for _ in range(count):
                    yield Utterance(text, language, None, template)


def dictations(concepts: list[Concept], language: str, count: int, seed: str) -> Iterator[Utterance]:
    """Pieces of two or three requests joined without sense: who knows only whole sentences hears the likelier one.

    Never one that has the words of a held-out phrasing in it.
    """
    chooser = random.Random(f"{seed}|{language}|dictation")
    held_out = [held_out_words(phrasings[-1]) for phrasings in CONCEPT_PHRASINGS[language].values()]
    made = 0
    while made < count:
        words: list[str] = []
        for _ in range(chooser.choice((2, 2, 3))):
            phrasings = chooser.choice((CONCEPT_PHRASINGS, MORE_PHRASINGS))[language]
            template = chooser.choice(sorted(phrasings))
            phrasing = chooser.choice(phrasings[template])
            said = request(chooser.choice(concepts), language, template, phrasing, chooser).text.split()
            length = chooser.choice((1, 2, 2, 3))
            start = chooser.randrange(max(1, len(said) - length + 1))
            words += said[start : start + length]
        text = " ".join(words)
        if not any(known.search(text) for known in held_out):
            yield Utterance(text, language, None, "dictation")
            made += 1


def held_out_words(phrasing: str) -> re.Pattern[str]:
    """Finds a phrasing in a text, whatever stands at its placeholders."""
    return re.compile(r"\S.*?".join(map(re.escape, re.split(r"\{\w+\}", phrasing))))


def with_article(noun: str) -> str:
    return f"an {noun}" if noun[:1] in tuple("aeiou") else f"a {noun}"
