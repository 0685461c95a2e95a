"""Calls of tools on miniatures with random weights: one that must be made is right by construction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest

from omni_server.config import Settings
from omni_server.conversion.convert import convert
from tests.conftest import RealServer, serving
from tests.conversion.miniature import write_published
from tests.conversion.test_convert import OPTIONS, quiet
from tests.profiles import folders
from tests.test_call_grammar import BOOK, LEAVE, check_booking

pytestmark = pytest.mark.profiles
FLAT: Any = [{"type": "function", "name": name, "parameters": schema} for name, schema in (("book", BOOK), ("leave", LEAVE))]
NESTED: Any = [{"type": "function", "function": {"name": tool["name"], "parameters": tool["parameters"]}} for tool in FLAT]
NAMED: Any = {"type": "function", "function": {"name": "book"}}
ASKED: Any = [{"role": "user", "content": "a room"}]
HOT = {"temperature": 1.2, "max_completion_tokens": 400}


def settings(folder: Path, **more: Any) -> Settings:
    return Settings(port=0, threads=1, checkpoint=folder, max_num_seqs=4, **more)


def client_of(server: RealServer) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=120)


def read(call: Any) -> tuple[str, dict[str, Any]]:
    arguments = json.loads(call.function.arguments)
    if call.function.name == "book":
        check_booking(arguments)
    else:
        assert (call.function.name, arguments) == ("leave", {})
    return call.function.name, arguments


async def called(client: openai.AsyncOpenAI, model: str, **fields: Any) -> list[tuple[str, dict[str, Any]]]:
    """Plain and streamed, which must be the same."""
    body: Any = {"model": model, "messages": ASKED, "tools": NESTED, "reasoning_effort": "none", **HOT, **fields}
    (choice,) = (await client.chat.completions.create(**body)).choices
    assert not (choice.message.content or "").strip()
    calls = [read(call) for call in choice.message.tool_calls or ()]
    told: dict[int, list[str]] = {}
    finish = None
    async for chunk in await client.chat.completions.create(**body, stream=True):
        for delta in chunk.choices[0].delta.tool_calls or ():
            name, arguments = told.setdefault(delta.index, ["", ""])
            told[delta.index] = [name + (delta.function.name or ""), arguments + (delta.function.arguments or "")]
        finish = chunk.choices[0].finish_reason or finish
    assert [(name, json.loads(arguments)) for name, arguments in told.values()] == calls
    assert finish == choice.finish_reason
    return calls


async def check_choices(server: RealServer) -> None:
    model, client = server.pipeline.checkpoint.name, client_of(server)
    for seed in range(2):
        assert await called(client, model, tool_choice="required", seed=seed)
        one = await called(client, model, tool_choice="required", parallel_tool_calls=False, seed=seed)
        assert len(one) == 1
        assert [name for name, _ in await called(client, model, tool_choice=NAMED, seed=seed)] == ["book"]
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}
    assert {name for name, _ in await called(client, model, tool_choice=allowed, seed=1)} == {"book"}
    # Through responses: the same call, for the same seed gives the same tokens.
    wanted = await called(client, model, tool_choice=NAMED, seed=2)
    named: Any = {"type": "function", "name": "book"}
    reply = await client.responses.create(
        model=model,
        input="a room",
        tools=FLAT,
        tool_choice=named,
        reasoning={"effort": "none"},
        temperature=1.2,
        max_output_tokens=400,
        extra_body={"seed": 2},
    )
    assert [(item.name, json.loads(item.arguments)) for item in reply.output if item.type == "function_call"] == wanted
    await check_refusals(client, model)


async def check_thoughts(client: openai.AsyncOpenAI, model: str) -> None:
    """A call that must be made comes behind the thoughts, and is in no thought."""
    body: Any = {"model": model, "messages": ASKED, "tools": NESTED, "tool_choice": NAMED, "seed": 3, **HOT}
    budget = {"thinking_token_budget": 12, "chat_template_kwargs": {"enable_thinking": True}}
    (choice,) = (await client.chat.completions.create(**body, extra_body=budget)).choices
    (call,) = choice.message.tool_calls or ()
    assert read(call)[0] == "book" and choice.finish_reason == "tool_calls"
    assert choice.message.reasoning_content  # type: ignore[attr-defined]


async def check_refusals(client: openai.AsyncOpenAI, model: str) -> None:
    body: Any = {"model": model, "messages": ASKED, "reasoning_effort": "none", "max_completion_tokens": 20}
    strange = [{"type": "function", "function": {"name": "f", "parameters": {"type": "nonsense"}}}]
    for fields, words in (
        ({"tool_choice": "required"}, "there are no `tools`"),
        ({"tools": strange, "tool_choice": "required"}, "nvalid"),
    ):
        with pytest.raises(openai.BadRequestError, match=words):
            await client.chat.completions.create(**body, **fields)
    free = (await client.chat.completions.create(**body, tools=NESTED, tool_choice="none")).choices[0]
    assert not free.message.tool_calls and free.message.content is not None


@pytest.mark.parametrize("written", [folders.AS_JSON, folders.KEYED], ids=["json", "keyed"])
async def test_our_own_reader(tmp_path: Path, written: str) -> None:
    """Would catch a call that is free, cut, misread or in another form than the template's; two calls for one."""
    folders.calling_folder(tmp_path / "calls", written)
    async with serving(settings(tmp_path / "calls")) as server:
        await check_choices(server)
        await check_thoughts(client_of(server), server.pipeline.checkpoint.name)


async def test_a_parser_of_vllms(tmp_path: Path) -> None:
    """Would catch a parser that is named and not asked, and a grammar of vLLM's that does not reach the engine."""
    folders.calling_folder(tmp_path / "calls", folders.AS_JSON)
    async with serving(settings(tmp_path / "calls", tool_call_parser="hermes", reasoning_parser="qwen3")) as server:
        await check_choices(server)


async def test_an_omni_checkpoint(tmp_path: Path) -> None:
    """Would catch a call that must be made beside bands of media, whose names are letters too."""
    convert(write_published(tmp_path / "seed"), tmp_path / "omni", OPTIONS, quiet)
    async with serving(settings(tmp_path / "omni")) as server:
        await check_choices(server)
        await check_thoughts(client_of(server), server.pipeline.checkpoint.name)
        client = client_of(server)
        body: Any = {"model": server.pipeline.checkpoint.name, "messages": ASKED, "tools": NESTED, "tool_choice": NAMED, **HOT}
        spoken = await client.chat.completions.create(**body, modalities=["text", "audio"], audio={"format": "wav"})  # type: ignore[call-overload]
        assert spoken.choices[0].message.tool_calls and spoken.choices[0].message.audio is None
