"""Step 1. `tool_choice` and `parallel_tool_calls`, at every door, to the tools that may be called, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from omni_server.errors import RequestError
from omni_server.types import Calling
from omni_server.wording import shown


class Shape(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class Named(Shape):
    name: Annotated[str, Field(min_length=1)]


class NamedTool(Shape):
    """Chat puts the name into `function`, responses and realtime beside `type`; each is taken everywhere."""

    type: Literal["function"]
    name: str | None = None
    function: Named | None = None

    @model_validator(mode="after")
    def _is_named(self) -> NamedTool:
        if not self.called:
            raise PydanticCustomError("unnamed", "expected the name of a function")
        return self

    @property
    def called(self) -> str:
        return self.function.name if self.function is not None else self.name or ""


class Allowed(Shape):
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1)]


class AllowedTools(Shape):
    """Chat puts the list into `allowed_tools`, responses beside `type`."""

    type: Literal["allowed_tools"]
    allowed_tools: Allowed | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[NamedTool] | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> AllowedTools:
        if self.allowed_tools is None and not (self.mode and self.tools):
            raise PydanticCustomError("unlisted", "expected `mode` and `tools`")
        return self

    @property
    def listed(self) -> Allowed:
        return self.allowed_tools or Allowed(mode=self.mode or "auto", tools=self.tools or [])


def _kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "~word"
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"~{kind}" if isinstance(kind, str) else None


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("~word")]
    | Annotated[NamedTool, Tag("~function")]
    | Annotated[AllowedTools, Tag("~allowed_tools")],
    Discriminator(
        _kind,
        custom_error_type="tool_choice",
        custom_error_message="expected `auto`, `none`, `required`, or an object with `type` `function` or `allowed_tools`",
    ),
]
CHOICES = "`auto`, `none`, `required`, a function by name, or `allowed_tools`; a call that must be made follows its schema"
ONE_CALL = "false: the reply ends behind its first call"
Tools = tuple[Mapping[str, Any], ...]


def chosen(choice: ToolChoice | None, tools: Sequence[Mapping[str, Any]], parallel: bool | None) -> tuple[Tools, Calling]:
    """`tools` are as chat has them. Raises RequestError where the choice names one that is not there."""
    several = parallel is not False
    match choice:
        case "none":
            return (), Calling()
        case "required":
            return tuple(tools), Calling(required=True, several=several)
        case NamedTool():
            _check_offered([choice.called], tools)
            return tuple(tools), Calling(required=True, named=choice.called, several=False)
        case AllowedTools():
            names = [tool.called for tool in choice.listed.tools]
            _check_offered(names, tools)
            allowed = tuple(tool for tool in tools if tool["function"]["name"] in names)
            return allowed, Calling(required=choice.listed.mode == "required", several=several)
    return tuple(tools), Calling(several=several)


def _check_offered(names: Sequence[str], tools: Sequence[Mapping[str, Any]]) -> None:
    offered = [tool["function"]["name"] for tool in tools]
    unknown = next((name for name in names if name not in offered), None)
    if unknown is not None:
        expected = ", ".join(f"`{name}`" for name in offered) or "none, for there are no `tools`"
        raise RequestError(
            f"`tool_choice` names {shown(unknown)}; expected one of the `tools`: {expected}", param="tool_choice"
        )
