"""router.py: the spans of a reply, whatever the chunks it came in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omni_server.checkpoint import Checkpoint, read_checkpoint
from omni_server.router import Router
from omni_server.types import Closed, Codes, Modality, Opened
from tests.facts import write_checkpoint
from tests.incremental import assert_split_invariant


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    root = Path(tmp_path_factory.mktemp("mini"))
    write_checkpoint(root)
    return read_checkpoint(root)


def speech(checkpoint: Checkpoint, *codes: int) -> list[int]:
    band = checkpoint.bands[Modality.AUDIO]
    return [band.open, *(band.first + code for code in codes), band.close]


def picture(checkpoint: Checkpoint, codes: list[int]) -> list[int]:
    band, grid = checkpoint.bands[Modality.IMAGE], checkpoint.image
    assert grid is not None
    rows = [[*(band.first + c for c in codes[at : at + 3]), grid.end_of_line] for at in range(0, len(codes), 3)]
    return [band.open, grid.ratios["1:1"], *(token for row in rows for token in row), grid.end_of_frame, band.close]


def build(checkpoint: Checkpoint, end: int) -> Router:
    return Router(checkpoint.bands, checkpoint.image, [end])


def joined(events: list[Any]) -> list[Any]:
    """Neighbouring Codes of one span as one, since only their sum is promised."""
    out: list[Any] = []
    for event in events:
        if isinstance(event, Codes) and out and isinstance(out[-1], Codes) and out[-1].index == event.index:
            out[-1] = Codes(event.index, out[-1].codes + event.codes)
        else:
            out.append(event)
    return out


def test_interleaved_reply_in_any_cuts(checkpoint: Checkpoint) -> None:
    """Would catch a span that is lost, merged or shifted when a chunk ends inside it."""
    end = 999
    ids = [5, 6, *picture(checkpoint, [0, 1, 2, 3, 4, 5]), 7, *speech(checkpoint, 11, 0, 3), 8, 9, end]
    router = build(checkpoint, end)
    assert joined([*router.feed(ids), *router.finish()]) == [
        Opened(0, Modality.TEXT),
        Codes(0, (5, 6)),
        Closed(0),
        Opened(1, Modality.IMAGE, "1:1"),
        Codes(1, (0, 1, 2, 3, 4, 5)),
        Closed(1),
        Opened(2, Modality.TEXT),
        Codes(2, (7,)),
        Closed(2),
        Opened(3, Modality.AUDIO),
        Codes(3, (11, 0, 3)),
        Closed(3),
        Opened(4, Modality.TEXT),
        Codes(4, (8, 9)),
        Closed(4),
    ]
    assert_split_invariant(lambda: build(checkpoint, end), ids, joined)


def test_cut_inside_a_span_is_told(checkpoint: Checkpoint) -> None:
    """Would catch half a picture that is drawn as if it were whole."""
    router = build(checkpoint, 999)
    router.feed(picture(checkpoint, [0, 1, 2, 3, 4, 5])[:5])
    assert router.finish() == [Closed(0, complete=False)]
    early = build(checkpoint, 999)
    assert early.feed(picture(checkpoint, [0])[:1]) == []  # the ratio is not yet known
    assert early.finish() == [Opened(0, Modality.IMAGE), Closed(0, complete=False)]


def test_a_code_outside_its_span_is_a_fault(checkpoint: Checkpoint) -> None:
    """Would catch raw codes that leak into text without a sound."""
    with pytest.raises(ValueError, match="cannot stand in text"):
        build(checkpoint, 999).feed([checkpoint.bands[Modality.AUDIO].first])
    with pytest.raises(ValueError, match="cannot stand in a span of audio"):
        build(checkpoint, 999).feed([*speech(checkpoint, 1)[:2], 5])
