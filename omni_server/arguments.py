"""Step 1. Arguments of a tool, as clients and models write them: JSON text becomes an object, at every door alike."""

from __future__ import annotations

from typing import Any

from omni_server.errors import RequestError
from omni_server.plain_json import parsed
from omni_server.wording import shown


def read_arguments(text: str, param: str) -> dict[str, Any]:
    """Empty text is an empty object. Raises RequestError that names the field `param`."""
    arguments = _object(text)
    if arguments is None:
        raise RequestError(f"`{param}` is {shown(text)}; expected a JSON object", param=param)
    return arguments


def written_arguments(text: str) -> dict[str, Any]:
    """A model may write what is no JSON; the client gets it as it is, and the conversation without it."""
    return _object(text) or {}


def _object(text: str) -> dict[str, Any] | None:
    try:
        arguments = parsed(text or "{}")
    except ValueError:
        return None
    return arguments if isinstance(arguments, dict) else None
