"""A session without any wire: what a slow client, and one that leaves, do to it. The wire's tests hold the rest."""

from __future__ import annotations

import asyncio

import pytest

from omni_server.answering import Answering
from omni_server.config import Settings
from omni_server.door import Door
from omni_server.listening import Recording
from omni_server.live_audio import PcmReader
from omni_server.session import Session
from omni_server.turns import Interrupted, ResponsePart, SessionEvent, SessionSettings, TurnComplete
from omni_server.types import AudioDelta
from tests.doubles import Forever, LoudEars, ScriptedCheckpoint, ScriptedPipeline
from tests.freed import freed
from tests.rpc.test_converse import ANSWER, RATE, SECOND, TURN


async def test_a_client_that_does_not_read_can_still_interrupt() -> None:
    """Would catch a full queue that makes the server deaf; and sound that is sent although its answer was interrupted."""
    pipeline = ScriptedPipeline(*ANSWER[:4], *[AudioDelta(1, SECOND, 24_000)] * 500, Forever())
    ears = LoudEars()
    seen: list[SessionEvent] = []
    async with Session(Door(pipeline, Settings()), ears, SessionSettings(), PcmReader(RATE)) as session:
        for _ in range(2):
            async with asyncio.timeout(20):
                for frame in TURN:
                    await session.hear(frame.audio.audio)
            for _ in range(200):
                await asyncio.sleep(0)
        events = session.events()
        async with asyncio.timeout(20):
            while not any(isinstance(event, Interrupted) for event in seen):
                seen.append(await anext(events))
    assert not [event for event in seen if isinstance(event, ResponsePart) and isinstance(event.event, AudioDelta)]
    assert (pipeline.running, ears.opened) == (0, 0)
    ears.lane.close()


async def test_the_checkpoint_says_how_many_turns_it_is_shown() -> None:
    """Would catch a fact of the checkpoint that no conversation follows."""
    pipeline = ScriptedPipeline(*ANSWER)
    pipeline.checkpoint = ScriptedCheckpoint(turns=2)
    ears = LoudEars()
    async with Session(Door(pipeline, Settings()), ears, SessionSettings(), PcmReader(RATE)) as session:
        for words in ("a", "b", "c"):
            await session.say(words)
            await session.end_turn()
            async with asyncio.timeout(20):
                async for event in session.events():
                    if isinstance(event, TurnComplete):
                        break
    assert [len(request.messages) for request in pipeline.requests] == [1, 3, 3]
    ears.lane.close()


@pytest.mark.parametrize("last", [Forever(), ANSWER[-1]])
async def test_a_conversation_that_is_over_goes_at_once(last: object) -> None:
    """Would catch a session that waits for the collector of rings with all that was said in it: hundreds of megabytes."""
    pipeline, ears = ScriptedPipeline(*ANSWER[:-1], last), LoudEars()
    async with freed(Session, Answering, Recording, AudioDelta):
        async with Session(Door(pipeline, Settings()), ears, SessionSettings(), PcmReader(RATE)) as session:
            for frame in TURN:
                await session.hear(frame.audio.audio)
            async for event in session.events():
                if isinstance(event, ResponsePart) and isinstance(event.event, AudioDelta):
                    break
            del event
        del session, frame
        pipeline.requests.clear()
    ears.lane.close()
