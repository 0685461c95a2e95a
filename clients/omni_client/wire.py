"""Every request as a value, with the way to read its answer. Builds and reads, sends nothing: sync and async share it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypedDict, TypeVar, cast
from urllib.parse import unquote

from omni_client.content import recording, wire_messages
from omni_client.errors import OmniError, ResponseFormatError
from omni_client.events import Modality
from omni_client.media import OPENAI_SAMPLE_RATE, Audio, Picture
from omni_client.reply import Reply, read_reply

if TYPE_CHECKING:
    from omni_client.content import Conversation, Recording

AudioFormat = Literal["wav", "mp3", "flac", "opus", "aac"]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
ToolChoice = Literal["auto", "none", "required"] | Mapping[str, Any]
PictureFormat = Literal["png", "webp", "jpeg"]
# The server's streamed formats, as the files are called.
FILE_FORMATS = {"opus": "ogg"}

Answered = TypeVar("Answered")


class Wishes(TypedDict, total=False):
    """What may be said beside the content of `generate` and `stream`. What is left out is left to the server.

    modalities: what the reply is made of, of `text`, `image`, `audio`; words are always part of it. `("text",)` by default.
    voice: who speaks; see `voices()`. Naming one adds `audio` to the modalities.
    system: instructions before the conversation.
    model: a model's name; the first of `models()` by default.
    temperature (0 to 2), top_p, top_k, seed, presence_penalty, frequency_penalty (-2 to 2): how tokens are picked.
    stop: words before which the reply ends; up to 4.
    max_tokens: most tokens of the reply, of all modalities together.
    tools: functions that the model may ask for, as OpenAI describes them; see `ToolCalled`.
    tool_choice: `auto`, `none`, `required`, or the one tool that is to be called, as OpenAI names it.
    reasoning_effort: how much the model thinks before it answers: `none`, `minimal`, `low`, `medium`, `high`, `xhigh`.
    timeout: seconds without an answer, or between two pieces of one, until APITimeoutError.
    """

    modalities: Sequence[Modality]
    voice: str
    system: str
    model: str
    temperature: float
    top_p: float
    top_k: int
    seed: int
    presence_penalty: float
    frequency_penalty: float
    stop: str | Sequence[str]
    max_tokens: int
    tools: Sequence[Mapping[str, Any]]
    tool_choice: ToolChoice
    reasoning_effort: Effort
    timeout: float


AS_THEY_ARE = (
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "stop",
    "tools",
    "tool_choice",
    "reasoning_effort",
)


class Generation(Wishes, total=False):
    """The wishes of `generate`, which waits for the whole reply. audio_format: the file that the voice comes in, `wav` by
    default; a stream always brings plain samples, which its reply holds as a WAV."""

    audio_format: AudioFormat


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer from the server. `headers` have lower-case names."""

    content: bytes
    headers: dict[str, str]
    request_id: str


