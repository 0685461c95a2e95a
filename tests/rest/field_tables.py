"""The tables of docs/rest.md, written from the fields themselves: `python -m tests.rest.field_tables`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from omni_server.rest.chat_wire import ChatRequest, StreamOptions
from omni_server.rest.completion_wire import CompletionRequest
from omni_server.rest.image_fields import EditRequest, ImageRequest, JsonEditRequest, VariationRequest
from omni_server.rest.kinds import field_kinds
from omni_server.rest.response_wire import FunctionTool, ImageTool, Reasoning, ResponseRequest, TextOptions
from omni_server.rest.speech import SpeechRequest
from omni_server.rest.transcriptions import TranscriptionRequest, TranslationRequest
from omni_server.rest.voices import ConsentRequest, VoiceRequest

PAGE = Path(__file__).parent.parent.parent / "docs" / "rest.md"
MODELS: tuple[type[BaseModel], ...] = (
    ChatRequest,
    StreamOptions,
    CompletionRequest,
    ResponseRequest,
    FunctionTool,
    ImageTool,
    TextOptions,
    Reasoning,
    SpeechRequest,
    TranscriptionRequest,
    TranslationRequest,
    VoiceRequest,
    ConsentRequest,
    ImageRequest,
    EditRequest,
    JsonEditRequest,
    VariationRequest,
)
MARKED = re.compile(r"(<!-- fields of (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def written(page: str) -> str:
    """The page with its tables as they should be."""
    models = {model.__name__: model for model in MODELS}
    return MARKED.sub(lambda found: found[1] + table(models[found[2]]) + found[3], page)


def table(model: type[BaseModel]) -> str:
    shapes = model.model_json_schema()["properties"]
    required = model.model_json_schema().get("required", [])
    lines = ["| field | kind | values | |", "|---|---|---|---|"]
    for name, kind, note in field_kinds(model):
        values = " or ".join(dict.fromkeys(_values(shapes[name]))) if kind == "accepted" else ""
        lines.append(f"| `{name}` | {'required' if name in required else kind} | {values} | {note} |")
    return "\n".join(lines) + "\n"


def _values(shape: dict[str, Any]) -> Iterator[str]:
    for other in (*shape.get("anyOf", ()), *shape.get("oneOf", ())):
        yield from _values(other)
    if "enum" in shape or "const" in shape:
        yield ", ".join(f"`{value}`" for value in shape.get("enum", [shape.get("const")]))
    elif "$ref" in shape:
        yield "an object"
    elif shape.get("type") in ("array", "object", "string", "boolean"):
        most = f" of at most {shape['maxItems']}" if "maxItems" in shape else ""
        yield {"array": "a list", "object": "an object", "string": "words", "boolean": "true, false"}[shape["type"]] + most
    elif shape.get("type") in ("integer", "number"):
        least = shape.get("minimum", shape.get("exclusiveMinimum"))
        most = shape.get("maximum")
        ends = "" if least is None else f" from {least:g}" if most is None else f" from {least:g} to {most:g}"
        yield ("a whole number" if shape["type"] == "integer" else "a number") + (ends if abs(least or 0) < 2**60 else "")


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
