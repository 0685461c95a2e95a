"""Step 4. A conversation as the text of the checkpoint's own chat template, with a user's words kept apart from the template's.

What a template takes is found out by asking it: some take a list of parts in a role, some only a string.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox

from omni_server.call_grammar import PROBES, CallForm, read_call_form
from omni_server.dialect import Dialect
from omni_server.errors import CheckpointError, RequestError
from omni_server.types import AudioPart, ImagePart, Message, TextPart, VideoPart

PROBE = "a-word-that-nobody-writes"


class ChatTemplate:
    """`picture` is the discrete block of a picture, in the template's own tokens, where the checkpoint has one."""

    def __init__(self, folder: Path, dialect: Dialect, picture: str | None) -> None:
        self._template = _read_template(folder)
        self._tokens = _named_tokens(folder)
        self._dialect = dialect
        self._picture = picture
        self._takes_parts = frozenset(role for role in ("system", "user", "assistant", "tool") if self._shows_parts(role))

    def render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], thinks: bool) -> list[str]:
        """Template and user text by turns: t u t u t. Raises RequestError where the template refuses the conversation."""
        fence = Fence()
        turns = [self._turn(message, fence) for message in messages]
        switches = self._dialect.thinking_on if thinks else self._dialect.thinking_off
        try:
            rendered = self._render(messages=turns, tools=list(tools) or None, add_generation_prompt=True, **switches)
        except (jinja2.TemplateError, TypeError) as error:
            raise RequestError(f"the chat template refuses this conversation: {error}", param="messages") from error
        return fence.cut(rendered)

    def call_form(self) -> CallForm | None:
        """How the template writes calls, found out by letting it write some."""
        tag = self._dialect.tag_of("tool_call")
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": PROBES}]
        try:
            return read_call_form(self._render(messages=turns), tag) if tag is not None else None
        except (jinja2.TemplateError, TypeError):
            return None

    def _render(self, **variables: Any) -> str:
        return self._template.render(**self._tokens, **variables)

    def _shows_parts(self, role: str) -> bool:
        """Whether a list of parts is shown as its text, and not as a printed list, or not at all."""
        before = [] if role in ("system", "user") else [{"role": "user", "content": "x"}]
        turns = [*before, {"role": role, "content": [{"type": "text", "text": PROBE}]}]
        if role == "system":
            turns.append({"role": "user", "content": "x"})
        try:
            shown = self._render(messages=turns, add_generation_prompt=True)
        except (jinja2.TemplateError, TypeError):
            return False
        return PROBE in shown and f"'{PROBE}'" not in shown and f'"{PROBE}"' not in shown

    def _turn(self, message: Message, fence: Fence) -> dict[str, Any]:
        turn: dict[str, Any] = {"role": message.role}
        only_text = all(isinstance(part, TextPart) for part in message.parts)
        drawn = message.role == "assistant" and self._dialect.picture is not None
        if message.role in self._takes_parts and not drawn:
            turn["content"] = [self._part(part, fence) for part in message.parts]
        elif only_text or drawn:
            turn["content"] = "".join(fence.around(part.text) for part in message.parts if isinstance(part, TextPart))
        else:
            raise RequestError(f"this model takes no media in a message of role `{message.role}`", param="messages")
        if message.reasoning is not None:
            turn["reasoning_content"] = fence.around(message.reasoning)
        calls = [{"name": call.name, "arguments": _fenced(call.arguments, fence)} for call in message.tool_calls]
        if drawn:
            calls += [self._picture_call() for part in message.parts if isinstance(part, ImagePart)]
        if calls:
            turn["tool_calls"] = [{"type": "function", "function": call} for call in calls]
        if message.tool is not None:
            turn["name"] = message.tool
        return turn

    def _part(self, part: object, fence: Fence) -> Mapping[str, Any]:
        match part:
            case TextPart(text):
                return {"type": "text", "text": fence.around(text)}
            case ImagePart():
                return self._dialect.part("image")
            case VideoPart():
                return self._dialect.part("video")
            case AudioPart():
                return self._dialect.part("audio")
        raise TypeError(f"unknown part `{part!r}`")

    def _picture_call(self) -> dict[str, Any]:
        """A picture that the model drew, as it wrote it: the codes stand in the call's argument."""
        call = self._dialect.picture
        assert call is not None and self._picture is not None  # asked only where both are there
        return {"name": call.name, "arguments": {call.argument: self._picture}}


class Fence:
    """Marks a user's words by a number that nobody can guess, so that they can be told from the template's afterwards."""

    def __init__(self) -> None:
        self._mark = secrets.token_hex(8)
        self._texts: list[str] = []

    def around(self, text: str) -> str:
        self._texts.append(text)
        return f"{self._mark}{len(self._texts) - 1}{self._mark}"

    def cut(self, rendered: str) -> list[str]:
        pieces = rendered.split(self._mark)
        return [self._texts[int(piece)] if number % 2 else piece for number, piece in enumerate(pieces)]


def _fenced(value: Any, fence: Fence) -> Any:
    """Strings inside of arguments are a user's words too."""
    if isinstance(value, str):
        return fence.around(value)
    if isinstance(value, Mapping):
        return {name: _fenced(inner, fence) for name, inner in value.items()}
    return [_fenced(inner, fence) for inner in value] if isinstance(value, list) else value


def _read_template(folder: Path) -> jinja2.Template:
    path = folder / "chat_template.jinja"
    if path.is_file():
        source: Any = path.read_text(encoding="utf-8")
    else:
        source = _tokenizer_config(folder).get("chat_template")
    if not isinstance(source, str):
        raise CheckpointError(f"`{path}` is missing, and tokenizer_config.json has none; expected the backbone's chat template")
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    environment.filters["tojson"] = _to_json
    return environment.from_string(source)


def _to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    """As Hugging Face renders templates: letters stay letters, and nothing is escaped for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _named_tokens(folder: Path) -> dict[str, str]:
    """Templates may name the tokenizer's special tokens, such as `bos_token`."""
    config = _tokenizer_config(folder)
    values = {name: config.get(name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    return {
        name: str(value.get("content") if isinstance(value, dict) else value)
        for name, value in values.items()
        if value is not None
    }


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
