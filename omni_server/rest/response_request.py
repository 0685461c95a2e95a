"""Step 1. What a responses body means: items become the messages of a `types.Request`, after those that went before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from pydantic import TypeAdapter

from omni_server.arguments import read_arguments
from omni_server.door import Door
from omni_server.errors import RequestError
from omni_server.rest.chat_request import voice_of
from omni_server.rest.chat_wire import JsonObject
from omni_server.rest.response_store import Kept
from omni_server.rest.response_wire import (
    CallItem,
    CallOutputItem,
    ContentPart,
    FunctionTool,
    InputImage,
    InputSound,
    InputText,
    Item,
    JsonSchema,
    MessageItem,
    PictureItem,
    ResponseRequest,
    ThoughtItem,
)
from omni_server.rest.sampled import sampling
from omni_server.rest.tool_choice import chosen
from omni_server.segments import Body
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
)

ITEMS: TypeAdapter[list[Item]] = TypeAdapter(list[Item])
LOGPROBS = "message.output_text.logprobs"


def response_request(asked: ResponseRequest, response_id: str, door: Door, before: Kept | None) -> Request:
    """`before` is the response that this one goes on from. Its `instructions` are not among its messages, as OpenAI has it."""
    logprobs = asked.top_logprobs or 0 if is_scored(asked) else None
    told = (Message("system", (TextPart(asked.instructions),)),) if asked.instructions else ()
    tools, calling = chosen(asked.tool_choice, [_offered(tool) for tool in asked.function_tools], asked.parallel_tool_calls)
    return Request(
        request_id=response_id,
        messages=(*told, *conversation(asked, before)),
        modalities=_modalities(asked),
        sampling=sampling(asked, door, asked.max_output_tokens, logprobs, _form(asked)),
        decode=DecodeOptions(
            voice=voice_of(asked.audio, asked.modalities),
            seed=asked.seed,
            previews=(asked.image_tool.partial_images or 0) if asked.image_tool is not None else 0,
        ),
        tools=tools,
        calling=calling,
        thinking=Thinking(_thinks(asked)),
    )


def _offered(tool: FunctionTool) -> dict[str, object]:
    """As chat has it, which is what chat templates know."""
    return {"type": "function", "function": tool.model_dump(include={"name", "description", "parameters"}, exclude_none=True)}


def is_scored(asked: ResponseRequest) -> bool:
    return asked.top_logprobs is not None or LOGPROBS in (asked.include or ())


def conversation(asked: ResponseRequest, before: Kept | None) -> tuple[Message, ...]:
    """All that went before, and the new items."""
    kept = before.messages if before is not None else ()
    if isinstance(asked.input, str):
        return (*kept, Message("user", (TextPart(asked.input),)))
    messages = (*kept, *_messages(asked.input, called_tools(asked, before)))
    if not messages:
        raise RequestError("`input` holds nothing to answer; expected a message or what a tool gave back", param="input")
    return messages


def input_items(asked: ResponseRequest, response_id: str) -> list[Body]:
    """What was sent, each as an item of its own with an id and its parts."""
    items: list[Body]
    if isinstance(asked.input, str):
        items = [{"type": "message", "role": "user", "content": asked.input}]
    else:
        items = [item.model_dump(mode="json", exclude_none=True) for item in asked.input]
    for place, item in enumerate(items):
        item["id"] = f"in_{response_id.removeprefix('resp_')}_{place}"
        item.setdefault("status", "completed")
        if item["type"] == "message" and isinstance(item["content"], str):
            kind = "output_text" if item["role"] == "assistant" else "input_text"
            item["content"] = [{"type": kind, "text": item["content"]}]
    return items


def replied(output: Sequence[Body]) -> tuple[Message, ...]:
    """An answer of ours as what went before, just as if its client had sent it back."""
    return tuple(_messages(ITEMS.validate_python(output), {}))


def called_tools(asked: ResponseRequest, before: Kept | None) -> dict[str, str]:
    """Tools by the ids of their calls, of the whole conversation."""
    items = [] if isinstance(asked.input, str) else asked.input
    return {
        **(before.calls if before is not None else {}),
        **{item.call_id: item.name for item in items if isinstance(item, CallItem)},
    }


def _modalities(asked: ResponseRequest) -> frozenset[Modality]:
    wanted = {Modality(name) for name in asked.modalities or ()} | {Modality.TEXT}
    if Modality.AUDIO in wanted and asked.audio is None:
        raise RequestError(
            '`audio` is missing; `modalities` asks for audio, which needs `audio` such as `{"format": "wav"}`', param="audio"
        )
    return frozenset(wanted | ({Modality.IMAGE} if asked.image_tool is not None and asked.tool_choice != "none" else set()))


def _form(asked: ResponseRequest) -> Mapping[str, object] | None:
    """The schema that the whole reply follows."""
    wanted = asked.text.format if asked.text is not None else None
    if isinstance(wanted, JsonSchema):
        return wanted.of
    return {"type": "object"} if isinstance(wanted, JsonObject) else None


def _thinks(asked: ResponseRequest) -> bool | None:
    effort = asked.reasoning.effort if asked.reasoning is not None else None
    return None if effort is None else effort != "none"


def _messages(items: Sequence[Item], tools: Mapping[str, str]) -> Iterator[Message]:
    """What an assistant said, thought, drew and called in one go is several items, and one message."""
    turn: Message | None = None
    for place, item in enumerate(items):
        message = _message(item, f"input[{place}]", tools)
        if message.role == "assistant" and turn is not None:
            turn = replace(
                turn,
                parts=(*turn.parts, *message.parts),
                reasoning=(turn.reasoning or "") + (message.reasoning or "") or None,
                tool_calls=(*turn.tool_calls, *message.tool_calls),
            )
            continue
        if turn is not None and (turn.parts or turn.tool_calls):
            yield turn
        turn = message if message.role == "assistant" else None
        if turn is None:
            yield message
    if turn is not None and (turn.parts or turn.tool_calls):
        yield turn


def _message(item: Item, at: str, tools: Mapping[str, str]) -> Message:
    match item:
        case MessageItem(role=role, content=content):
            parts = tuple(_parts(content, f"{at}.content"))
            if not parts:
                raise RequestError(f"`{at}.content` is empty; expected a string or a list of parts", param=f"{at}.content")
            if role not in ("user", "assistant"):
                _check_words(parts, f"{at}.content", f"a `{role}` message")
            return Message("system" if role == "developer" else role, parts)
        case CallItem(name=name, arguments=arguments):
            return Message("assistant", (), tool_calls=(ToolCall(name, read_arguments(arguments, f"{at}.arguments")),))
        case CallOutputItem(call_id=call_id, output=output):
            parts = tuple(_parts(output, f"{at}.output"))
            _check_words(parts, f"{at}.output", "what a tool gives back")
            return Message("tool", parts, tool=tools.get(call_id, call_id))
        case ThoughtItem(content=thoughts):
            return Message("assistant", (), reasoning="".join(thought.text for thought in thoughts or ()) or None)
        case PictureItem(result=result):
            drawn = MediaSource(f"{at}.result", url=f"data:image/png;base64,{result}")
            return Message("assistant", (ImagePart(drawn),) if result else ())


def _check_words(parts: Sequence[Part], at: str, what: str) -> None:
    if not all(isinstance(part, TextPart) for part in parts):
        raise RequestError(f"`{at}` holds media; {what} takes text only", param=at)


def _parts(content: str | list[ContentPart], at: str) -> Iterator[Part]:
    if isinstance(content, str):
        yield TextPart(content)
        return
    for place, part in enumerate(content):
        match part:
            case InputText(text=text):
                yield TextPart(text)
            case InputImage(image_url=url):
                yield ImagePart(MediaSource(f"{at}[{place}].image_url", url=url))
            case InputSound(input_audio=sound):
                yield AudioPart(MediaSource(f"{at}[{place}].input_audio.data", url=sound.data))
            case _:
                yield TextPart(part.refusal)
