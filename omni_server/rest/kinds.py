"""Step 1. What becomes of a field that this server has no use for: accepted without effect, or refused. Each says why, and the
table of all fields in docs/rest.md is read from here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

# Values by which a client says that it wants nothing.
NEUTRAL: tuple[Any, ...] = (None, False, 0, "none", "auto", [], {}, {"type": "text"})


@dataclass(frozen=True, slots=True)
class Ignored:
    """Accepted, so that clients which send it work; without effect."""

    because: str

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "description": f"Without effect: {self.because}."}


@dataclass(frozen=True, slots=True)
class Refused:
    """Refused by name, unless the value says that nothing is wanted."""

    because: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "description": f"Refused: {self.because}."}

    def _check(self, value: Any) -> Any:
        if value not in NEUTRAL:
            raise PydanticCustomError("unsupported", "{because}", {"because": self.because})
        return value


def field_kinds(model: type[BaseModel]) -> Iterator[tuple[str, str, str]]:
    """Every field by its name on the wire, `accepted`, `refused` or `ignored`, and what there is to say about it."""
    for name, field in model.model_fields.items():
        kind, note = "accepted", field.description or ""
        for mark in field.metadata:
            if isinstance(mark, Ignored | Refused):
                kind, note = type(mark).__name__.lower(), mark.because
        yield field.alias or name, kind, note
