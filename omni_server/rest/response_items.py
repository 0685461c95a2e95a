"""Step 8. The items of a response, each with the events that tell how it grows. Sync, no sockets, no clock."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import PIL.Image

from omni_server.errors import OmniError
from omni_server.rest.chat_reply import scored_token
from omni_server.rest.drawing import picture_file
from omni_server.segments import Body
from omni_server.types import Score, ToolCalled


class Output:
    """All items so far, in the order in which they began; numbers the events of a response."""

    def __init__(self, response_id: str) -> None:
        self.suffix = response_id.removeprefix("resp_")
        self.items: list[Body] = []  # each as it stands now
        self._events = 0

    def event(self, kind: str, **fields: object) -> Body:
        self._events += 1
        return {"type": kind, "sequence_number": self._events - 1, **fields}

    def begin(self, prefix: str, item: Body) -> tuple[int, Body, Body]:
        """The place of a new item, the item with its id, and the event that tells of it."""
        place = len(self.items)
        item = {"id": f"{prefix}_{self.suffix}_{place}", **item}
        self.items.append(item)
        return place, item, self.event("response.output_item.added", output_index=place, item=item)

    def end(self, place: int, item: Body) -> Body:
        self.items[place] = item
        return self.event("response.output_item.done", output_index=place, item=item)


class WordsItem:
    """A message, or thoughts: an item of one part that grows word by word."""

    def __init__(self, output: Output, *, thought: bool) -> None:
        self._output = output
        self._thought = thought
        self._name = "response.reasoning_text" if thought else "response.output_text"
        self._text = ""
        self._scores: list[Body] = []
        self._place = 0
        self._item: Body = {}

    def open(self) -> list[Body]:
        kind: Body = {"type": "reasoning", "summary": []} if self._thought else {"type": "message", "role": "assistant"}
        place, item, begun = self._output.begin(
            "rs" if self._thought else "msg", {**kind, "status": "in_progress", "content": []}
        )
        self._place, self._item = place, item
        return [begun, self._event("response.content_part.added", part=self._part())]

    def feed(self, text: str, scores: Sequence[Score] = ()) -> list[Body]:
        self._text += text
        told = [scored_token(score) for score in scores]
        self._scores += told
        return [self._event(f"{self._name}.delta", delta=text, **({} if self._thought else {"logprobs": told}))]

    def close(self) -> list[Body]:
        logprobs = {} if self._thought else {"logprobs": self._scores}
        done = self._event(f"{self._name}.done", text=self._text, **logprobs)
        part = self._event("response.content_part.done", part=self._part())
        item = {**self._item, "status": "completed", "content": [self._part()]}
        return [done, part, self._output.end(self._place, item)]

    def _part(self) -> Body:
        if self._thought:
            return {"type": "reasoning_text", "text": self._text}
        return {"type": "output_text", "text": self._text, "annotations": [], "logprobs": list(self._scores)}

    def _event(self, kind: str, **fields: object) -> Body:
        at = {"item_id": self._item["id"], "output_index": self._place, "content_index": 0}
        return self._output.event(kind, **at, **fields)


class DrawnItem:
    """A picture, from its beginning over its previews to the whole."""

    def __init__(self, output: Output, format: str, quality: int) -> None:
        self._output = output
        self._format = format
        self._quality = quality
        self._place = 0
        self._item: Body = {}
        self._previews = 0
        self._result: str | None = None

    def open(self) -> list[Body]:
        kind = {"type": "image_generation_call", "status": "in_progress", "result": None, "output_format": self._format}
        self._place, self._item, begun = self._output.begin("ig", kind)
        return [begun, self._event("in_progress"), self._event("generating")]

    def preview(self, image: PIL.Image.Image) -> list[Body]:
        self._previews += 1
        looks = {"size": f"{image.width}x{image.height}", "output_format": self._format, "background": "opaque"}
        number = self._previews - 1
        return [self._event("partial_image", partial_image_index=number, partial_image_b64=self._file(image), **looks)]

    def ready(self, image: PIL.Image.Image) -> list[Body]:
        self._result = self._file(image)
        self._item = {**self._item, "size": f"{image.width}x{image.height}", "background": "opaque", "quality": "auto"}
        return []

    def close(self, error: OmniError | None) -> list[Body]:
        """A picture that could not be made is told in its item, and the rest of the response stands."""
        if error is not None or self._result is None:
            fault = error or OmniError("the picture was not made")
            told = {"type": fault.type, "code": fault.code, "message": fault.message}
            return [self._output.end(self._place, {**self._item, "status": "failed", "error": told})]
        item = {**self._item, "status": "completed", "result": self._result}
        return [self._event("completed"), self._output.end(self._place, item)]

    def _file(self, image: PIL.Image.Image) -> str:
        return base64.b64encode(picture_file(image, self._format, self._quality)).decode("ascii")

    def _event(self, step: str, **fields: object) -> Body:
        kind = f"response.image_generation_call.{step}"
        return self._output.event(kind, item_id=self._item["id"], output_index=self._place, **fields)


def called_item(output: Output, call: ToolCalled) -> list[Body]:
    """A call of a function: the model's arguments are known as a whole."""
    kind = {"type": "function_call", "name": call.name, "call_id": f"call_{output.suffix}_{call.index}"}
    place, item, begun = output.begin("fc", {**kind, "status": "in_progress", "arguments": ""})
    at = {"item_id": item["id"], "output_index": place}
    name = "response.function_call_arguments"
    return [
        begun,
        output.event(f"{name}.delta", **at, delta=call.arguments),
        output.event(f"{name}.done", **at, name=call.name, arguments=call.arguments),
        output.end(place, {**item, "status": "completed", "arguments": call.arguments}),
    ]
