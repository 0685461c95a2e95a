"""Step 1. The fields of a request, read strictly from JSON or from a form. What is wrong is told by field, value and wish."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Tag, ValidationError
from pydantic_core import PydanticCustomError

from omni_server.rest.chat_wire import VoiceId
from omni_server.rest.faults import request_error


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
        raise request_error(kind, problem) from None


def read_form(kind: type[AnyFields], fields: Mapping[str, object]) -> AnyFields:
    try:
        return kind.model_validate(dict(fields))
    except ValidationError as problem:
        raise request_error(kind, problem) from None
