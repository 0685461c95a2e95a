"""Step 1. The shape of a `POST /v1/completions` body, read strictly; every field of OpenAI's is used, ignored or refused."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from omni_server.rest.chat_wire import MOST_CHOICES, StreamOptions
from omni_server.rest.kinds import Ignored, Refused
from omni_server.rest.sampled import Sampled

MOST_PROMPTS = 32

TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]


def _kind(value: Any) -> str | None:
    if not isinstance(value, list):
        return "~words" if isinstance(value, str) else None
    first = value[0] if value else None
    return "~prompts" if isinstance(first, str) else "~lists" if isinstance(first, list) else "~ids"


Prompts = Annotated[
    Annotated[str, Tag("~words")]
    | Annotated[list[str], Field(max_length=MOST_PROMPTS), Tag("~prompts")]
    | Annotated[TokenIds, Tag("~ids")]
    | Annotated[list[TokenIds], Field(max_length=MOST_PROMPTS), Tag("~lists")],
    Discriminator(
        _kind,
        custom_error_type="prompt_type",
        custom_error_message="expected words, or token ids, or a list of one of them",
    ),
]


class CompletionRequest(Sampled):
    prompt: Prompts
    max_tokens: Annotated[int | None, Field(ge=1, description="16 where it is left out, as OpenAI has it")] = None
    n: Annotated[int | None, Field(ge=1, le=MOST_CHOICES, description="answer k has the seed `seed + k`")] = None
    logprobs: Annotated[int | None, Field(ge=0, le=5)] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[Any, Ignored("nothing is counted by user here")] = None
    best_of: Annotated[int | None, Field(ge=1, le=1, description="1 alone: ask for `n` and choose")] = None
    echo: Annotated[Any, Refused("the client has the words that it sends")] = None
    suffix: Annotated[Any, Refused("the models here go on from what is before, and know nothing of what comes after")] = None

    @property
    def prompts(self) -> list[str | tuple[int, ...]]:
        """Each by itself."""
        given = self.prompt
        if isinstance(given, str):
            return [given]
        if isinstance(given[0], int):
            return [tuple(token for token in given if isinstance(token, int))]
        return [prompt if isinstance(prompt, str) else tuple(prompt) for prompt in given if not isinstance(prompt, int)]
