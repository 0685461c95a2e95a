"""Training step: free-running exactness on held-out phrasings. Knows nothing about training, and is not a judge.

The server's grammar is imitated by masking: a reply opens the media that were asked for and no others.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from recipes.backbone_media import Media
from recipes.backbone_samples import Renderer, collate
from recipes.dialogues import Dialogues
from recipes.domain import CATEGORIES, LANGUAGES, STYLE_NAMES, STYLES
from recipes.phrasings import answer_text, fill, held_out_phrasings, other_names
from recipes.tokenizer import AUDIO_CODES, IMAGE_CODES
from recipes.turns import SeenPicture, Turn
from recipes.utterances import FIXED_ANSWERS

if TYPE_CHECKING:
    from recipes.train_backbone import Omni

LONGEST_REPLY = 220


def held_out_turn(task: str, language: str, dialogues: Dialogues, chooser: random.Random) -> Turn | None:
    """A turn whose wording, or whose recording, training never saw; None where there is no material."""
    concept = chooser.choice(dialogues.concepts)
    answer = answer_text(concept, language)
    if task in ("speech_to_text", "speech_to_speech", "speech_to_picture", "picture_and_speech"):
        needed = {"speech_to_picture": "draw", "speech_to_speech": "translate", "speech_to_text": "name"}
        if not dialogues.recordings[needed.get(task, "what_is_this"), language]:
            return None
        if task == "picture_and_speech":
            return dialogues.turn_of(task, language)
        recording = chooser.choice(dialogues.recordings[needed[task], language])
        heard, known = recording.clip, dialogues.concepts[recording.concept or 0]
        if task == "speech_to_text":
            return Turn(task, language, (heard, chooser.choice(held_out_phrasings(task, language))), recording.text)
        if task == "speech_to_picture":
            return Turn(task, language, (heard,), answer_text(known, language), SeenPicture(known.index, 0))
        return Turn(task, language, (heard,), answer_text(known, "en" if language == "ko" else "ko"), spoken=True)
    phrasing = chooser.choice(held_out_phrasings(task, language))
    style = chooser.randrange(len(STYLES)) if "{style}" in phrasing else 0
    category = concept.category_english if chooser.random() < 0.5 else chooser.choice(list(CATEGORIES))
    other = chooser.choice(other_names(held_out=True)[language])
    name = concept.name(language)
    text = fill(
        phrasing,
        language,
        concept,
        style=STYLE_NAMES[STYLES[style]][language],
        category=category,
        text=name,
        other=other,
    )
    if task in ("picture_to_name", "picture_to_picture"):
        seen = SeenPicture(concept.index, chooser.randrange(len(STYLES)))
        picture = SeenPicture(concept.index, style) if task == "picture_to_picture" else None
        return Turn(task, language, (seen, text), answer, picture)
    if task == "category":
        answer = FIXED_ANSWERS[language]["yes" if concept.category_english == category else "no"]
    elif task == "refuse":
        answer = FIXED_ANSWERS[language]["refusal"]
    elif task == "translate":
        answer = answer_text(concept, "en" if language == "ko" else "ko")
    pictured = task in ("text_to_picture", "interleaved")
    picture = SeenPicture(concept.index, style) if pictured else None
    return Turn(task, language, (text,), answer, picture, spoken=task in ("text_to_speech", "interleaved"))


TASKS = [
    "text_to_picture",
    "picture_to_name",
    "speech_to_text",
    "text_to_speech",
    "speech_to_speech",
    "speech_to_picture",
    "picture_to_picture",
    "picture_and_speech",
    "translate",
    "translate_back",
    "category",
    "refuse",
    "interleaved",
]


def measure(model: "Omni", tokenizer: Any, media: Media, cases: int, temperature: float = 0.0) -> Iterator[str]:
    """One line for each task: text right, share of picture codes right, edit distance of speech codes per code."""
    chooser = random.Random(7)
    dialogues = Dialogues(media.recordings, chooser)
    renderer = Renderer(tokenizer, media, chooser, training=False)
    for task in TASKS:
        if ("picture" in task or task == "interleaved") and media.picture_codes is None:
            continue
        made = [held_out_turn(task, LANGUAGES[case % 2], dialogues, chooser) for case in range(cases)]
        turns = [turn for turn in made if turn is not None]
        if not turns:
            continue
        scores: dict[str, list[float]] = defaultdict(list)
        for turn, reply in zip(turns, generate(model, renderer, turns, temperature), strict=True):
            for key, value in score(renderer, turn, reply).items():
                scores[f"{key} {turn.language}"].append(value)
        yield f"  {task}: " + ", ".join(f"{key} {sum(values) / len(values):.2f}" for key, values in sorted(scores.items()))


def score(renderer: Renderer, turn: Turn, reply: list[int]) -> dict[str, float]:
    expected = renderer.answer(turn).labels
    results = {"text": float(_text(reply, renderer) == _text(expected, renderer))}
    if turn.picture:
        wanted, got = (_band(ids, renderer.image_first, IMAGE_CODES) for ids in (expected, reply))
        results["picture"] = sum(a == b for a, b in zip(wanted, got, strict=False)) / max(len(wanted), len(got))
    wanted, got = (_band(ids, renderer.audio_first, AUDIO_CODES) for ids in (expected, reply))
    if wanted:
        results["speech off"] = edit_distance(wanted, got) / len(wanted)
    return results


@torch.inference_mode()
def generate(model: "Omni", renderer: Renderer, turns: list[Turn], temperature: float) -> list[list[int]]:
    """The replies' ids; media not asked for stay shut, and speech that was asked for must come before the end."""
    asked = [renderer.request(turn) for turn in turns]
    rows = [model.embed(collate([request], renderer.end))[0, : len(request.inputs)] for request in asked]
    longest = max(len(row) for row in rows)
    inputs = torch.stack([functional.pad(row, (0, 0, longest - len(row), 0)) for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    open_picture, open_speech = renderer.blocks["discrete_image"][0], renderer.blocks["discrete_audio"][0]
    replies: list[list[int]] = [[] for _ in turns]
    cache = None
    while len(replies[0]) < LONGEST_REPLY and not all(renderer.end in reply for reply in replies):
        output = model.language_model(
            inputs_embeds=inputs, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        cache, logits = output.past_key_values, output.logits[:, -1]
        for row, (turn, reply) in enumerate(zip(turns, replies, strict=True)):
            wants_speech = turn.spoken and turn.text in renderer.media.answers
            shut = [] if turn.picture else [open_picture]
            shut += ([renderer.end] if open_speech not in reply else []) if wants_speech else [open_speech]
            logits[row, shut] = float("-inf")
        chances = torch.softmax(logits / max(temperature, 1e-4), dim=1)
        tokens = torch.multinomial(chances, 1)
        for reply, token in zip(replies, tokens[:, 0].tolist(), strict=True):
            reply.append(token)
        inputs = model.language_model.model.embed_tokens(tokens)
        mask = torch.cat([mask, torch.ones_like(tokens)], dim=1)
        positions = positions[:, -1:] + 1
    return [reply[: reply.index(renderer.end) + 1] if renderer.end in reply else reply for reply in replies]


def edit_distance(left: list[int], right: list[int]) -> int:
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        above, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (a != b))
    return row[-1]


def _text(ids: list[int], renderer: Renderer) -> list[int]:
    first_marker = renderer.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    return [token for token in ids if token < first_marker]


def _band(ids: list[int], first: int, size: int) -> list[int]:
    return [token - first for token in ids if first <= token < first + size]
