"""vllm_parsers.py on vLLM's own parsers, nothing stands in for them: what they tell must not depend on where a reply is cut."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from omni_server.aside import Aside
from omni_server.dialect import Dialect
from omni_server.errors import ConfigError
from omni_server.text import TextCodec
from omni_server.types import Calling, Event, Message, Prompt, ReasoningDelta, Request, TextPart, ToolCalled
from omni_server.vllm_parsers import VllmParsers
from tests.test_call_grammar import BOOK, LEAVE, check_booking, compiled, walk

TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
DIALECT = Dialect(tags={"think": "reasoning", "tool_call": "tool_call"})
TOOL = {
    "type": "function",
    "function": {
        "name": "find",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}, "n": {"type": "integer"}}},
    },
}
CALLS = [ToolCalled(0, "find", '{"place": "서울", "n": 3}'), ToolCalled(1, "find", '{"place": "5"}')]
AS_JSON = (
    'Well.\n<tool_call>\n{"name": "find", "arguments": {"place": "서울", "n": 3}}\n</tool_call>\n'
    '<tool_call>\n{"name": "find", "arguments": {"place": "5"}}\n</tool_call>'
)
KEYED = (
    "Well.\n<tool_call>find\n<arg_key>place</arg_key>\n<arg_value>서울</arg_value>\n<arg_key>n</arg_key>\n<arg_value>3"
    "</arg_value>\n</tool_call>\n<tool_call>find\n<arg_key>place</arg_key>\n<arg_value>5</arg_value>\n</tool_call>"
)
THOUGHT = "so a < b\n</think>\n\n"
CUTS = (1, 2, 3, 7, 1000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    root = Path(tmp_path_factory.mktemp("letters"))
    tokenizer.save(str(root / "tokenizer.json"))
    (root / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}', encoding="utf-8")
    (root / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    return root


def told(
    folder: Path, calls: str | None, thoughts: str | None, text: str, cut: int, opened: str = "", stop: tuple[str, ...] = ()
) -> tuple[str, str, list[ToolCalled]]:
    """Words, thoughts and calls, of a reply that comes in pieces of `cut` tokens after a prompt that ends in `opened`."""
    codec = TextCodec(folder / "tokenizer.json")
    parsers = VllmParsers(folder, codec, calls, thoughts)
    asked = Request("r", (Message("user", (TextPart("x"),)),), tools=(TOOL,))
    prompt = Prompt(tuple(codec.encode_template("hi" + opened)), thinking=opened == "<think>\n")
    reader = parsers.open(asked, prompt, DIALECT)
    aside = Aside(DIALECT, None, thinking=prompt.thinking, reader=reader, tools=asked.tools)
    decoder, ids = codec.open(stop), codec.encode_template(text)
    events: list[str | Event] = []
    for at in range(0, len(ids), cut):
        piece = ids[at : at + cut]
        events += aside.feed("".join(decoder.feed(piece)), piece)
    events += [*aside.feed("".join(decoder.finish())), *aside.finish()]
    words = "".join(event for event in events if isinstance(event, str))
    thought = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    return words, thought, [event for event in events if isinstance(event, ToolCalled)]


@pytest.mark.parametrize(("name", "text"), [("hermes", AS_JSON), ("glm45", KEYED)])
def test_calls_at_any_cut(folder: Path, name: str, text: str) -> None:
    """Would catch arguments that are lost between two chunks, markup that reaches the user, and a stop string, which holds
    letters back, that parts a tag from its id."""
    for stop in ((), ("never written",)):
        for cut in CUTS:
            words, thought, calls = told(folder, name, None, text, cut, stop=stop)
            assert (words.strip(), thought, calls) == ("Well.", "", CALLS)


@pytest.mark.parametrize("name", ["qwen3", "glm45"])
@pytest.mark.parametrize("opened", ["<think>\n", "<think>\n\n</think>\n\n"])
def test_thoughts_at_any_cut(folder: Path, name: str, opened: str) -> None:
    """Would catch thoughts that are shown as the answer, in a prompt that has opened them or closed them."""
    thinks = opened == "<think>\n"
    for cut in CUTS:
        words, thought, calls = told(folder, "glm45", name, (THOUGHT if thinks else "") + KEYED, cut, opened)
        assert (words.strip(), thought.strip(), calls) == ("Well.", "so a < b" if thinks else "", CALLS)


def test_what_they_do_worse(folder: Path) -> None:
    """Would catch a newer vLLM that mends what docs/rest.md says against its parsers, for then ours need not be the default."""
    assert told(folder, "hermes", None, AS_JSON + "\nbye", 1)[0] == "Well.\n"  # words behind a call are lost
    assert told(folder, "hermes", None, "a <tool", 1)[0] == "a "
    leaks = {told(folder, None, "deepseek_r1", "<think>\nso\n</think>\n\nyes", cut)[1] for cut in CUTS}
    assert leaks == {"\nso\n", "<think>\nso\n"}  # where the tag comes together with more
    ours = Aside(DIALECT, None, thinking=False)
    assert ours.feed(AS_JSON + "\nbye <tool") + ours.finish() == ["Well.\n", *CALLS, "bye ", "<tool"]


@pytest.mark.parametrize("name", ["hermes", "glm45"])
def test_calls_that_must_be_made(folder: Path, name: str) -> None:
    """Would catch a grammar of vLLM's that its own parser cannot read, or that lets an argument out of its schema."""
    codec = TextCodec(folder / "tokenizer.json")
    tools = tuple({"type": "function", "function": {"name": n, "parameters": s}} for n, s in (("book", BOOK), ("leave", LEAVE)))
    for calling in (Calling(required=True, several=False), Calling(required=True, named="book", several=False)):
        asked = Request("r", (), tools=tools, calling=calling)
        parsers = VllmParsers(folder, codec, name, None)
        held = parsers.grammar(asked)
        assert held is not None
        grammar, chooser = compiled(json.loads(held["structural_tag"])), random.Random(5)
        for _ in range(10):
            text = walk(grammar, chooser)
            reader = parsers.open(asked, Prompt((1,)), DIALECT)
            aside = Aside(DIALECT, None, thinking=False, reader=reader, tools=tools, several=False)
            (call,) = aside.feed(text, codec.encode_template(text)) + aside.finish()
            assert isinstance(call, ToolCalled)
            arguments = json.loads(call.arguments)
            if call.name == "book":
                check_booking(arguments)
            else:
                assert (call.name, arguments, calling.named) == ("leave", {}, None)


def test_grammars_are_vllms(folder: Path) -> None:
    """Would catch a call that must be made and is free, or held to another form than the parser reads."""
    parsers = VllmParsers(folder, TextCodec(folder / "tokenizer.json"), "hermes", None)
    asked = Request("r", (), tools=(TOOL,), calling=Calling(required=True))
    grammar = parsers.grammar(asked)
    assert grammar is not None and "<tool_call>" in grammar["structural_tag"]
    free = VllmParsers(folder, TextCodec(folder / "tokenizer.json"), "xlam", None).grammar(asked)
    assert free is not None and free["json"]["type"] == "array"


def test_a_name_that_vllm_does_not_have(folder: Path) -> None:
    """Would catch a parser that is missing at the first request, and not at the start."""
    codec = TextCodec(folder / "tokenizer.json")
    with pytest.raises(ConfigError, match=r"--tool-call-parser is `hyperclovax`; expected one of vLLM's: .*hermes"):
        VllmParsers(folder, codec, "hyperclovax", None)
    with pytest.raises(ConfigError, match="--reasoning-parser is `exaone`"):
        VllmParsers(folder, codec, None, "exaone")
