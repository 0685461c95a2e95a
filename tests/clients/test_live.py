"""Live conversations with the real server: sound goes up at the pace of speech, and comes back. What it says is judged
elsewhere."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import soundfile

from omni_client import (
    AsyncOmniClient,
    Audio,
    AudioDelta,
    BadRequestError,
    Paced,
    ResponseDone,
    ResponseStarted,
    TurnCommitted,
    TurnComplete,
)
from tests.clients.both import until
from tests.clients.command import ROOT, run
from tests.clients.test_call import BothCalls
from tests.conftest import RealServer

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


def question() -> Audio:
    samples, sample_rate = soundfile.read(ROOT / "clients" / "examples" / "media" / "en-question.flac", dtype="float32")
    return Audio.from_waveform(samples, sample_rate)


def kinds(events: Sequence[Any]) -> list[type]:
    return [type(event) for event in events]


@KINDS
async def test_a_question_and_its_answer(kind: str, grpc_target: str) -> None:
    """Catches a turn whose end is never found, an answer without sound, and one that comes before the question is over."""
    asked = question()
    async with BothCalls(kind, grpc_target, Paced(asked, silence=1.0), voice="heart", temperature=0.0) as call:
        ready = call.call.ready
        assert (ready.voice, ready.output_sample_rate) == ("heart", 24_000)
        assert ready.input_sample_rate == asked.sample_rate
        events = await call.rest()
    seen = kinds(events)
    assert seen.index(TurnCommitted) < seen.index(ResponseStarted) < seen.index(AudioDelta) < seen.index(ResponseDone)
    (committed,) = [event for event in events if isinstance(event, TurnCommitted)]
    assert 0.3 < committed.seconds <= asked.seconds + 1.0
    sound = [event for event in events if isinstance(event, AudioDelta)]
    (done,) = [event for event in events if isinstance(event, ResponseDone)]
    assert done.status == "completed" and done.usage is not None and done.turn_to_first_audio is not None
    assert sum(len(event.pcm) for event in sound) / 2 / 24_000 == pytest.approx(done.audio, abs=0.001)
    assert [event.start for event in sound] == sorted(event.start for event in sound)
    assert seen[-1] is TurnComplete


@KINDS
async def test_words_instead_of_sound(kind: str, grpc_target: str) -> None:
    """Catches a turn that only sound can open, and an `end_turn` that ends nothing."""
    async with BothCalls(kind, grpc_target, turns="client", modalities=["text", "audio"], temperature=0.0) as call:
        await call.do("send_text", "say 'fox'")
        await call.do("end_turn")
        await call.do("finish")
        events = await call.rest()
    assert {AudioDelta, ResponseDone, TurnComplete} <= set(kinds(events))


@KINDS
async def test_what_is_wrong_is_raised_on_entering(kind: str, grpc_target: str) -> None:
    """Catches a conversation that begins with wishes the server does not have."""
    with pytest.raises(BadRequestError, match="nobody") as caught:
        async with BothCalls(kind, grpc_target, voice="nobody"):
            pass
    assert caught.value.code and caught.value.request_id


async def test_leaving_leaves_nothing_in_the_engine(server: RealServer, grpc_target: str) -> None:
    """Catches an answer that goes on for a caller who has hung up."""
    async with AsyncOmniClient(server.url) as client:
        async with client.converse(turns="client", temperature=2.0, max_tokens=900) as call:
            await call.send_text("draw a fox")
            await call.end_turn()
            await until(lambda: server.unfinished > 0)
        await until(lambda: server.unfinished == 0)


async def test_interrupting(server: RealServer, grpc_target: str) -> None:
    """Catches an interruption that the engine does not hear of, and one that ends the call too."""
    async with (
        AsyncOmniClient(server.url) as client,
        client.converse(turns="client", temperature=2.0, max_tokens=900) as call,
    ):
        await call.send_text("draw a fox")
        await call.end_turn()
        async for event in call:
            if isinstance(event, ResponseStarted):
                await until(lambda: server.unfinished > 0)
                await call.interrupt()
            if isinstance(event, ResponseDone):
                assert event.status == "cancelled"
                break
        await until(lambda: server.unfinished == 0)
        await call.send_text("say 'fox'")
        await call.end_turn()
        async for event in call:
            if isinstance(event, ResponseStarted):
                break


async def test_talk(server: RealServer, grpc_target: str, tmp_path: Path) -> None:
    """Catches a command that only the scripted service understands."""
    question().save(tmp_path / "question.wav")
    ran = await run("-m", "omni_server", "talk", "question.wav", "--captions", url=server.url, folder=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert Audio.open(tmp_path / "answer.wav").seconds > 0.2
    assert "it: " in ran.out and "you: " in ran.out


async def test_the_readme(server: RealServer, grpc_target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a README whose first lines of code do not run."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## The SDK and the command line")[1]
    code = "\n".join(re.findall(r"^    (.*)$|^$", section.split("`AsyncOmniClient`")[0], flags=re.MULTILINE))
    assert "client.converse" in code
    monkeypatch.chdir(tmp_path)
    question().save("question.wav")
    await asyncio.to_thread(exec, code.replace("http://127.0.0.1:8000", server.url), {})
    assert {*os.listdir(tmp_path)} >= {"fox.png", "fox.wav"}
