"""Steps 1 and 8. `POST /v1/completions`: words, or token ids, that the model goes on from, without a conversation."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from fastapi import APIRouter
from fastapi.requests import Request as HttpRequest
from fastapi.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from omni_server.door import Door
from omni_server.rest.body import read_body
from omni_server.rest.chat_reply import LEAST, usage_body
from omni_server.rest.choices import choices_of, played_choices, usage_of
from omni_server.rest.completion_wire import CompletionRequest
from omni_server.rest.fields import read_json
from omni_server.rest.playing import DONE, Answer, send_events
from omni_server.rest.sampled import sampling
from omni_server.segments import Body
from omni_server.types import Done, Event, Request, Score, TextDelta

# OpenAI's own; without a conversation nothing else may end a reply before the context is full.
TOKENS = 16


def completions_router(door: Door) -> APIRouter:
    router = APIRouter(tags=["completions"])
    schema = {"content": {"application/json": {"schema": CompletionRequest.model_json_schema()}}, "required": True}

    @router.post("/v1/completions", openapi_extra={"requestBody": schema})
    async def create_completion(request: HttpRequest) -> Response:
        asked = read_json(CompletionRequest, await read_body(request, door.settings.max_body_bytes))
        reply = Completion(asked)
        requests = completion_requests(asked, reply.id, door)

        async def write(scope: Scope, receive: Receive, send: Send) -> None:
            if asked.stream:
                await send_events(send, _chunks(door, requests, reply), DONE)
                return
            choices = [chunk["choices"][0] async for chunk in _chunks(door, requests, reply) if chunk["choices"]]
            body = reply.wrap([joined(choices, place) for place in range(len(requests))])
            await JSONResponse({**body, "usage": reply.usage()})(scope, receive, send)

        return Answer(write)

    return router


def completion_requests(asked: CompletionRequest, completion_id: str, door: Door) -> list[Request]:
    """One for each prompt and choice, those of one prompt beside each other."""
    words = Request(completion_id, (), sampling=sampling(asked, door, asked.max_tokens or TOKENS, asked.logprobs))
    requests = []
    for place, prompt in enumerate(asked.prompts):
        request = replace(words, request_id=f"{completion_id}-p{place}", verbatim=prompt)
        requests += choices_of(request, asked.n or 1)
    return requests


class Completion:
    """Events become the chunks of an answer: each is a piece of one choice. Sync, no sockets, no clock."""

    def __init__(self, asked: CompletionRequest) -> None:
        self.id = f"cmpl-{uuid.uuid4().hex}"
        self._model = asked.model
        self._created = int(time.time())
        self._each = asked.n or 1
        self._include_usage = bool(asked.stream_options and asked.stream_options.include_usage)
        self._lengths: dict[int, int] = {}  # by choice: of the text so far
        self._endings: dict[int, Done] = {}

    def feed(self, place: int, event: Event) -> list[Body]:
        match event:
            case TextDelta(text=text, scores=scores):
                start = self._lengths.get(place, 0)
                self._lengths[place] = start + len(text)
                return [self.wrap([_choice(place, text, _logprobs(scores, start) if scores else None)])]
            case Done(finish_reason=finish_reason):
                self._endings[place] = event
                return [self.wrap([_choice(place, "", None, finish_reason)])]
            case _:
                return []

    def ending(self) -> list[Body]:
        return [{**self.wrap([]), "usage": self.usage()}] if self._include_usage else []

    def usage(self) -> Body:
        return usage_body(usage_of([self._endings[place] for place in sorted(self._endings)], self._each))

    def wrap(self, choices: Sequence[Body]) -> Body:
        usage = {"usage": None} if self._include_usage else {}
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self._created,
            "model": self._model,
            "choices": list(choices),
            **usage,
        }


async def _chunks(door: Door, requests: Sequence[Request], reply: Completion) -> AsyncGenerator[Body, None]:
    async with aclosing(played_choices(door, requests, {})) as events:
        async for place, event in events:
            for chunk in reply.feed(place, event):
                yield chunk
    for chunk in reply.ending():
        yield chunk


def joined(pieces: Sequence[Body], place: int) -> Body:
    """One choice of a plain answer, of its pieces."""
    own = [piece for piece in pieces if piece["index"] == place]
    told = [piece["logprobs"] for piece in own if piece["logprobs"]]
    logprobs = {name: [item for some in told for item in some[name]] for name in told[0]} if told else None
    return _choice(place, "".join(piece["text"] for piece in own), logprobs, own[-1]["finish_reason"])


def _choice(place: int, text: str, logprobs: Body | None, finish_reason: str | None = None) -> Body:
    return {"index": place, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


def _logprobs(scores: Sequence[Score], start: int) -> Body:
    """OpenAI's shape of old: lists side by side, and where each token begins in the text of its choice."""
    offsets = []
    for score in scores:
        offsets.append(start)
        start += len(score.token)
    return {
        "tokens": [score.token for score in scores],
        "token_logprobs": [max(score.logprob, LEAST) for score in scores],
        "top_logprobs": [
            {token: max(logprob, LEAST) for token, logprob in ((score.token, score.logprob), *score.likeliest)}
            for score in scores
        ],
        "text_offset": offsets,
    }
