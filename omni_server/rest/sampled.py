"""Step 1. How the backbone is to pick tokens: the fields that chat, completions and responses have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from omni_server.door import Door
from omni_server.errors import ModelNotFound
from omni_server.types import Sampling
from omni_server.wording import shown

Number = Annotated[float, Field(allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
LogitBias = dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], Annotated[Number, Field(ge=-100, le=100)]]
StopString = Annotated[str, Field(min_length=1)]
Stop = Annotated[
    Annotated[StopString, Tag("~string")] | Annotated[list[StopString], Field(max_length=4), Tag("~list")],
    Discriminator(lambda value: "~string" if isinstance(value, str) else "~list"),
]


class Sampled(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    model: str
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int | None, Field(ge=-1, description="not OpenAI's: -1 or 0 for all tokens")] = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    logit_bias: LogitBias | None = None
    seed: Annotated[Seed | None, Field(description="the same seed and request give the same tokens")] = None
    stop: Stop | None = None


def sampling(
    asked: Sampled, door: Door, max_tokens: int | None, logprobs: int | None, form: Mapping[str, Any] | None = None
) -> Sampling:
    """Raises ModelNotFound where the model is none of this server's."""
    if asked.model not in (door.model, *door.adapters):
        raise ModelNotFound(f"`model` is {shown(asked.model)}; this server has `{door.model}`", param="model")
    return Sampling(
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        seed=asked.seed,
        max_tokens=max_tokens,
        stop=(asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ()),
        presence_penalty=asked.presence_penalty or 0.0,
        frequency_penalty=asked.frequency_penalty or 0.0,
        adapter=asked.model if asked.model != door.model else None,
        logprobs=logprobs,
        logit_bias=tuple((int(token), bias) for token, bias in (asked.logit_bias or {}).items()),
        form=form,
    )
