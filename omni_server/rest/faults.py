"""Step 1. The first fault that pydantic finds in a request: the field, what was there and what was expected, for every door."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping

from pydantic import BaseModel, ValidationError

from omni_server.errors import RequestError
from omni_server.wording import shown


def request_error(
    kind: type[BaseModel], problem: ValidationError, expectations: Mapping[str, str] | None = None
) -> RequestError:
    """`expectations` words, by field, what pydantic's own message says badly."""
    fault = problem.errors(include_url=False)[0]
    param = _path(fault["loc"])
    match fault["type"]:
        case "json_invalid":
            return RequestError(f"The body is not JSON: {fault['msg'].removeprefix('Invalid JSON: ')}")
        case "missing":
            return RequestError(f"`{param}` is missing; it is required", param=param)
        case "unsupported":
            return RequestError(f"`{param}` is not supported by this server: {fault['msg']}; leave it out", param=param)
        case "extra_forbidden":
            names = [field.alias or name for name, field in kind.model_fields.items()]
            near = difflib.get_close_matches(param, names, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            return RequestError(f"`{param}` is not a field of this request{hint}", param=param)
    expected = fault["msg"].replace("Input should be", "expected", 1).replace(" after validation", "")
    expected = (expectations or {}).get(param) or expected[0].lower() + expected[1:]
    value = shown(json.dumps(fault["input"], ensure_ascii=False, default=str))
    return RequestError(f"{f'`{param}`' if param else 'The body'} is {value}; {expected}", param=param or None)


def _path(place: tuple[str | int, ...]) -> str:
    path = ""
    for step in place:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step != "[key]" and not step.startswith("~"):
            path += f".{step}" if path else step
    return path
