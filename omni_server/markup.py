"""Step 7, text. What a model writes around its answer (thoughts, tool calls, whose voice comes next) is told apart from it.

Incremental over text; knows tags by the checkpoint's dialect, no token ids and no wire.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from omni_server.dialect import TEXT, Piece
from omni_server.plain_json import parsed

_ARGUMENT = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)(?:</arg_value>|$)", re.DOTALL)


class Markup:
    """`inside` is the tag that the prompt has left open, where it has."""

    def __init__(self, tags: Mapping[str, str], inside: str | None = None) -> None:
        self._tags = {tag: role for tag, role in tags.items() if role != "wrapper"}
        self._wrappers = [tag for tag, role in tags.items() if role == "wrapper"]
        self._inside = inside
        self._held = ""
        self._whole = ""  # what was read so far of a tag that comes whole
        self._trims = inside is not None  # line breaks beside a tag belong to it
        self._line_start = True
        self._reads_bare_speaker = "speaker" in tags.values()

    @property
    def in_thought(self) -> bool:
        return self._inside is not None and self._tags[self._inside] == "reasoning"

    def feed(self, item: str, ids: Sequence[int] = ()) -> list[Piece]:
        """Tags are found by their letters, so the `ids` say nothing new."""
        self._held += item
        pieces: list[Piece] = []
        while self._step(pieces, ended=False):
            pass
        return [piece for piece in pieces if piece.text]

    def finish(self) -> list[Piece]:
        """Nothing more comes before the next medium, or at all: what was held back is taken as it stands."""
        pieces: list[Piece] = []
        while self._step(pieces, ended=True):
            pass
        return [piece for piece in pieces if piece.text]

    def _step(self, pieces: list[Piece], *, ended: bool) -> bool:
        """Takes what stands before the next tag, and the tag; False where no whole tag is left."""
        marks = self._marks()
        found = min(((at, mark) for mark in marks if (at := self._held.find(mark)) >= 0), default=None)
        if found is None:
            keep = 0 if ended else _unfinished(self._held, marks)
            if self.in_thought and not ended:  # line breaks before the closing tag belong to the tag
                kept = len(self._held) - keep
                keep += kept - len(self._held[:kept].rstrip("\n"))
            ready, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
            self._take(ready, pieces, ended=ended)
            return False
        at, mark = found
        before = self._held[:at]
        self._take(before.rstrip("\n") if self.in_thought else before, pieces, ended=True)
        self._held = self._held[at + len(mark) :]
        self._turn(mark, pieces)
        return True

    def _marks(self) -> list[str]:
        if self._inside is not None:
            return [f"</{self._inside}>"]
        names = [*self._tags, *self._wrappers]
        return [*(f"<{name}>" for name in names), *(f"</{name}>" for name in names)]

    def _turn(self, mark: str, pieces: list[Piece]) -> None:
        name, closes = mark.strip("</>"), mark.startswith("</")
        self._trims = True
        if name not in self._tags:
            return
        if not closes:
            self._inside = name
        elif self._inside is not None:
            role, self._inside = self._tags[name], None
            if role != "reasoning":
                pieces.append(Piece(role, self._whole.strip()))
            self._whole = ""

    def _take(self, text: str, pieces: list[Piece], *, ended: bool) -> None:
        if self._inside is not None and not self.in_thought:
            self._whole += text
            return
        if self._trims:
            text = text.lstrip("\n")
            self._trims = not text
        if self.in_thought or not self._reads_bare_speaker:
            pieces.append(Piece("reasoning" if self.in_thought else TEXT, text))
        else:
            self._take_lines(text, pieces, ended=ended)

    def _take_lines(self, text: str, pieces: list[Piece], *, ended: bool) -> None:
        """An older form of answer has the speaker's JSON on a line of its own: such a line is held until it is whole."""
        lines = text.splitlines(keepends=True)
        for number, line in enumerate(lines):
            begins = self._line_start or number > 0
            whole = line.endswith("\n") or ended
            if begins and line.startswith("{") and not whole:
                self._held = line + self._held
                return
            bare = begins and line.startswith("{") and read_speaker(line) is not None
            pieces.append(Piece("speaker" if bare else TEXT, line.strip() if bare else line))
            self._line_start = line.endswith("\n")


