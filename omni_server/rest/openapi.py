"""Step 8. What `GET /openapi.json` tells: every shape in one place, what each path sends, and the one shape of all errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI

Body = dict[str, Any]

SHAPES = "#/components/schemas/"
JSON, EVENTS, TEXT = "application/json", "text/event-stream", "text/plain"
SENT: Mapping[str, tuple[str, ...]] = {
    "/v1/chat/completions": (JSON, EVENTS),
    "/v1/completions": (JSON, EVENTS),
    "/v1/responses": (JSON, EVENTS),
    "/v1/audio/speech": ("audio/*", EVENTS),
    "/v1/audio/transcriptions": (JSON, TEXT, "application/x-subrip", "text/vtt", EVENTS),
    "/v1/audio/translations": (JSON, TEXT, "application/x-subrip", "text/vtt", EVENTS),
    "/v1/images/generations": (JSON, EVENTS),
    "/v1/images/edits": (JSON, EVENTS),
    "/v1/images/variations": (JSON, EVENTS),
    "/v1/media/{name}": ("*/*",),
    "/metrics": (TEXT,),
}
STRING_OR_NULL = {"type": ["string", "null"]}
ERROR: Body = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {**STRING_OR_NULL, "description": "the field that is wrong"},
                "code": STRING_OR_NULL,
            },
        }
    },
}


class DescribedApp(FastAPI):
    def openapi(self) -> Body:
        if self.openapi_schema is None:
            self.openapi_schema = _described(super().openapi())
        return self.openapi_schema


def _described(document: Body) -> Body:
    """FastAPI knows our bodies as they stand at each route: their `$defs` are lifted to where their references can be resolved.
    FastAPI's own refusals are never sent, ours always."""
    shapes = Shapes()
    for path, operation in _operations(document):
        for sent in operation.get("requestBody", {}).get("content", {}).values():
            sent["schema"] = shapes.lift(sent["schema"])
        operation["responses"].pop("422", None)
        operation["responses"]["default"] = {
            "description": "An error",
            "content": {JSON: {"schema": {"$ref": f"{SHAPES}Error"}}},
        }
        if path in SENT and "200" in operation["responses"]:
            operation["responses"]["200"]["content"] = {kind: {"schema": {}} for kind in SENT[path]}
    document["components"] = {"schemas": {**shapes.named, "Error": ERROR}}
    return document


class Shapes:
    """All shapes by name; two that share a name and differ get their owner's name before it."""

    def __init__(self) -> None:
        self.named: Body = {}
        self._as_given: Body = {}

    def lift(self, shape: Body) -> Body:
        """A reference to `shape`, which is kept with all that it refers to."""
        owner, inner = shape["title"], shape.pop("$defs", {})
        shared = all(self._as_given.get(name, given) == given for name, given in inner.items())
        names = {name: name if shared else f"{owner}{name}" for name in inner}
        for name, given in inner.items():
            self._as_given[names[name]] = given
            self.named[names[name]] = _renamed(given, names)
        self.named[owner] = _renamed(shape, names)
        return {"$ref": SHAPES + owner}


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: SHAPES + names[item.rpartition("/")[2]] if key == "$ref" else _renamed(item, names) for key, item in value.items()
    }


def _operations(document: Body) -> Iterator[tuple[str, Body]]:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            yield path, operation
