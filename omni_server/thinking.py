"""Step 5. A budget for thoughts: the backbone thinks for so many tokens at most, then its thoughts are closed and it answers.

Two prompts to the same engine, the second of which its prefix cache knows already; no engine has to know of budgets.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from omni_server.interfaces import Backbone
from omni_server.text import TextCodec
from omni_server.types import Modality, Prompt, Request, TokenChunk


async def think_and_answer(
    backbone: Backbone, request: Request, prompt: Prompt, codec: TextCodec, tag: str
) -> AsyncGenerator[TokenChunk, None]:
    """The tokens of one reply, thoughts first. `tag` is what the prompt has opened and the thoughts must close. Without a
    budget they end when they end."""
    budget, limit = request.thinking.budget, request.sampling.max_tokens
    thought: list[int] = []
    closed, ended = False, None
    if budget != 0:
        longest = min(most) if (most := [number for number in (budget, limit) if number is not None]) else None
        sampling = replace(request.sampling, max_tokens=longest, form=None, calls=None)
        thoughts = backbone.stream(f"{request.request_id}-thought", prompt, sampling, frozenset({Modality.TEXT}))
        async with aclosing(thoughts):
            async for chunk in thoughts:
                ended = chunk.finish_reason
                taken, closed = _until_closed(thought, chunk.token_ids, codec, f"</{tag}>")
                thought += taken
                if taken:
                    yield TokenChunk(tuple(taken), None, chunk.cached_tokens, chunk.scores[: len(taken)])
                if closed:
                    break
    if not closed and ended == "stop" and request.sampling.calls is None:
        yield TokenChunk((), "stop")
        return
    if not closed:
        ending = codec.encode_template(f"\n</{tag}>\n\n")
        thought += ending
        yield TokenChunk(tuple(ending))
    if (limit is not None and len(thought) >= limit) or (budget is None and ended == "length"):
        yield TokenChunk((), "length")
        return
    sampling = replace(request.sampling, max_tokens=None if limit is None else limit - len(thought))
    prompt = replace(prompt, token_ids=(*prompt.token_ids, *thought), thinking=False)
    answer = backbone.stream(request.request_id, prompt, sampling, request.modalities)
    async with aclosing(answer):
        async for chunk in answer:
            yield chunk


def _until_closed(before: list[int], new: tuple[int, ...], codec: TextCodec, mark: str) -> tuple[list[int], bool]:
    """As many of the new ids as the thoughts need to be closed, all where they stay open."""
    taken: list[int] = []
    for token in new:
        taken.append(token)
        if mark in codec.decode([*before, *taken][-(len(mark) + 4) :]):
            return taken, True
    return taken, False