def _unfinished(text: str, marks: list[str]) -> int:
    """How many letters at the end may yet become a tag."""
    longest = max((len(mark) for mark in marks), default=1) - 1
    return next((n for n in range(min(longest, len(text)), 0, -1) if any(m.startswith(text[-n:]) for m in marks)), 0)


SPEAKER_KEYS = {"is_ref_audio", "gender", "age", "speaker", "emotion"}


def read_speaker(text: str) -> dict[str, Any] | None:
    """What a model says about the voice that follows; None where it says something else. Unknown keys are let pass."""
    try:
        said = parsed(text)
    except ValueError:
        return None
    return said if isinstance(said, dict) and (not said or SPEAKER_KEYS & set(said)) else None


def read_tool_call(text: str, tools: Sequence[Mapping[str, Any]] = ()) -> tuple[str, str] | None:
    """A call's name and its arguments as JSON text, from either written form: a JSON object, or a name and key by key."""
    try:
        said = parsed(text)
        if isinstance(said, dict) and isinstance(said.get("name"), str):
            arguments = said.get("arguments", {})
            written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            return said["name"], _trimmed(written, _schemas(said["name"], tools))
    except ValueError:
        pass
    name = text.partition("<arg_key>")[0].strip()
    if not name or "\n" in name:
        return None
    schemas = _schemas(name, tools)
    arguments = {key.strip(): _value(value, schemas.get(key.strip())) for key, value in _ARGUMENT.findall(text)}
    return name, json.dumps(arguments, ensure_ascii=False)


def _trimmed(text: str, schemas: Mapping[str, Any]) -> str:
    """Of a few words that are allowed, white space around them is no part. What is no JSON stays as the model wrote it."""
    try:
        arguments = parsed(text)
    except ValueError:
        return text
    if not isinstance(arguments, dict):
        return text
    words = {key: value.strip() for key, value in arguments.items() if isinstance(value, str)}
    changed = {key: word for key, word in words.items() if word != arguments[key] and word in _few(schemas.get(key))}
    return json.dumps(arguments | changed, ensure_ascii=False) if changed else text


def _schemas(name: str, tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of the arguments of a tool, by their names."""
    schema = next((tool["function"].get("parameters") for tool in tools if tool["function"]["name"] == name), None) or {}
    properties = schema.get("properties")
    return properties if isinstance(properties, dict) else {}


def _value(text: str, schema: Any) -> Any:
    """Strings stand verbatim, other values as JSON; where both can be read, the schema says which it is. Of a few words that
    are allowed, white space around them is no part."""
    if text.strip() in _few(schema):
        return text.strip()
    try:
        value = parsed(text)
    except ValueError:
        return text
    return value if _fits(value, schema) else text


_KINDS: Mapping[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int, float), "number": (int, float), "object": (dict,), "array": (list,), "boolean": (bool,),
    "null": (type(None),),
}  # fmt: skip


def _few(schema: Any) -> list[Any]:
    """The values that are allowed, where they are named one by one. A schema may be nonsense: it is the client's."""
    if not isinstance(schema, dict):
        return []
    named = schema.get("enum")
    return named if isinstance(named, list) else [schema["const"]] if "const" in schema else []


def _fits(value: Any, schema: Any) -> bool:
    """Only as far as a string must be told from another value."""
    if not isinstance(schema, dict):
        return True
    if few := _few(schema):
        return value in few
    choices = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(choices, list) and choices:
        return any(_fits(value, choice) for choice in choices)
    kinds = schema.get("type")
    if not isinstance(kinds, str | list):
        return True
    if isinstance(value, str):  # quoted: no model writes a string so that is to stand verbatim
        return False
    named = [kinds] if isinstance(kinds, str) else kinds
    return any(type(value) in _KINDS.get(kind, ()) for kind in named if isinstance(kind, str))
