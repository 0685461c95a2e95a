"""Step 7, text. vLLM's own parsers of thoughts and calls, under vLLM's own names, where a deployment asks for them.

They stand in the place of markup.py's reading of those two; what else a model writes beside its answer is still read there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.exceptions import VLLMClientError
from vllm.parser.parser_manager import ParserManager
from vllm.reasoning import ReasoningParserManager
from vllm.tokenizers import cached_get_tokenizer
from vllm.tool_parsers import ToolParserManager

from omni_server.dialect import Dialect, Piece
from omni_server.errors import ConfigError, RequestError
from omni_server.markup import Markup
from omni_server.text import TextCodec
from omni_server.types import Calling, Prompt, Request

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class VllmParsers:
    """Of one deployment; `open` gives the reader of one reply."""

    def __init__(self, folder: Path, codec: TextCodec, tool_parser: str | None, reasoning_parser: str | None) -> None:
        """Raises ConfigError for a name that vLLM does not have, and for a tokenizer that the parser cannot read."""
        _check("--tool-call-parser", tool_parser, ToolParserManager.list_registered())
        _check("--reasoning-parser", reasoning_parser, ReasoningParserManager.list_registered())
        self.reads_calls = tool_parser is not None
        self._reads_thoughts = reasoning_parser is not None
        self._codec = codec
        self._tokenizer = cached_get_tokenizer(str(folder))
        try:
            self._kind: Any = ParserManager.get_parser(
                tool_parser, reasoning_parser, enable_auto_tools=True, tokenizer=self._tokenizer
            )
        except TypeError as problem:
            raise ConfigError(f"the backbone's folder is `{folder}`; {problem}") from None

    def grammar(self, request: Request) -> Mapping[str, Any] | None:
        """What vLLM constrains a reply to that must be a call, in its own words; None where it leaves the model free."""
        asked = _asked(request)
        self._opened(asked, thinking=False).adjust_request(asked)
        wanted = asked.structured_outputs
        if wanted is None:
            return None
        return {"structural_tag": wanted.structural_tag} if wanted.structural_tag is not None else {"json": wanted.json}

    def open(self, request: Request, prompt: Prompt, dialect: Dialect) -> VllmReader:
        taken = {"tool_call": self.reads_calls, "reasoning": self._reads_thoughts}
        tags = {tag: role for tag, role in dialect.tags.items() if not taken.get(role)}
        thought = dialect.tag_of("reasoning") if prompt.thinking and not self._reads_thoughts else None
        asked = _asked(request)
        parser = self._opened(asked, thinking=prompt.thinking)
        return VllmReader(parser, asked, prompt, self._codec, Markup(tags, thought), thinks=self._reads_thoughts)

    def _opened(self, asked: ChatCompletionRequest, *, thinking: bool) -> Any:
        switches = {"thinking": thinking, "enable_thinking": thinking}
        return self._kind(self._tokenizer, asked.tools, chat_template_kwargs=switches)


class VllmReader:
    """Incremental over text and the ids that it is made of: vLLM's deltas become pieces, calls come whole."""

    def __init__(
        self, parser: Any, asked: ChatCompletionRequest, prompt: Prompt, codec: TextCodec, rest: Markup, *, thinks: bool
    ) -> None:
        self._parser = parser
        self._asked = asked
        self._prompt: list[int] | None = list(prompt.token_ids)
        self._codec = codec
        self._rest = rest
        self._ids: list[int] = []  # whose text has not come yet
        self._text = ""  # that is not parsed yet
        self._calls: dict[int, list[str]] = {}  # name and arguments, so far
        self._thinks = thinks
        self._in_thought = thinks and prompt.thinking

    @property
    def in_thought(self) -> bool:
        return self._in_thought or self._rest.in_thought

    def feed(self, item: str, ids: Sequence[int] = ()) -> list[Piece]:
        self._text += item
        self._ids += ids
        text, taken = self._whole_tokens()
        return self._parsed(text, taken, finished=False) if text else []

    def finish(self) -> list[Piece]:
        text, ids = self._text, self._ids
        self._text, self._ids = "", []
        pieces = [*self._parsed(text, ids, finished=True), *self._called()]
        return [*pieces, *self._rest.finish()]

    def _whole_tokens(self) -> tuple[str, list[int]]:
        """As much text as is made of whole tokens, and those: parsers find a tag by its id and cut the text beside it."""
        for count in range(len(self._ids), 0, -1):
            made = self._codec.decode(self._ids[:count])
            if not made.endswith(_UNFINISHED) and self._text.startswith(made):
                taken, self._ids = self._ids[:count], self._ids[count:]
                self._text = self._text[len(made) :]
                return made, taken
        return "", []

    def _parsed(self, text: str, ids: list[int], *, finished: bool) -> list[Piece]:
        prompt, self._prompt = self._prompt, None
        delta = self._parser.parse_delta(text, ids, self._asked, prompt, finished=finished)
        if delta is None:
            return []
        pieces: list[Piece] = []
        if delta.reasoning:
            self._in_thought = self._thinks
            pieces.append(Piece("reasoning", delta.reasoning))
        if delta.content:
            pieces += [*self._called(), *self._rest.feed(delta.content)]
        if delta.content or delta.tool_calls:
            self._in_thought = False
        for part in delta.tool_calls or ():
            if part.index not in self._calls:
                pieces += self._called()
                self._calls[part.index] = ["", ""]
            if part.function is not None:
                self._calls[part.index][0] += part.function.name or ""
                self._calls[part.index][1] += part.function.arguments or ""
        return [piece for piece in pieces if piece.text]

    def _called(self) -> list[Piece]:
        """The calls that are whole; one whose arguments were cut off is none."""
        calls = [(name, arguments or "{}") for name, arguments in self._calls.values()]
        whole = [Piece("tool_call", json.dumps({"name": name, "arguments": told})) for name, told in calls if _is_json(told)]
        self._calls = {}
        return whole


def _check(flag: str, name: str | None, known: Sequence[str]) -> None:
    if name is not None and name not in known:
        raise ConfigError(f"{flag} is `{name}`; expected one of vLLM's: {', '.join(sorted(known))}", param=flag)


def _asked(request: Request) -> ChatCompletionRequest:
    """The request in vLLM's words, as far as its parsers look at it."""
    calling = request.calling
    try:
        return ChatCompletionRequest(
            model="",
            messages=[{"role": "user", "content": ""}],
            tools=[_tool(tool, strict=calling.required) for tool in request.tools] or None,
            tool_choice=_choice(calling) if request.tools else "none",
            parallel_tool_calls=calling.several,
        )
    except (ValueError, VLLMClientError) as problem:
        raise RequestError(f"vLLM's parser cannot take these `tools`: {problem}", param="tools") from None


def _tool(tool: Mapping[str, Any], *, strict: bool) -> dict[str, Any]:
    """A call that must be made follows its schema; else some of vLLM's grammars hold only the names of arguments."""
    return {**tool, "function": {**tool["function"], **({"strict": True} if strict else {})}}


def _choice(calling: Calling) -> Any:
    if calling.named is not None:
        return {"type": "function", "function": {"name": calling.named}}
    return "required" if calling.required else "auto"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
