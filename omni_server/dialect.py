"""How a checkpoint is spoken to and how it answers: facts of omni.json, as values. Knows no template and no tokenizer.

`parts` says how a picture, a video or a recording is handed to the chat template; `durations` which word it leaves for their
length, and the form of the number there; `tags` what the model writes around things that are not its answer:

    reasoning   thoughts, shown apart              tool_call   a call of a tool, or the frame of a picture
    heard       what the user said, in words       speaker     JSON that says whose voice comes next
    wrapper     taken off; what is inside stays
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omni_server.errors import CheckpointError

TEXT = "text"
ROLES = ("reasoning", "tool_call", "heard", "speaker", "wrapper")
# How this model wants to be asked, by what is asked for; each wording holds its slot once.
PROMPT_SLOTS = {"speech": "{input}", "picture": "{prompt}", "variation": "", "transcription": "", "translation": "{input}"}


@dataclass(frozen=True, slots=True)
class Piece:
    """Of what a model writes. `role` is TEXT or one of ROLES; thoughts come in pieces, everything else that is no text comes
    whole."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class PictureCall:
    """A model that draws by calling a tool: the tool, the argument that holds the codes, and the order to call it."""

    tool: Mapping[str, Any]
    argument: str
    system: str

    @property
    def name(self) -> str:
        return str(self.tool["function"]["name"])


@dataclass(frozen=True, slots=True)
class Speaker:
    """Which voice answers to a gender (`f`, `m`) and an age; an empty word answers to any."""

    voice: str
    gender: str = ""
    age: str = ""


@dataclass(frozen=True, slots=True)
class Dialect:
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    durations: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    image_input: str = "rows"  # or "plain": the ratio and the codes, without row and frame ends
    thinking_on: Mapping[str, Any] = field(default_factory=dict)  # what the template is told
    thinking_off: Mapping[str, Any] = field(default_factory=dict)
    thinks: bool = True  # where the request does not say
    tags: Mapping[str, str] = field(default_factory=dict)
    picture: PictureCall | None = None
    speakers: tuple[Speaker, ...] = ()

    def part(self, medium: str) -> Mapping[str, Any]:
        return self.parts.get(medium) or {"type": medium}

    def tag_of(self, role: str) -> str | None:
        return next((tag for tag, its in self.tags.items() if its == role), None)

    def voice_for(self, gender: str, age: str) -> str | None:
        """The voice of a gender and an age, else of the gender alone."""
        fitting = [speaker for speaker in self.speakers if speaker.gender == gender]
        same_age = [speaker for speaker in fitting if speaker.age == age]
        return next((speaker.voice for speaker in same_age or fitting), None)


def read_dialect(facts: Mapping[str, Any]) -> Dialect:
    """Raises CheckpointError where omni.json says something that this server does not understand."""
    said = _object(facts, "dialect")
    speakers = _object(facts, "audio").get("speakers", [])
    thinking = _object(said, "thinking")
    tags = _object(said, "tags")
    wrong = [tag for tag, role in tags.items() if role not in ROLES]
    if wrong:
        raise CheckpointError(f"omni.json: `dialect.tags.{wrong[0]}` is `{tags[wrong[0]]}`; expected one of {', '.join(ROLES)}")
    image_input = said.get("image_input", "rows")
    if image_input not in ("rows", "plain"):
        raise CheckpointError(f"omni.json: `dialect.image_input` is `{image_input}`; expected `rows` or `plain`")
    picture = _object(said, "picture")
    try:
        return Dialect(
            parts=_object(said, "parts"),
            durations={medium: (str(word), str(form)) for medium, (word, form) in _object(said, "durations").items()},
            image_input=image_input,
            thinking_on=_object(thinking, "on"),
            thinking_off=_object(thinking, "off"),
            thinks=thinking.get("default", "on") == "on",
            tags=tags,
            picture=PictureCall(picture["tool"], picture["argument"], picture["system"]) if picture else None,
            speakers=tuple(Speaker(**speaker) for speaker in speakers),
        )
    except (KeyError, TypeError, ValueError) as problem:
        raise CheckpointError(f"omni.json: `dialect` or `audio.speakers` is malformed: {problem!r}") from None


def read_prompts(facts: Mapping[str, Any]) -> Mapping[str, Mapping[str, str]]:
    """What is asked for -> language -> wording."""
    prompts = facts.get("prompts", {})
    if not isinstance(prompts, dict):
        raise CheckpointError(f"omni.json: `prompts` is `{prompts!r}`; expected a dict")
    for name, wordings in prompts.items():
        if name not in PROMPT_SLOTS:
            raise CheckpointError(f"omni.json: unknown prompt `{name}`; expected one of {', '.join(PROMPT_SLOTS)}")
        if not isinstance(wordings, dict) or not wordings:
            raise CheckpointError(f"omni.json: `prompts.{name}` is `{wordings!r}`; expected a wording for each language")
        slot = PROMPT_SLOTS[name]
        for language, wording in wordings.items():
            text = wording if isinstance(wording, str) else ""
            if not text.strip() or (slot and text.count(slot) != 1) or set("{}") & set(text.replace(slot, "")):
                with_slot = f"with `{slot}` once and no other braces" if slot else "without braces"
                raise CheckpointError(f"omni.json: `prompts.{name}.{language}` is `{wording!r}`; expected words {with_slot}")
    return prompts


def _object(facts: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = facts.get(name, {})
    if not isinstance(value, dict):
        raise CheckpointError(f"omni.json: `{name}` is `{value!r}`; expected an object")
    return value
