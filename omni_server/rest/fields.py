"""Step 1. The fields of a request, read strictly from JSON or from a form. What is wrong is told by field, value and wish."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Tag, ValidationError
from pydantic_core import PydanticCustomError

from omni_server.errors import RequestError
from omni_server.rest.chat_wire import VoiceId
from omni_server.wording import shown


class JsonFields(BaseModel):
    """A JSON body: types are as written, and a field that is not known is refused by name."""

    model_config = ConfigDict(strict=True, extra="forbid")


class FormFields(BaseModel):
    """A form: everything arrives as text, so `"0.5"` is a number."""

    model_config = ConfigDict(extra="forbid")


AnyFields = TypeVar("AnyFields", bound=BaseModel)


def _not_blank(value: str) -> str:
    if not value.strip():
        raise PydanticCustomError("blank", "expected words, not white space alone")
    return value


Words = Annotated[str, AfterValidator(_not_blank)]
Voice = Annotated[
    Annotated[str, Tag("~name")] | Annotated[VoiceId, Tag("~object")],
    Discriminator(lambda value: "~name" if isinstance(value, str) else "~object"),
]


def only(*allowed: object, because: str) -> AfterValidator:
    """For a field of OpenAI's of which this server has some values only; `because` says what is expected, and why."""

    def check(value: Any) -> Any:
        if value is not None and value not in allowed:
            raise PydanticCustomError("refused", "{because}", {"because": because})
        return value

    return AfterValidator(check)


def read_json(kind: type[AnyFields], body: bytes) -> AnyFields:
    try:
        return kind.model_validate_json(body)
    except ValidationError as problem:
        raise _request_error(kind, problem) from None


def read_form(kind: type[AnyFields], fields: Mapping[str, object]) -> AnyFields:
    try:
        return kind.model_validate(dict(fields))
    except ValidationError as problem:
        raise _request_error(kind, problem) from None


def _request_error(kind: type[BaseModel], problem: ValidationError) -> RequestError:
    """The first fault: field, what was there, and what was expected."""
    fault = problem.errors(include_url=False)[0]
    param = _path(fault["loc"])
    match fault["type"]:
        case "json_invalid":
            return RequestError(f"The body is not JSON: {fault['msg'].removeprefix('Invalid JSON: ')}")
        case "missing":
            return RequestError(f"`{param}` is missing; it is required", param=param)
        case "extra_forbidden":
            names = [field.alias or name for name, field in kind.model_fields.items()]
            near = difflib.get_close_matches(param, names, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            return RequestError(f"`{param}` is not a field of this request{hint}", param=param)
    expected = fault["msg"].replace("Input should be", "expected", 1)
    value = shown(json.dumps(fault["input"], ensure_ascii=False, default=str))
    where = f"`{param}`" if param else "The body"
    return RequestError(f"{where} is {value}; {expected[0].lower()}{expected[1:]}", param=param or None)


def _path(place: tuple[str | int, ...]) -> str:
    path = ""
    for step in place:
        if isinstance(step, int):
            path += f"[{step}]"
        elif not step.startswith("~"):
            path += f".{step}" if path else step
    return path
