"""What a chat body may look like: each refusal names its field, each tolerated habit of a client passes."""

import json

import pytest

from omni_server.errors import RequestError
from omni_server.rest.chat_wire import read_chat
from tests.rest.scripts import ask

IMAGE = {"type": "image_url", "image_url": {"url": "data:,x"}}


def part(value: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": [value]}]


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"temperature": "1"}, "temperature", "number"),
        ({"temperatur": 1}, "temperatur", "did you mean `temperature`"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"n": 9}, "n", "less than or equal to 8"),
        ({"seed": True}, "seed", "integer"),
        ({"stream": 1}, "stream", "boolean"),
        ({"stop": ["a"] * 5}, "stop", "at most 4"),
        ({"stop": [""]}, "stop[0]", "at least 1"),
        ({"max_tokens": 1.5}, "max_tokens", "integer"),
        ({"modalities": ["text", "video"]}, "modalities[1]", "'text', 'audio' or 'image'"),
        ({"modalities": "text"}, "modalities", "array"),
        ({"audio": {"voice": "mint"}}, "audio.format", "required"),
        ({"audio": {"format": "midi"}}, "audio.format", "'wav'"),
        ({"audio": {"format": "wav", "voice": 3}}, "audio.voice", "object"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "required"),
        ({"thinking_token_budget": -1}, "thinking_token_budget", "greater than or equal to 0"),
        ({"chat_template_kwargs": {"shout": True}}, "chat_template_kwargs.shout", "not a field of this request"),
        ({"response_format": {"type": "xml"}}, "response_format", "`json_schema`"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "required"),
        ({"tool_choice": "always"}, "tool_choice", "'required'"),
        ({"tool_choice": {"type": "custom"}}, "tool_choice", "`allowed_tools`"),
        ({"tool_choice": {"type": "function"}}, "tool_choice", "the name of a function"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto"}}, "tool_choice", "`mode` and `tools`"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls", "boolean"),
        ({"top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
        ({"logit_bias": {"fox": 1}}, "logit_bias.fox", "pattern"),
        ({"logit_bias": {"7": 101}}, "logit_bias.7", "less than or equal to 100"),
        ({"prediction": {"type": "content"}}, "prediction", "not supported by this server"),
        ({"stream_options": {"include_usages": True}}, "stream_options.include_usages", "not a field"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "nurse", "content": "x"}]}, "messages[0].role", "'user'"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content", "a string or a list of parts"),
        ({"messages": part({"type": "video"})}, "messages[0].content[0]", "`image_url`"),
        ({"messages": part("hello")}, "messages[0].content[0]", "`image_url`"),
        ({"messages": part({**IMAGE, "image_url": {}})}, "messages[0].content[0].image_url.url", "required"),
        ({"messages": part({**IMAGE, "image_url": {"url": 3}})}, "messages[0].content[0].image_url.url", "string"),
        (
            {"messages": part({"type": "input_audio", "input_audio": {"data": "", "format": "midi"}})},
            "messages[0].content[0].input_audio.format",
            "'mp3'",
        ),
    ],
)
def test_refusals_name_the_field(fields: dict[str, object], param: str, says: str) -> None:
    """Catches validation that points at pydantic's inner union branches, or at nothing, instead of the field."""
    with pytest.raises(RequestError) as caught:
        read_chat(json.dumps(ask(**fields)).encode())
    assert caught.value.param == param
    assert f"`{param}`" in caught.value.message
    assert says in caught.value.message


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'"text"', b"null"])
def test_bodies_that_are_not_objects(body: bytes) -> None:
    """Catches a 500 for what is not JSON."""
    with pytest.raises(RequestError, match="body"):
        read_chat(body)


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "someone", "metadata": {"a": "b"}, "store": True, "service_tier": "auto"},
        {"tools": [], "response_format": {"type": "text"}, "logprobs": False, "tool_choice": "none"},
        {"temperature": None, "max_tokens": None, "stop": None, "stream_options": None, "modalities": None},
        {"max_tokens": -1},
        {"temperature": 1, "top_p": 1},
        {"messages": part({**IMAGE, "image_url": "data:,x"})},
        {"messages": part({**IMAGE, "cache_control": {"type": "ephemeral"}})},
        {"audio": {"format": "wav", "voice": {"id": "mint"}}},
    ],
)
def test_habits_of_clients_pass(fields: dict[str, object]) -> None:
    """Catches strictness that breaks what gateways and wrappers really send."""
    read_chat(json.dumps(ask(**fields)).encode())


def test_a_long_value_is_shortened() -> None:
    """Catches an error that carries a whole picture back to its sender."""
    with pytest.raises(RequestError) as caught:
        read_chat(json.dumps(ask(temperature="9" * 5_000_000)).encode())
    assert len(caught.value.message) < 200
