"""The stock client's own ways of asking for structure, in chat and responses, streamed and not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pydantic

from omni_server.types import Event, ToolCalled
from tests.doubles import ScriptedPipeline
from tests.rest.scripts import done, served, words

MODEL = "omni-scripted"
ASKED: Any = [{"role": "user", "content": "?"}]


class Animal(pydantic.BaseModel):
    animal: str
    flies: bool


class Weather(pydantic.BaseModel):
    city: str


@contextmanager
def talking(*script: Event) -> Iterator[tuple[openai.OpenAI, ScriptedPipeline]]:
    pipeline = ScriptedPipeline(*script)
    with served(pipeline) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client, pipeline


def test_a_class_as_the_form() -> None:
    """Would catch a schema as the client makes it that is not understood, and an answer that its parser does not find."""
    fox = Animal(animal="fox", flies=False)
    with talking(*words(0, '{"animal": "fox", ', '"flies": false}'), done()) as (client, pipeline):
        assert client.responses.parse(model=MODEL, input="?", text_format=Animal).output_parsed == fox
        with client.responses.stream(model=MODEL, input="?", text_format=Animal) as stream:
            assert stream.get_final_response().output_parsed == fox
        chat = client.chat.completions.parse(model=MODEL, messages=ASKED, response_format=Animal)
        assert chat.choices[0].message.parsed == fox
        with client.chat.completions.stream(model=MODEL, messages=ASKED, response_format=Animal) as chunks:
            assert chunks.get_final_completion().choices[0].message.parsed == fox
    forms = [request.sampling.form for request in pipeline.requests]
    assert forms[0] is not None and forms[0]["required"] == ["animal", "flies"]
    assert all(form == forms[0] for form in forms)


def test_classes_as_tools() -> None:
    """Would catch calls that run into each other in a stream, and arguments that the client's parser does not find."""
    tool: Any = openai.pydantic_function_tool(Weather, name="weather")
    flat: Any = {"type": "function", **tool["function"]}
    script = (ToolCalled(0, "weather", '{"city": "Oslo"}'), ToolCalled(1, "weather", '{"city": "Rome"}'), done("tool_calls"))
    cities = [Weather(city="Oslo"), Weather(city="Rome")]
    with talking(*script) as (client, pipeline):
        calls: Any = client.responses.parse(model=MODEL, input="?", tools=[flat]).output
        assert [call.parsed_arguments for call in calls] == [city.model_dump() for city in cities]
        with client.responses.stream(model=MODEL, input="?", tools=[flat]) as stream:
            again: Any = stream.get_final_response().output
        assert [call.arguments for call in again] == [call.arguments for call in calls]
        chat = client.chat.completions.parse(model=MODEL, messages=ASKED, tools=[tool])
        found = chat.choices[0].message.tool_calls or []
        assert [call.function.parsed_arguments for call in found] == cities
        with client.chat.completions.stream(model=MODEL, messages=ASKED, tools=[tool], n=2) as chunks:
            choices = chunks.get_final_completion().choices
        assert [len(choice.message.tool_calls or []) for choice in choices] == [2, 2]
    assert all(request.tools[0]["function"]["name"] == "weather" for request in pipeline.requests)
