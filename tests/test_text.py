"""text.py: characters whole, stop strings cut, whatever the chunks."""

from __future__ import annotations

from pathlib import Path

import pytest

from omni_server.text import TextCodec
from tests.facts import write_tokenizer
from tests.incremental import assert_split_invariant


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    root = Path(tmp_path_factory.mktemp("tokenizer"))
    write_tokenizer(root)
    return TextCodec(root / "tokenizer.json")


TEXT = "여우입니다 🦊. A fox, 그리고 a café — done"


def test_text_in_any_cuts(codec: TextCodec) -> None:
    """Would catch half a Korean letter, or a space lost at a chunk's border."""
    ids = codec.encode_user(TEXT)
    assert_split_invariant(codec.open, ids, "".join)
    machine = codec.open()
    assert "".join([*machine.feed(ids), *machine.finish()]) == TEXT


def test_unfinished_character_is_given_out_at_the_end(codec: TextCodec) -> None:
    """Would catch a reply whose last bytes vanish."""
    machine = codec.open()
    pieces = [*machine.feed(codec.encode_user("a여")[:-1]), *machine.finish()]
    assert "".join(pieces).startswith("a") and len("".join(pieces)) > 1


@pytest.mark.parametrize(
    ("stop", "expected"), [(("fox",), TEXT.split("fox")[0]), (("zzz",), TEXT), (("A f", "🦊"), "여우입니다 ")]
)
def test_stop_strings_in_any_cuts(codec: TextCodec, stop: tuple[str, ...], expected: str) -> None:
    """Would catch a stop string that slips through between two chunks, or text held back for ever."""
    ids = codec.encode_user(TEXT)
    machine = codec.open(stop)
    assert "".join([*machine.feed(ids), *machine.finish()]) == expected
    assert_split_invariant(lambda: codec.open(stop), ids, "".join)
