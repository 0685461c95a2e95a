"""Step 1. What a chat body means: OpenAI's shape becomes a `types.Request`, or an error that names the field."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from omni_server.arguments import read_arguments
from omni_server.door import Door
from omni_server.errors import RequestError
from omni_server.rest.chat_wire import (
    Audio,
    AudioOut,
    ChatMessage,
    ChatRequest,
    Image,
    LinkedAudio,
    LinkedVideo,
    Refusal,
    Text,
    VoiceId,
    form_of,
)
from omni_server.rest.sampled import sampling
from omni_server.rest.tool_choice import chosen
from omni_server.types import (
    AudioPart,
    DecodeOptions,
    ImagePart,
    MediaSource,
    Message,
    Modality,
    Part,
    Request,
    TextPart,
    Thinking,
    ToolCall,
    VideoPart,
)
from omni_server.wording import shown


def chat_request(chat: ChatRequest, request_id: str, door: Door) -> Request:
    messages = tuple(_message(message, f"messages[{place}]", door) for place, message in enumerate(chat.messages))
    offered = [tool.model_dump(exclude_none=True) for tool in chat.tools or ()]
    tools, calling = chosen(chat.tool_choice, offered, chat.parallel_tool_calls)
    if chat.top_logprobs is not None and not chat.logprobs:
        raise RequestError(f"`top_logprobs` is `{chat.top_logprobs}`; expected `logprobs` true with it", param="top_logprobs")
    return Request(
        request_id=request_id,
        messages=messages,
        modalities=_modalities(chat),
        sampling=sampling(
            chat, door, _max_tokens(chat), (chat.top_logprobs or 0) if chat.logprobs else None, form_of(chat.response_format)
        ),
        tools=tools,
        calling=calling,
        thinking=Thinking(_thinks(chat), chat.thinking_token_budget),
        decode=DecodeOptions(voice=voice_of(chat.audio, chat.modalities), seed=chat.seed),
    )


def _modalities(chat: ChatRequest) -> frozenset[Modality]:
    """Words are always part of an answer: they are the transcript of the voice and the frame of a picture. Whether the
    checkpoint has the modality, and the voice, is for the pipeline to say: it is the same at every door."""
    wanted = frozenset(Modality(name) for name in chat.modalities or ()) | {Modality.TEXT}
    if Modality.AUDIO in wanted and chat.audio is None:
        raise RequestError(
            '`audio` is missing; `modalities` asks for audio, which needs `audio` such as `{"format": "wav"}`',
            param="audio",
        )
    return wanted


def _thinks(chat: ChatRequest) -> bool | None:
    """Three ways in which clients ask for thoughts, or for none; the one that names the template's switch wins."""
    switches = chat.chat_template_kwargs
    if switches is not None:
        if switches.skip_reasoning is not None:
            return not switches.skip_reasoning
        return switches.enable_thinking if switches.enable_thinking is not None else switches.thinking
    return None if chat.reasoning_effort is None else chat.reasoning_effort != "none"


def _max_tokens(chat: ChatRequest) -> int | None:
    """-1 is how several clients spell `no limit`."""
    name = "max_completion_tokens" if chat.max_completion_tokens is not None else "max_tokens"
    limit: int | None = getattr(chat, name)
    if limit == 0:
        raise RequestError(f"`{name}` is `0`; expected at least 1", param=name)
    return None if limit == -1 else limit


def voice_of(audio: AudioOut | None, modalities: Sequence[str] | None) -> str | None:
    if audio is None or Modality.AUDIO not in (modalities or ()):
        return None
    voice = audio.voice
    return voice.id if isinstance(voice, VoiceId) else voice


def _message(message: ChatMessage, param: str, door: Door) -> Message:
    parts = tuple(_parts(message, param, door))
    if not parts and not message.tool_calls:
        raise RequestError(f"`{param}.content` is missing or empty; expected a string or a list of parts", param=param)
    if message.role == "assistant":
        return Message("assistant", parts, message.reasoning_content, tuple(_calls(message, param)))
    if message.role == "user":
        return Message("user", parts)
    if not all(isinstance(part, TextPart) for part in parts):
        raise RequestError(
            f"`{param}.content` holds media; a `{message.role}` message takes text only", param=f"{param}.content"
        )
    if message.role == "tool":
        return Message("tool", parts, tool=message.name or message.tool_call_id)
    return Message("system", parts)


def _calls(message: ChatMessage, param: str) -> Iterator[ToolCall]:
    for place, call in enumerate(message.tool_calls or ()):
        function = call.function
        yield ToolCall(function.name, read_arguments(function.arguments, f"{param}.tool_calls[{place}].function.arguments"))


def _parts(message: ChatMessage, param: str, door: Door) -> Iterator[Part]:
    content = [Text(type="text", text=message.content)] if isinstance(message.content, str) else message.content or []
    for place, part in enumerate(content):
        at = f"{param}.content[{place}]"
        match part:
            case Text(text=text) | Refusal(refusal=text):
                yield TextPart(text)
            case Image():
                yield _image(part, at)
            case Audio():
                yield AudioPart(MediaSource(f"{at}.input_audio.data", url=part.input_audio.data))
            case LinkedVideo():
                yield VideoPart(MediaSource(f"{at}.video_url.url", url=part.video_url.url))
            case LinkedAudio():
                yield AudioPart(MediaSource(f"{at}.audio_url.url", url=part.audio_url.url))
    if message.role != "assistant":
        return
    # The rest is how a client hands back an answer of ours: a voice by its id, pictures as they were.
    if message.audio is not None and not content:
        transcript = door.transcripts.find(message.audio.id)
        if transcript is None:
            raise RequestError(
                f"`{param}.audio.id` is {shown(message.audio.id)}, which is unknown here or has expired; "
                "send the transcript as `content` instead",
                param=f"{param}.audio.id",
            )
        yield TextPart(transcript)
    for place, image in enumerate(message.images or ()):
        yield _image(image, f"{param}.images[{place}]")


def _image(part: Image, at: str) -> ImagePart:
    if isinstance(part.image_url, str):
        return ImagePart(MediaSource(f"{at}.image_url", url=part.image_url))
    return ImagePart(MediaSource(f"{at}.image_url.url", url=part.image_url.url))
