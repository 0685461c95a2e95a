"""The speech plan and its manifest, without any engine."""

import json
from pathlib import Path

import numpy as np

from recipes.domain import load_concepts
from recipes.engines import Manner
from recipes.speech import (
    LOUDNESS,
    STAGES,
    VOICES,
    Recording,
    plan_input,
    plan_output,
    read_manifest,
    tidy,
)
from recipes.utterances import (
    CONCEPT_PHRASINGS,
    Utterance,
    concept_requests,
    dictations,
    general_requests,
    held_out_words,
    more_requests,
)


def test_manifest_is_read_and_filtered(tmp_path: Path) -> None:
    """Catches a filter that drops rows when it is not asked for."""
    rows = [{"split": "train", "set": "output"}, {"split": "train", "set": "input"}, {"split": "eval", "set": "input"}]
    (tmp_path / "speech").mkdir()
    (tmp_path / "speech" / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_manifest(tmp_path) == rows
    assert read_manifest(tmp_path, split="eval") == rows[2:]
    assert read_manifest(tmp_path, split="train", set="input") == rows[1:2]
    assert read_manifest(tmp_path / "nowhere") == []


def test_the_plan_is_the_same_every_time() -> None:
    """Catches a plan drawn from an unseeded generator, which would make every recording again."""
    assert [recording.path for recording in plan_input()] == [recording.path for recording in plan_input()]


def test_held_out_voices_are_never_trained_on() -> None:
    """Catches an evaluation voice in a training plan."""
    for stage in STAGES.values():
        for recording in stage():
            voices = recording.manner.voice.split("+")
            held_out = set(voices) & set(VOICES.get(recording.engine, {}).get("held_out", ()))  # hibari has one voice
            assert (recording.split == "eval") == bool(held_out), recording


def test_every_concept_is_answered_by_both_voices() -> None:
    """Catches a voice that cannot say one of the names."""
    concepts = {concept.index for concept in load_concepts()}
    answered = {
        (row.utterance.concept, row.utterance.language, row.manner.voice)
        for row in plan_output()
        if row.utterance.concept is not None
    }
    assert len({row for row in answered if row[0] in concepts}) == len(concepts) * 2 * 2


def test_held_out_phrasing_is_not_in_training() -> None:
    """Catches the last phrasing of a list leaking into training."""
    fox = load_concepts()[3]
    for language, templates in CONCEPT_PHRASINGS.items():
        for template in templates:
            known = {row.text for row in concept_requests(fox, language, template, 30, False, "seed")}
            unknown = {row.text for row in concept_requests(fox, language, template, 5, True, "seed")}
            known |= {row.text for row in more_requests(fox, language, "seed") if row.template == template}
            assert known and unknown and not known & unknown
        assert all("{" not in row.text for row in general_requests(language, 1, False))


def test_words_in_no_order_never_make_a_held_out_phrasing() -> None:
    """Catches dictations that teach what evaluation asks, and a filter that finds nothing."""
    held_out = [phrasings[-1] for phrasings in CONCEPT_PHRASINGS["en"].values()]
    patterns = [held_out_words(phrasing) for phrasing in held_out]
    assert patterns[0].search("now show me a picture of a red fox") and not patterns[0].search("show me a fox")
    texts = [row.text for row in dictations(load_concepts(), "en", 500, "seed")]
    assert len(texts) == 500 and not any(pattern.search(text) for pattern in patterns for text in texts)
    assert len({text.split()[0] for text in texts}) > 50


def test_a_path_says_its_content() -> None:
    """Catches a changed manner that would reuse a file of another."""
    utterance = Utterance("fox", "en", 3, "name")
    first = Recording(utterance, "espeak", Manner("en-us+f1"), "input", "train")
    second = Recording(utterance, "espeak", Manner("en-us+f1", speed=1.1), "input", "train")
    assert first.path != second.path


def test_tidy_trims_and_levels() -> None:
    """Catches silence left at the ends and a level that depends on it."""
    rate = 16_000
    tone = 0.01 * np.sin(np.arange(rate) * 2 * np.pi * 220 / rate)
    waveform = np.concatenate([np.zeros(rate), tone, np.zeros(rate)]).astype(np.float32)
    tidied = tidy(waveform, rate)
    assert abs(len(tidied) / rate - 1.12) < 0.03
    middle = tidied[rate // 4 : rate // 2]
    assert abs(np.sqrt((middle**2).mean()) / LOUDNESS - 1) < 0.05
    assert tidied[0] == 0
