"""markup.py and aside.py: what is meant for the user is told from what is not, wherever the text is cut."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from omni_server.aside import Aside
from omni_server.conversion.facts import DIALECT, PICTURE_TOOL
from omni_server.dialect import Dialect, Piece, read_dialect
from omni_server.errors import MediaError
from omni_server.markup import Markup, read_tool_call
from omni_server.types import DecodeOptions, Event, Heard, ReasoningDelta, Speech, ToolCalled

SPEAKERS = [{"voice": "fkms", "gender": "f"}, {"voice": "mhwj", "gender": "m"}, {"voice": "fphj", "gender": "f", "age": "10"}]
TAGGED = (
    "<user_transcript>안녕?</user_transcript>\n<assistant_transcript>hello there</assistant_transcript>\n<audio_decoder_call>\n"
    '<speaker_info>{"gender": "m", "age": "20-30"}</speaker_info>\n<discrete_audio>'
)
PICTURE = f"Here you are.\n<tool_call>{PICTURE_TOOL}\n<arg_key>discrete_image_token</arg_key>\n<arg_value>"


@pytest.fixture
def dialect() -> Dialect:
    return read_dialect({"dialect": DIALECT, "audio": {"speakers": SPEAKERS}})


def tell(aside: Aside, text: str, cut: int) -> list[str | Event]:
    events: list[str | Event] = []
    for at in range(0, len(text), cut):
        events += aside.feed(text[at : at + cut])
    return events + aside.finish()


def shown(events: list[str | Event]) -> str:
    return "".join(event for event in events if isinstance(event, str))


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 1000])
def test_the_tagged_form_of_speech(dialect: Dialect, cut: int) -> None:
    """Would catch tags that are read aloud to the user, a transcript that is lost, and the wrong voice."""
    aside = Aside(dialect, None, thinking=False)
    events = tell(aside, TAGGED, cut)
    assert shown(events) == "hello there"
    assert [event for event in events if isinstance(event, Heard)] == [Heard("안녕?")]
    assert aside.with_voice(DecodeOptions()).voice == "mhwj"
    assert aside.with_voice(DecodeOptions(voice="fkms")).voice == "fkms"
    assert tell(aside, "</discrete_audio>\n</audio_decoder_call>", cut) == []


@pytest.mark.parametrize("cut", [1, 2, 5, 1000])
def test_the_bare_form_of_speech(dialect: Dialect, cut: int) -> None:
    """Would catch the older form, in which the speaker's JSON is a line of the text."""
    aside = Aside(dialect, None, thinking=False)
    assert shown(tell(aside, 'hello there\n\n{"gender": "f", "age": "10"}\n\n', cut)).strip() == "hello there"
    assert aside.with_voice(DecodeOptions()).voice == "fphj"


def test_braces_that_are_no_speaker_stay(dialect: Dialect) -> None:
    """Would catch JSON that the user asked for and never sees."""
    text = '{"fruit": "banana"}\nand {so on}'
    assert shown(tell(Aside(dialect, None, thinking=False), text, 4)) == text


@pytest.mark.parametrize("cut", [1, 3, 1000])
def test_the_frame_of_a_picture_is_not_shown(dialect: Dialect, cut: int) -> None:
    """Would catch the tool call around a picture that reaches the user, as text or as a call."""
    aside = Aside(dialect, None, thinking=False)
    events = tell(aside, PICTURE, cut) + tell(aside, "</arg_value>\n</tool_call>", cut)
    assert shown(events).strip() == "Here you are." and not aside.calls
    assert all(isinstance(event, str) for event in events)


@pytest.mark.parametrize("cut", [1, 4, 1000])
def test_tool_calls_in_both_written_forms(dialect: Dialect, cut: int) -> None:
    """Would catch arguments that lose their types or their quotes."""
    text = (
        '<tool_call>\n{"name": "find", "arguments": {"place": "서울"}}\n</tool_call>\n'
        "<tool_call>count\n<arg_key>n</arg_key>\n<arg_value>3</arg_value>\n<arg_key>of</arg_key>\n<arg_value>figs</tool_call>"
    )
    events = tell(Aside(dialect, None, thinking=False), text, cut)
    assert [event for event in events if isinstance(event, ToolCalled)] == [
        ToolCalled(0, "find", '{"place": "서울"}'),
        ToolCalled(1, "count", '{"n": 3, "of": "figs"}'),
    ]
    assert not shown(events).strip()
    assert read_tool_call("nothing that\nis a call") is None
    assert read_tool_call('{"name": "find", "arguments": "no JSON"}') == ("find", "no JSON")


