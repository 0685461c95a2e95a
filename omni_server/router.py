"""Step 6. Token ids to span events. Knows bands; knows nothing of text, media or time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from omni_server.checkpoint import ImageGrid
from omni_server.types import Band, Closed, Codes, Modality, Opened, SpanEvent


class Router:
    """Splits one reply's token ids into spans, in chunks of any size.

    Text spans open with the first text id; a medium's span opens and closes at its band's markers, a picture's when its
    ratio is known. Row and frame ends and the end of the turn carry nothing for a decoder and are dropped. An id that
    cannot stand where it stands raises ValueError: the grammar makes that impossible, so it is a fault of ours and must
    not pass in silence.
    """

    def __init__(self, bands: Mapping[Modality, Band], grid: ImageGrid | None, end_of_turn: Iterable[int]) -> None:
        self._opens = {band.open: band for band in bands.values()}
        self._markers = set(self._opens) | {band.close for band in bands.values()}
        self._bands = tuple(bands.values())
        self._ratios = {token: ratio for ratio, token in grid.ratios.items()} if grid else {}
        self._rows = frozenset({grid.end_of_line, grid.end_of_frame} if grid else ())
        self._end_of_turn = frozenset(end_of_turn)
        self._index = -1
        self._band: Band | None = None
        self._in_text = False
        self._awaits_ratio = False

    def feed(self, token_ids: Sequence[int]) -> list[SpanEvent]:
        events: list[SpanEvent] = []
        pending: list[int] = []
        for token in token_ids:
            if self._band is not None and self._is_code(token, self._band):
                pending.append(token - self._band.first)
            elif self._band is None and self._is_text(token):
                if not self._in_text:
                    self._in_text = True
                    events.append(self._open(Modality.TEXT))
                pending.append(token)
            else:
                self._flush(pending, events)
                self._turn(token, events)
        self._flush(pending, events)
        return events

    def finish(self) -> list[SpanEvent]:
        """The reply is over: closes an open text span, and an open medium's span as incomplete."""
        if self._in_text:
            self._in_text = False
            return [Closed(self._index)]
        if self._band is not None:
            modality, self._band = self._band.modality, None
            opened = [self._open(modality)] if self._awaits_ratio else []
            return [*opened, Closed(self._index, complete=False)]
        return []

    def _turn(self, token: int, events: list[SpanEvent]) -> None:
        """A token that is no code and no text: a marker, a row's structure, or the end of the turn."""
        if self._band is None and token in self._opens:
            if self._in_text:
                self._in_text = False
                events.append(Closed(self._index))
            self._band = self._opens[token]
            if self._band.modality is Modality.IMAGE:
                self._awaits_ratio = True
            else:
                events.append(self._open(self._band.modality))
        elif self._awaits_ratio and token in self._ratios:
            self._awaits_ratio = False
            events.append(self._open(Modality.IMAGE, self._ratios[token]))
        elif self._band is not None and token == self._band.close:
            self._band = None
            events.append(Closed(self._index))
        elif token not in self._silent():
            inside = f"a span of {self._band.modality}" if self._band else "text"
            raise ValueError(f"token id `{token}` cannot stand in {inside}")

    def _silent(self) -> frozenset[int]:
        """Ids that may stand here and carry nothing."""
        if self._band is None:
            return self._end_of_turn
        return self._rows if self._band.modality is Modality.IMAGE else frozenset()

    def _is_code(self, token: int, band: Band) -> bool:
        return not self._awaits_ratio and band.first <= token < band.first + band.size

    def _is_text(self, token: int) -> bool:
        if token in self._markers or token in self._rows or token in self._ratios or token in self._end_of_turn:
            return False
        return not any(band.first <= token < band.first + band.size for band in self._bands)

    def _open(self, modality: Modality, ratio: str | None = None) -> Opened:
        self._index += 1
        return Opened(self._index, modality, ratio)

    def _flush(self, pending: list[int], events: list[SpanEvent]) -> None:
        if pending:
            events.append(Codes(self._index, tuple(pending)))
            pending.clear()
