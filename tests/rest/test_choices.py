"""Several answers to one request, played side by side."""

import pytest

from omni_server.config import Settings
from omni_server.door import Door
from omni_server.errors import EngineUnavailable
from omni_server.rest.choices import choices_of, played_choices
from omni_server.types import DecodeOptions, Failed, Message, Modality, Request, Sampling, SpanOpened, TextDelta, TextPart
from tests.doubles import Forever, ScriptedPipeline

REQUEST = Request("r", (Message("user", (TextPart("hi"),)),), sampling=Sampling(seed=2**63 - 1), decode=DecodeOptions(seed=4))


def test_each_choice_has_its_own_seed() -> None:
    """Would catch a seed that the engine cannot take, choices that are all alike, or seeds where nobody asked for one."""
    first, second = choices_of(REQUEST, 2)
    assert first is REQUEST
    assert (second.sampling.seed, second.decode.seed, second.request_id) == (0, 5, "r-1")
    plain = Request("r", REQUEST.messages)
    assert [request.sampling.seed for request in choices_of(plain, 2)] == [None, None]


async def test_leaving_stops_every_choice() -> None:
    """Would catch choices that go on for a client who has left."""
    pipeline = ScriptedPipeline(SpanOpened(0, Modality.TEXT), TextDelta(0, "Hi"), Forever())
    events = played_choices(Door(pipeline, Settings()), choices_of(REQUEST, 3), {})
    places = set()
    while len(places) < 3:
        place, _ = await anext(events)
        places.add(place)
    await events.aclose()
    assert (pipeline.left, pipeline.running) == (3, 0)


@pytest.mark.parametrize("fault", [Failed(EngineUnavailable("gone")), EngineUnavailable("gone")])
async def test_a_failing_choice_ends_all(fault: Failed | EngineUnavailable) -> None:
    """Would catch an answer that misses a choice, and choices that outlive it."""
    pipeline = ScriptedPipeline(SpanOpened(0, Modality.TEXT), fault)
    with pytest.raises(EngineUnavailable):
        async for _ in played_choices(Door(pipeline, Settings()), choices_of(REQUEST, 3), {}):
            pass
    assert pipeline.running == 0
