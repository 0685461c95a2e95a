"""JSON of strangers."""

from __future__ import annotations

import pytest

from omni_server.arguments import read_arguments
from omni_server.errors import RequestError
from omni_server.markup import read_speaker, read_tool_call
from omni_server.plain_json import DEEPEST, parsed


@pytest.mark.parametrize("levels", [DEEPEST + 1, 990, 20_000])
@pytest.mark.parametrize(("open", "close"), [("[", "]"), ('{"a":', "}")])
def test_what_is_nested_too_deeply_is_a_fault_of_the_text(levels: int, open: str, close: str) -> None:
    """Catches a RecursionError, here or where it is written again, which every door would call a fault of the server."""
    text = open * levels + "1" + close * levels
    for said in (text, open * levels):
        with pytest.raises(ValueError):
            parsed(said)
    with pytest.raises(RequestError, match="expected a JSON object"):
        read_arguments(text, "arguments")
    assert read_speaker(text) is None and read_tool_call(text.replace("[", "{")) in (None, (text.replace("[", "{"), "{}"))


def test_what_is_nested_less_is_read() -> None:
    """Catches a limit that honest arguments meet."""
    text = '{"a":' * (DEEPEST - 1) + "1" + "}" * (DEEPEST - 1)
    assert read_arguments(text, "arguments")["a"] and parsed('[1, {"b": null}]') == [1, {"b": None}]
