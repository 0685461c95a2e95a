"""Step 5. What can be asked of the form of a reply: JSON after a schema, or calls of tools. Refused before any work is done."""

from __future__ import annotations

from typing import Any

from omni_server.errors import RequestError
from omni_server.types import Modality, Request

# Values in a schema. The engine takes a time to work one out that grows faster than its size, and cannot be told to stop.
LARGEST_FORM = 2000


def check_form(request: Request) -> None:
    """A form holds for every letter of a reply, so nothing else can stand in it; and the engine has to work it out first."""
    size = _values(request.sampling.form)
    if size > LARGEST_FORM:
        raise RequestError(f"the schema holds `{size}` values; expected at most {LARGEST_FORM}", param="response_format")
    media = sorted(request.modalities - {Modality.TEXT})
    if media:
        raise RequestError(
            f"the reply is to be JSON and to hold `{media[0]}`; expected `text` alone with JSON",
            param="response_format",
        )
    if request.tools:
        raise RequestError("the reply is to be JSON and `tools` are offered; expected one of them", param="response_format")
    if request.thinking.wanted and request.thinking.budget is None:
        raise RequestError(
            "the reply is to be JSON and to have thoughts; expected a `thinking_token_budget` with them",
            param="response_format",
        )


def _values(form: Any) -> int:
    inner = form.values() if isinstance(form, dict) else form if isinstance(form, list) else ()
    return 1 + sum(_values(value) for value in inner)


def check_calling(request: Request) -> None:
    """A call that must be made is made of the tools that are offered, by a grammar of their schemas."""
    if not request.calling.required:
        return
    if not request.tools:
        raise RequestError(
            "`tool_choice` asks for a call, and there are no `tools`; expected at least one", param="tool_choice"
        )
    size = _values([tool["function"].get("parameters") for tool in request.tools])
    if size > LARGEST_FORM:
        raise RequestError(f"the schemas of `tools` hold `{size}` values; expected at most {LARGEST_FORM}", param="tools")
