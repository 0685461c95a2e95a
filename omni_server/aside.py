"""Step 7, text. What a model writes beside its answer becomes events, and the choice of a voice. Sync; knows no queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from omni_server.cloned_voices import own_voice
from omni_server.dialect import TEXT, Dialect
from omni_server.interfaces import TextReader
from omni_server.markup import Markup, read_speaker, read_tool_call
from omni_server.types import DecodeOptions, Event, Heard, ReasoningDelta, Speech, ToolCalled


class Aside:
    """Of one reply. `feed` gives the answer's own text as strings, and everything else as events."""

    def __init__(
        self,
        dialect: Dialect,
        heard: Speech | None,
        *,
        thinking: bool,
        reader: TextReader | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        several: bool = True,
    ) -> None:
        """`reader`: in place of our own. `tools`: those that may be called, `several` or one."""
        self._dialect = dialect
        self._heard = heard
        self._reader = reader or Markup(dialect.tags, dialect.tag_of("reasoning") if thinking else None)
        self._tools = tools
        self._several = several
        self._speaker: dict[str, Any] = {}
        self.calls = 0

    @property
    def called_enough(self) -> bool:
        """What comes behind the only call is not told."""
        return self.calls > 0 and not self._several

    @property
    def in_thought(self) -> bool:
        return self._reader.in_thought

    def feed(self, item: str, ids: Sequence[int] = ()) -> list[str | Event]:
        return [event for piece in self._reader.feed(item, ids) for event in self._event(piece.role, piece.text)]

    def finish(self) -> list[str | Event]:
        return [event for piece in self._reader.finish() for event in self._event(piece.role, piece.text)]

    def with_voice(self, options: DecodeOptions) -> DecodeOptions:
        """A voice that the request names wins; else the one that the model has announced, where there is such a one. Raises
        MediaError where that is the voice of a recording that is too short or silent."""
        if options.voice is not None or options.reference is not None:
            return options
        if self._speaker.get("is_ref_audio") is True and self._heard is not None:
            return replace(options, reference=own_voice(self._heard, "messages"))
        gender, age = (str(self._speaker.get(name, "")) for name in ("gender", "age"))
        return replace(options, voice=self._dialect.voice_for(gender, age) if gender else None)

    def _event(self, role: str, text: str) -> list[str | Event]:
        if self.called_enough:
            return []
        match role:
            case "reasoning":
                return [ReasoningDelta(text)]
            case "heard":
                return [Heard(text)]
            case "speaker":
                self._speaker = read_speaker(text) or {}
                return []
            case "tool_call":
                return self._call(text)
        assert role == TEXT
        return [text]

    def _call(self, text: str) -> list[str | Event]:
        call = read_tool_call(text, self._tools)
        if call is None:
            return [text]  # no call that anybody could make, so it is what the model wrote
        picture = self._dialect.picture
        if picture is not None and call[0] == picture.name:
            return []  # the picture itself is a span of its own
        self.calls += 1
        return [ToolCalled(self.calls - 1, *call)]
