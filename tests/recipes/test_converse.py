"""A spoken conversation of ten turns with the real server, at the pace of speech. Whether its answers are right is for
`recipes.converse` and its judges; here it is held."""

from __future__ import annotations

import soundfile

from omni_client import AsyncOmniClient, Caption, Interrupted
from recipes.conversation_turns import Asked
from recipes.converse import Answered, cut_to_what_was_heard, hold
from tests.clients.command import ROOT
from tests.clients.conftest import grpc_target as grpc_target
from tests.conftest import RealServer

MEDIA = ROOT / "clients" / "examples" / "media"


def asked(name: str, words: str = "", picture: str = "", spoken_over: bool = False) -> Asked:
    samples, rate = soundfile.read(MEDIA / f"{name}.flac", dtype="float32")
    shown = (MEDIA / f"{picture}.png").read_bytes() if picture else None
    return Asked(name, name, samples, rate, name[:2], words=words, picture=shown, spoken_over=spoken_over)


TURNS = [
    asked("en-question"),
    asked("en-name", "write down what you hear"),
    asked("en-question", spoken_over=True),
    asked("en-draw"),
    asked("en-name", "what is this?", picture="fox"),
    asked("ko-question"),
    asked("ko-name", "들은 것을 적어줘"),
    asked("ko-question", spoken_over=True),
    asked("ko-draw"),
    asked("ko-name"),
]


async def test_ten_turns_with_two_interruptions(server: RealServer, grpc_target: str) -> None:
    """Catches a turn that is never answered, an answer with two endings or none, one without words, and an interruption after
    which the conversation holds what nobody heard."""
    async with AsyncOmniClient(server.url) as client:
        answers = await hold(client, TURNS, seed=1, voice="heart")
    assert [len(answer.endings) for answer in answers] == [1] * 10
    assert all(answer.text for answer in answers)
    assert len({answer.id for answer in answers}) == 10
    for turn, answer in zip(TURNS, answers, strict=True):
        assert (answer.heard is not None) == turn.spoken_over
        if turn.spoken_over:
            assert cut_to_what_was_heard(answer)


def test_what_was_heard() -> None:
    """Catches a history that keeps all of an answer, or other words, counted as cut."""
    assert not cut_to_what_was_heard(Answered(text="I can draw", kept="I can draw"))  # nobody spoke over it
    assert not cut_to_what_was_heard(Answered(text="I can draw", kept="I can draw", heard=0.5))
    assert not cut_to_what_was_heard(Answered(text="I can draw", kept="you can", heard=0.5))
    assert cut_to_what_was_heard(Answered(text="I can draw", kept="I can", heard=0.5))


def test_the_words_of_an_answer_are_those_before_it_was_spoken_over() -> None:
    """Catches an answer judged by what was left of it: its last caption is cut to what was heard."""
    answer = Answered()
    for event in (
        Caption("a", "assistant", "I can draw", final=False),
        Interrupted("a", 0.25, "I"),
        Caption("a", "assistant", "I", final=True),
    ):
        answer.feed(event)
    assert (answer.text, answer.kept) == ("I can draw", "I")
    assert cut_to_what_was_heard(answer)