@dataclass(frozen=True, slots=True)
class Exchange(Generic[Answered]):
    """One request: a JSON body, or a form with files, each by its field; and `read`, which turns the answer into what the user
    gets. `model` goes into the body or the form; `None` is still to be looked up, empty where no model is asked."""

    method: str
    path: str
    read: Callable[[Answer], Answered]
    model: str | None = ""
    body: dict[str, Any] | None = None
    form: dict[str, str] = field(default_factory=dict)
    files: tuple[tuple[str, Audio | Picture], ...] = ()


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the server: what it takes, what it makes, who may speak, and how many tokens a conversation may have."""

    id: str
    input_modalities: tuple[str, ...] = ()
    output_modalities: tuple[str, ...] = ()
    voices: tuple[str, ...] = ()
    context_length: int | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was heard. `seconds` is the length of the recording, `language` a short name such as `en`, where told."""

    text: str
    language: str | None = None
    seconds: float | None = None
    request_id: str = ""

    def __str__(self) -> str:
        return self.text

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the words as UTF-8, with a newline at the end, and returns the path."""
        path = Path(path)
        path.write_text(self.text + "\n", encoding="utf-8")
        return path


def chat_body(conversation: Conversation, wishes: Wishes, *, streamed: bool) -> dict[str, Any]:
    """The body of `POST /v1/chat/completions`. TypeError for a wish that there is not."""
    known = (Wishes if streamed else Generation).__optional_keys__
    unknown = sorted(set(wishes) - known)
    if unknown:
        raise TypeError(
            f"`{unknown[0]}` is not known here; expected some of {', '.join(f'`{name}`' for name in sorted(known))}"
        )
    body: dict[str, Any] = {"messages": wire_messages(conversation, wishes.get("system"))}
    modalities = [*wishes.get("modalities", ("text",))]
    voice = wishes.get("voice")
    if voice is not None and "audio" not in modalities:
        modalities.append("audio")
    body["modalities"] = modalities
    if "audio" in modalities:
        format = "pcm16" if streamed else cast(Generation, wishes).get("audio_format", "wav")
        body["audio"] = {"format": format, **({"voice": voice} if voice is not None else {})}
    for name in AS_THEY_ARE:
        if wishes.get(name) is not None:
            body[name] = wishes.get(name)
    if wishes.get("max_tokens") is not None:
        body["max_completion_tokens"] = wishes["max_tokens"]
    if streamed:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


def generate_exchange(conversation: Conversation, wishes: Generation, *, model: str | None) -> Exchange[Reply]:
    body = chat_body(conversation, wishes, streamed=False)
    return Exchange("POST", "/v1/chat/completions", lambda answer: read_reply(json_of(answer), answer.request_id), model, body)


def stream_exchange(conversation: Conversation, wishes: Wishes, *, model: str | None) -> Exchange[None]:
    """Its answer is read by `stream.py`, piece by piece."""
    body = chat_body(conversation, wishes, streamed=True)
    return Exchange("POST", "/v1/chat/completions", lambda answer: None, model, body)


def speak_exchange(text: str, *, model: str | None, voice: str | None, format: AudioFormat) -> Exchange[Audio]:
    # A WAV is asked for as samples: one that streams cannot have its length in its header, and here it is known.
    body = {"input": text, "response_format": "pcm" if format == "wav" else format}
    if voice is not None:
        body["voice"] = voice

    def read(answer: Answer) -> Audio:
        told = answer.headers.get("x-omni-transcript")
        transcript = unquote(told) if told is not None else None
        if format == "wav":
            return Audio.from_pcm(answer.content, OPENAI_SAMPLE_RATE, transcript)
        return Audio(answer.content, FILE_FORMATS.get(format, format), transcript)

    return Exchange("POST", "/v1/audio/speech", read, model, body)


def transcribe_exchange(
    given: Recording, *, task: str, model: str | None, language: str | None, temperature: float | None
) -> Exchange[Transcript]:
    """`task` is `transcriptions` or `translations`."""
    form = {"response_format": "verbose_json"}
    if language is not None:
        form["language"] = language
    if temperature is not None:
        form["temperature"] = str(temperature)

    def read(answer: Answer) -> Transcript:
        body = json_of(answer)
        if not isinstance(body.get("text"), str):
            raise ResponseFormatError("the answer holds no `text`", request_id=answer.request_id, body=body)
        return Transcript(body["text"], body.get("language"), body.get("duration"), answer.request_id)

    return Exchange("POST", f"/v1/audio/{task}", read, model, form=form, files=(("file", recording(given)),))


def models_exchange() -> Exchange[tuple[Model, ...]]:
    def read(answer: Answer) -> tuple[Model, ...]:
        told = json_of(answer)
        try:
            return tuple(_model(one["id"], one.get("omni") or {}) for one in told["data"])
        except (LookupError, TypeError, AttributeError) as problem:
            message = f"the answer is no list of models: {problem!r}"
            raise ResponseFormatError(message, request_id=answer.request_id, body=told) from None

    return Exchange("GET", "/v1/models", read)


def first_of(models: tuple[Model, ...]) -> str:
    if not models:
        raise OmniError("the server has no model; expected one")
    return models[0].id


def voices_of(models: tuple[Model, ...], name: str | None) -> tuple[str, ...]:
    """Of the model `name`, or of the first one."""
    for model in models:
        if name in (None, model.id):
            return model.voices
    raise OmniError(f"the server has no model `{name}`; expected one of {', '.join(f'`{model.id}`' for model in models)}")


def _model(id: str, told: dict[str, Any]) -> Model:
    takes, makes, voices = (tuple(told.get(name, ())) for name in ("input_modalities", "output_modalities", "voices"))
    return Model(id, takes, makes, voices, told.get("context_length"))


def json_of(answer: Answer) -> Any:
    try:
        body = json.loads(answer.content)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        shown = answer.content[:60].decode("utf-8", "replace")
        message = f"the answer is not a JSON object: `{shown}`"
        raise ResponseFormatError(message, request_id=answer.request_id, body=shown)
    return body
