"""Server-sent events out of bytes. State without I/O: cut the bytes anywhere, the events are the same. Knows no meaning."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event. `data` is its lines, joined with newlines; `event` is its name, `message` where it has none."""

    data: str
    event: str = "message"


class SSEDecoder:
    """`feed(bytes)` gives the events that are complete. A line ends with CR, LF or CRLF; an empty line ends an event."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._after_cr = False
        self._begun = False
        self._data: list[str] = []
        self._name = ""

    def feed(self, item: bytes) -> list[ServerSentEvent]:
        events = []
        for line in self._lines(item):
            event = self._take(line)
            if event is not None:
                events.append(event)
        return events

    def finish(self) -> list[ServerSentEvent]:
        """Nothing: what no empty line has ended is not an event, but the beginning of one that was cut."""
        self._rest.clear()
        self._data.clear()
        return []

    def _lines(self, item: bytes) -> list[str]:
        lines = []
        if self._after_cr and item:
            item = item.removeprefix(b"\n")
            self._after_cr = False
        for piece in item.splitlines(keepends=True):  # for bytes these are CR, LF and CRLF, and nothing else
            self._rest += piece
            if piece.endswith((b"\n", b"\r")):
                lines.append(self._rest.rstrip(b"\r\n").decode("utf-8", "replace"))
                self._rest.clear()
        self._after_cr = item.endswith(b"\r") if item else self._after_cr
        if lines and not self._begun:
            self._begun = True
            lines[0] = lines[0].removeprefix("\ufeff")
        return lines

    def _take(self, line: str) -> ServerSentEvent | None:
        if not line:
            event = ServerSentEvent("\n".join(self._data), self._name or "message") if self._data else None
            self._data, self._name = [], ""
            return event
        field, _, value = line.partition(":")  # a comment has the empty field
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        return None
