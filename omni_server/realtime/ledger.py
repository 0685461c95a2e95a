"""What both directions of a realtime call look up, and the plain pieces of what a client is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omni_server.errors import OmniError
from omni_server.realtime.held import Body, Held
from omni_server.realtime.items import new_id

Told = tuple[str, Body]  # an event's type and its fields


@dataclass(frozen=True, slots=True)
class Asked:
    """How one response was asked for."""

    held: Held
    kept: bool = True
    metadata: dict[str, str] | None = None


@dataclass(slots=True)
class Ledger:
    """What both directions of one call look up: what holds, the items, and how responses were asked for."""

    held: Held
    conversation_id: str = field(default_factory=lambda: new_id("conv"))
    items: dict[str, Body] = field(default_factory=dict)
    asked: dict[str, Asked] = field(default_factory=dict)  # by id of a response that has not started
    responses: dict[str, str] = field(default_factory=dict)  # by id of the item that it made


def told(type: str, **fields: Any) -> Body:
    return {"type": type, "event_id": new_id("event"), **fields}


def milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def error_fields(error: OmniError, event_id: str | None = None) -> Body:
    """`event_id`: of the client's event that was wrong."""
    fault = {"type": error.type, "code": error.code, "message": error.message, "param": error.param, "event_id": event_id}
    return {"error": fault}
