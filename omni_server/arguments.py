"""Step 1. Arguments of a tool as clients hand them back: JSON text becomes an object, at every door alike."""

from __future__ import annotations

import json
from typing import Any

from omni_server.errors import RequestError
from omni_server.wording import shown


def read_arguments(text: str, param: str) -> dict[str, Any]:
    """Empty text is an empty object. Raises RequestError that names the field `param`."""
    try:
        arguments = json.loads(text or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise RequestError(f"`{param}` is {shown(text)}; expected a JSON object", param=param)
    return arguments
