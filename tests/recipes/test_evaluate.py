"""The evaluation's pure parts: reading a reply and the table."""

import random

import numpy as np

from recipes.asking import Reply, picture_part, read_reply, speech_part
from recipes.evaluate import Row, run_task, table
from recipes.evaluation_cases import Case, disturb


def test_a_reply_is_read_whole() -> None:
    """Catches a transcript that is lost when `content` is null, and a voice read at the wrong rate."""
    picture = np.full((8, 8, 3), 7, np.uint8)
    voice = speech_part(np.zeros(240, np.float32), 24_000)["input_audio"]["data"]
    message = {"content": None, "audio": {"data": voice, "transcript": "a fox"}, "images": [picture_part(picture)]}
    reply = read_reply(message)
    assert reply.text == "a fox"
    assert np.array_equal(reply.pictures[0], picture)
    assert reply.waveform is not None and len(reply.waveform) == 240 and reply.sample_rate == 24_000
    assert read_reply({"content": "a fox"}).waveform is None


def test_the_table_shows_score_over_ceiling() -> None:
    """Catches a bar compared with the bare score."""
    line = table([Row("text to picture, en", 200, 0.81, 0.9, "ratio ≥ 0.85", True)]).splitlines()[-1]
    assert "| 0.810 | 0.900 | 0.900 | ratio ≥ 0.85 ✓ |" in line


def test_disturbed_pictures_are_seeded_and_opaque() -> None:
    """Catches transparent pixels turning black."""
    picture = np.zeros((160, 160, 4), np.uint8)
    first, second = (disturb(picture, random.Random(5)) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.min() >= 150


class OneAnswer:
    """A server that answers `a fox` once and then fails."""

    voices: tuple[str, ...] = ("heart",)
    asked = 0

    def ask(self, parts: object, modalities: object, voice: str | None, seed: int) -> Reply:
        self.asked += 1
        if self.asked > 1:
            raise RuntimeError("503: gone")
        return Reply("a fox")


class TextBench:
    """A bench without judges."""

    def judge(self, case: Case, reply: Reply, voice: str) -> tuple[bool, bool]:
        return reply.text == case.text, True


def test_a_failed_request_is_a_wrong_answer() -> None:
    """Catches one failure that ends the evaluation, or that is left out of the score."""
    case = Case("picture_to_name", "en", (), ("text",), text="a fox")
    row = run_task("picture to name, trained styles", [case] * 4, OneAnswer(), TextBench())  # type: ignore[arg-type]
    assert (row.cases, row.score, row.ceiling, row.passed) == (4, 0.25, 1.0, False)
    assert row.failures == ["RuntimeError: 503: gone"] * 3
    assert run_task("picture to name, trained styles", [], OneAnswer(), TextBench()).cases == 0  # type: ignore[arg-type]


class NamesBench(TextBench):
    """A bench that also notes names."""

    def __init__(self) -> None:
        self.names_read: dict[str, list[bool]] = {}


def test_a_slip_in_a_sentence_is_not_a_wrong_name() -> None:
    """Catches the looser score of what was written down that is taken for the stricter one, or the other way round."""
    sentences = ("draw a fox", "draw a cow")
    case = Case("speech_to_text", "en", (), ("text",), text=sentences[0], sentences=sentences)
    bench = NamesBench()
    row = run_task("speech to text, new speakers", [case] * 2, OneAnswer(), bench)  # type: ignore[arg-type]
    assert (row.score, row.right) == (0.0, "00")
    assert bench.names_read == {"speech to text, new speakers": [True, False]}  # the second request failed
