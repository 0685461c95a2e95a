"""Server-sent events, cut anywhere."""

import pytest

from omni_client.sse import ServerSentEvent, SSEDecoder
from tests.incremental import assert_split_invariant

WILD = (
    "\ufeffdata: 여우 🦊\r\n\r\n: a comment\r\rdata:no space\ndata:  two spaces\n\nevent: named\r\ndata: x\r\n\r\n"
    "retry: 10\nid: 7\n\ndata\n\ndata: a\u2028b\x0bc\n\ndata: cut off"
).encode()


def decoded(*pieces: bytes) -> list[ServerSentEvent]:
    decoder = SSEDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)] + decoder.finish()


def test_every_kind_of_line() -> None:
    """Catches line ends of other systems, joined lines, names that stick to the next event, and separators that only look
    like line ends."""
    assert decoded(WILD) == [
        ServerSentEvent("여우 🦊"),
        ServerSentEvent("no space\n two spaces"),
        ServerSentEvent("x", "named"),
        ServerSentEvent(""),
        ServerSentEvent("a\u2028b\x0bc"),
    ]


def test_cut_anywhere() -> None:
    """Catches letters and line ends that are lost where a network happens to cut."""
    assert_split_invariant(SSEDecoder, WILD, list, cuts=300)
    for place in range(len(WILD)):
        assert decoded(WILD[:place], b"", WILD[place:]) == decoded(WILD)


def test_what_was_cut_off_is_no_event() -> None:
    """Catches half an event that is taken for a whole one when the connection ends."""
    assert decoded(b"data: half") == []
    assert decoded(b"data: half\n") == []


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_an_event_is_given_as_soon_as_it_is_complete(end: bytes) -> None:
    """Catches events that arrive one piece late, which a live voice would turn into a stutter."""
    decoder = SSEDecoder()
    assert decoder.feed(b"data: now" + end + end) == [ServerSentEvent("now")]
