"""What stays of an answer that was not heard to its end, and what the model is told of it."""

from __future__ import annotations

import numpy as np

from omni_server.conversation import Conversation, Playback, Spoken
from omni_server.types import AudioDelta, Done, Message, Modality, SpanClosed, SpanOpened, TextDelta, TextPart, Usage

SECOND = np.zeros(24_000, np.float32)


def spoken() -> Spoken:
    """`one two three four` in two seconds, then ` five` in one."""
    reply = Spoken(aloud=True)
    events = [
        SpanOpened(0, Modality.TEXT),
        TextDelta(0, "one two three four"),
        SpanClosed(0),
        SpanOpened(1, Modality.AUDIO),
        AudioDelta(1, SECOND, 24_000),
        AudioDelta(1, SECOND, 24_000),
        SpanClosed(1),
        SpanOpened(2, Modality.TEXT),
        TextDelta(2, " five"),
        SpanClosed(2),
        SpanOpened(3, Modality.AUDIO),
        AudioDelta(3, SECOND, 24_000),
        SpanClosed(3),
        Done("stop", Usage()),
    ]
    for event in events:
        reply.feed(event)
    return reply


def test_only_what_was_heard_stays() -> None:
    """Would catch a model that believes it has said what nobody heard."""
    reply = spoken()
    assert (reply.text, reply.seconds) == ("one two three four five", 3.0)
    assert [reply.heard(seconds) for seconds in (0.0, 0.9, 1.1, 2.0, 3.0)] == [
        *("", "one two", "one two", "one two three four", "one two three four five")
    ]


def test_a_voice_that_was_broken_off_counts_by_its_likely_length() -> None:
    """Would catch the whole sentence counted as heard because its first second was."""
    reply = Spoken(aloud=True)
    for event in (SpanOpened(0, Modality.TEXT), TextDelta(0, "word " * 40), SpanClosed(0), SpanOpened(1, Modality.AUDIO)):
        reply.feed(event)
    assert reply.heard(0.0) == ""
    reply.feed(AudioDelta(1, SECOND, 24_000))
    assert 0 < len(reply.heard(1.0)) < 50


def test_words_without_a_voice_count_when_they_arrive() -> None:
    """Would catch written answers that are forgotten because nobody heard them."""
    reply = Spoken(aloud=False)
    reply.feed(SpanOpened(0, Modality.TEXT))
    reply.feed(TextDelta(0, "written"))
    assert reply.heard(0.0) == "written"


def test_playback_runs_at_its_own_speed_and_waits_where_it_runs_dry() -> None:
    """Would catch sound that counts as heard because it was sent, or silence that counts as sound."""
    playback = Playback()
    playback.feed(2.0, now=10.0)
    assert (playback.heard(10.5), playback.remaining(10.5)) == (0.5, 1.5)
    playback.feed(1.0, now=20.0)  # dry for eight seconds
    assert (playback.heard(20.5), playback.remaining(20.5)) == (2.5, 0.5)
    playback.report(1.0)
    assert playback.heard(99.0) == 1.0


def test_messages_alternate_and_the_oldest_go_first() -> None:
    """Would catch a conversation that a strict template refuses, or one that loses its instructions or its newest turn."""
    conversation = Conversation(())
    conversation.listen("t1", [TextPart("a")])
    conversation.reserve("r1")
    conversation.listen("t2", [TextPart("b")])
    conversation.reserve("r2")
    conversation.answer("r2", "c")
    messages = conversation.messages(TextPart("d"), instructions="be brief")
    roles = [(message.role, len(message.parts)) for message in messages]
    assert roles == [("system", 1), ("user", 2), ("assistant", 1), ("user", 1)]
    assert conversation.trim() and not conversation.trim()
    assert [message.role for message in conversation.messages(instructions="be brief")] == ["system", "user", "assistant"]


def test_a_model_of_short_conversations_is_shown_the_last_turns() -> None:
    """Would catch a small model that is confused by what was said long ago, instructions that are forgotten with it, and an
    answer without its question."""
    history = [Message(role, (TextPart(text),)) for role, text in (("system", "s"), ("user", "a"), ("assistant", "A"))]
    conversation = Conversation(history)
    conversation.listen("t1", [TextPart("b")])
    conversation.reserve("i1")
    conversation.answer("i1", "B")

    def shown(latest: int) -> str:
        told = conversation.messages(TextPart("c"), instructions="i", latest=latest)
        return "".join(part.text for message in told for part in message.parts)  # type: ignore[union-attr]

    assert (shown(0), shown(9), shown(3)) == ("isaAbBc",) * 3
    assert (shown(2), shown(1)) == ("isbBc", "isc")
