"""Whatever a client sends, the realtime wire answers it or refuses it by name; a fault of the server's own is a bug."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given, settings, strategies as st

from omni_server.config import Settings
from omni_server.door import Door
from omni_server.live_audio import open_reader
from omni_server.realtime.door import refused
from omni_server.realtime.held import held_at_first
from omni_server.realtime.ledger import Ledger
from omni_server.realtime.reading import EventReader
from omni_server.realtime.socket import answered
from omni_server.realtime.wire import EVENTS, read_event
from omni_server.realtime.writing import EventWriter
from omni_server.session import Session
from tests.doubles import LoudEars, ScriptedPipeline
from tests.realtime.doors import spoken

# The names and values that lead into the code; chance alone would be refused at the first field.
NAMES = (
    *("session", "item", "response", "audio", "input", "output", "format", "type", "rate", "turn_detection", "transcription"),
    *("voice", "speed", "content", "role", "text", "id", "item_id", "call_id", "arguments", "name", "instructions", "tools"),
    *("previous_item_id", "output_modalities", "max_output_tokens", "conversation", "metadata", "audio_end_ms", "event_id"),
    *("content_index", "response_id", "omni", "seed", "model", "transcript", "image_url", "silence_duration_ms", "parameters"),
)
VALUES = (
    *("message", "user", "assistant", "system", "function_call", "function_call_output", "input_text", "input_audio", "root"),
    *(
        "input_image",
        "output_audio",
        "audio/pcm",
        "audio/pcmu",
        "server_vad",
        "semantic_vad",
        "realtime",
        "auto",
        "none",
        "inf",
    ),
    *(
        "AAAA",
        "AAAAAAAA",
        "{}",
        "omni-scripted",
        "mint",
        "en",
        "x",
        "",
        "data:image/png;base64,AAAA",
        "function",
        "text",
        "audio",
    ),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 50_000), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(VALUES)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=14,
)
EVENT = st.builds(
    lambda type, fields: {**fields, "type": type},
    st.sampled_from([*EVENTS, "output_audio_buffer.clear", "x"]),
    st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(EVENT, min_size=1, max_size=6))
def test_no_event_is_a_fault_of_the_servers(events: list[dict[str, Any]]) -> None:
    """Would catch a value that is taken and then breaks the call, or that nobody has thought of."""
    asyncio.run(told_of(events))


async def told_of(events: list[dict[str, Any]]) -> None:
    door, ears = Door(ScriptedPipeline(*spoken()), Settings()), LoudEars()
    held = held_at_first(door)
    async with Session(door, ears, held.settings, open_reader(held.sound_in.encoding, held.sound_in.sample_rate)) as session:
        ledger = Ledger(held)
        reader, writer = EventReader(session, ledger, door), EventWriter(ledger)

        async def speak() -> None:
            async for event in session.events():
                json.dumps(writer.feed(event))

        speaking = asyncio.create_task(speak())
        for event in events:
            for told in await answered(json.dumps(event), lambda said: reader.take(read_event(said)), refused):
                json.dumps(told)
                assert told["type"] != "error" or told["error"]["type"] == "invalid_request_error", (event, told)
        await asyncio.sleep(0)
        assert not speaking.done(), speaking.exception()
        speaking.cancel()
    ears.lane.close()
