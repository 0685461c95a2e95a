"""thinking.py: thoughts within their budget, on a scripted backbone."""

from __future__ import annotations

from pathlib import Path

import pytest

from omni_server.text import TextCodec
from omni_server.thinking import think_and_answer
from omni_server.types import Message, Modality, Prompt, Request, Sampling, TextPart, Thinking
from tests.doubles import ScriptedBackbone
from tests.facts import write_tokenizer


@pytest.fixture
def codec(tmp_path: Path) -> TextCodec:
    write_tokenizer(tmp_path)
    return TextCodec(tmp_path / "tokenizer.json")


async def play(codec: TextCodec, backbone: ScriptedBackbone, budget: int, limit: int | None = None) -> tuple[str, str | None]:
    request = Request(
        "r",
        (Message("user", (TextPart("x"),)),),
        modalities=frozenset({Modality.TEXT, Modality.AUDIO}),
        sampling=Sampling(max_tokens=limit),
        thinking=Thinking(budget=budget),
    )
    prompt = Prompt(tuple(codec.encode_template("<think>\n")), thinking=True)
    ids: list[int] = []
    reason = None
    async for chunk in think_and_answer(backbone, request, prompt, codec, "think"):
        ids += chunk.token_ids
        reason = chunk.finish_reason or reason
    assert backbone.unfinished == 0
    return codec.decode(ids), reason


async def test_thoughts_that_end_in_time(codec: TextCodec) -> None:
    """Would catch an answer that is written under the grammar of thoughts, and a tag that is closed twice."""
    backbone = ScriptedBackbone(codec.encode_template("hm"), codec.encode_template("</think>\n\nnot this"))
    text, _ = await play(codec, backbone, budget=100)
    assert text.startswith("hm</think>") and text.count("</think>") == 2  # the script answers with itself
    first, second = backbone.prompts
    assert codec.decode(second.token_ids) == "<think>\nhm</think>" and not second.thinking
    assert len(second.token_ids) == len(first.token_ids) + len("hm</think>")


async def test_a_turn_that_ends_in_thought(codec: TextCodec) -> None:
    """Would catch an answer that is forced out of a model which has ended its turn."""
    backbone = ScriptedBackbone(codec.encode_template("hm"))
    assert await play(codec, backbone, budget=100) == ("hm", "stop")
    assert len(backbone.prompts) == 1


async def test_no_budget_closes_at_once(codec: TextCodec) -> None:
    """Would catch a budget of 0 that asks the engine for 0 tokens."""
    backbone = ScriptedBackbone(codec.encode_template("yes"))
    text, reason = await play(codec, backbone, budget=0)
    assert text == "\n</think>\n\nyes" and reason == "stop"
    assert codec.decode(backbone.prompts[0].token_ids) == "<think>\n\n</think>\n\n"


async def test_the_limit_of_the_whole_reply_holds(codec: TextCodec) -> None:
    """Would catch thoughts that do not count as completion tokens."""
    backbone = ScriptedBackbone(codec.encode_template("hm</think>"))
    text, reason = await play(codec, backbone, budget=100, limit=10)
    assert (text, reason) == ("hm</think>", "length")
