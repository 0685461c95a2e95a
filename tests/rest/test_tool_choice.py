"""tool_choice.py: every spelling of a choice, at every door, means the same."""

from __future__ import annotations

from typing import Any

import pytest

from omni_server.config import Settings
from omni_server.door import Door
from omni_server.errors import RequestError
from omni_server.rest.chat_request import chat_request
from omni_server.rest.chat_wire import ChatRequest
from omni_server.rest.response_request import response_request
from omni_server.rest.response_wire import ResponseRequest
from omni_server.types import Calling, Request
from tests.doubles import ScriptedPipeline

FLAT = [{"type": "function", "name": name, "parameters": {"type": "object"}} for name in ("book", "leave")]
NESTED = [{"type": "function", "function": {"name": tool["name"], "parameters": tool["parameters"]}} for tool in FLAT]


def in_chat(**fields: Any) -> Request:
    body = {"model": "omni-scripted", "messages": [{"role": "user", "content": "x"}], "tools": NESTED} | fields
    return chat_request(ChatRequest.model_validate(body), "r", Door(ScriptedPipeline(), Settings()))


def in_responses(**fields: Any) -> Request:
    body = {"model": "omni-scripted", "input": "x", "tools": FLAT} | fields
    return response_request(ResponseRequest.model_validate(body), "r", Door(ScriptedPipeline(), Settings()), None)


@pytest.mark.parametrize("meant", [in_chat, in_responses])
def test_spellings(meant: Any) -> None:
    """Would catch a choice that is dropped in silence, and a tool that is offered and was not allowed."""

    def said(choice: Any, **fields: Any) -> tuple[list[str], Calling]:
        request = meant(tool_choice=choice, **fields)
        assert request.tools == tuple(tool for tool in NESTED if tool in request.tools)
        return [tool["function"]["name"] for tool in request.tools], request.calling

    both = ["book", "leave"]
    for choice in (None, "auto"):
        assert said(choice) == (both, Calling())
    assert said("none") == ([], Calling())
    assert said("required") == (both, Calling(required=True))
    assert said("required", parallel_tool_calls=False) == (both, Calling(required=True, several=False))
    assert said("auto", parallel_tool_calls=False) == (both, Calling(several=False))
    for named in ({"type": "function", "name": "book"}, {"type": "function", "function": {"name": "book"}}):
        assert said(named) == (both, Calling(required=True, named="book", several=False))
        for listed in ({"mode": "required", "tools": [named]}, {"allowed_tools": {"mode": "required", "tools": [named]}}):
            assert said({"type": "allowed_tools", **listed}) == (["book"], Calling(required=True))
    auto = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "leave"}]}
    assert said(auto) == (["leave"], Calling())


@pytest.mark.parametrize("meant", [in_chat, in_responses])
def test_a_tool_that_is_not_offered(meant: Any) -> None:
    """Would catch a name that no grammar can be made of, and an error that does not say which there are."""
    named = {"type": "function", "name": "fly"}
    for choice in (named, {"type": "allowed_tools", "mode": "auto", "tools": [named]}):
        with pytest.raises(RequestError, match="names `fly`; expected one of the `tools`: `book`, `leave`") as caught:
            meant(tool_choice=choice)
        assert caught.value.param == "tool_choice"