def test_values_by_their_schema() -> None:
    """Would catch a word of digits that becomes a number, white space that makes another word, and a schema of nonsense."""
    schemas: dict[str, Any] = {
        "room": {"type": "string"},
        "city": {"enum": ["Oslo"]},
        "n": {"type": ["integer", "null"]},
        "any": {"anyOf": [{"type": "boolean"}, {"type": "string"}]},
        "odd": {"enum": 5, "anyOf": "x", "type": [{}]},
    }
    tools = [{"type": "function", "function": {"name": "book", "parameters": {"properties": schemas}}}]
    told = {"room": "7", "city": "\nOslo ", "n": "3", "any": "true", "odd": "4", "free": "5"}
    written = "book\n" + "".join(f"<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n" for key, value in told.items())
    call = read_tool_call(written, tools)
    assert call is not None
    assert json.loads(call[1]) == {"room": "7", "city": "Oslo", "n": 3, "any": True, "odd": "4", "free": 5}
    spaced = read_tool_call(json.dumps({"name": "book", "arguments": json.dumps({"city": " Oslo", "room": " 7"})}), tools)
    assert spaced is not None and json.loads(spaced[1]) == {"city": "Oslo", "room": " 7"}
    for nonsense in (None, {"properties": []}, {"properties": {"room": 3}}):
        odd = [{"type": "function", "function": {"name": "book", "parameters": nonsense}}]
        assert read_tool_call("book<arg_key>room</arg_key><arg_value>7</arg_value>", odd) == ("book", '{"room": 7}')


@pytest.mark.parametrize("cut", [1, 2, 1000])
def test_thoughts(dialect: Dialect, cut: int) -> None:
    """Would catch thoughts that are shown as the answer, in a prompt that has opened them or not."""
    for thinking, text in ((True, "so a < b\n</think>\n\nyes"), (False, "<think>\nso a < b\n</think>\n\nyes")):
        events = tell(Aside(dialect, None, thinking=thinking), text, cut)
        assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == "so a < b"
        assert shown(events) == "yes"


def test_the_users_own_voice(dialect: Dialect) -> None:
    """Would catch a clone without a recording, which no vocoder can make."""
    said = '<speaker_info>{"is_ref_audio": true}</speaker_info>'
    speech = Speech(np.ones(16_000, np.float32), 16_000, "digest")
    with_recording, without = Aside(dialect, speech, thinking=False), Aside(dialect, None, thinking=False)
    for aside in (with_recording, without):
        tell(aside, said, 5)
    options = with_recording.with_voice(DecodeOptions())
    assert options.reference is not None and len(options.reference) == 16_000
    assert without.with_voice(DecodeOptions()) == DecodeOptions()


def test_a_recording_that_no_voice_can_be_taken_of(dialect: Dialect) -> None:
    """Would catch a recording that fails inside the vocoder, as a fault of ours, after which the vocoder is probed."""
    for recording, words in ((np.ones(7999, np.float32), "holds `0.50` seconds"), (np.zeros(16_000, np.float32), "is silent")):
        aside = Aside(dialect, Speech(recording, 16_000, "digest"), thinking=False)
        tell(aside, '<speaker_info>{"is_ref_audio": true}</speaker_info>', 5)
        with pytest.raises(MediaError, match=words):
            aside.with_voice(DecodeOptions())
        assert aside.with_voice(DecodeOptions(voice="fkms")).voice == "fkms"


def test_a_model_without_tags_is_let_be() -> None:
    """Would catch a plain model whose angle brackets are eaten."""
    assert Markup({}).feed("a <think> b") == [Piece("text", "a <think> b")]
