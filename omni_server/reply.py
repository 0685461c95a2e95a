"""Steps 6 and 7 of one reply: token chunks through the router, each span through its own decoder, events into one queue.

Within a span order is kept; between spans it is not, so a slow picture does not hold back the voice after it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, assert_never

from omni_server.aside import Aside
from omni_server.dialect import Dialect
from omni_server.drain import Drain
from omni_server.errors import DecodeFailed, OmniError
from omni_server.interfaces import PictureStep, Stepwise, TextReader
from omni_server.maker import Maker
from omni_server.router import Router
from omni_server.text import TextCodec
from omni_server.timeline import Timeline
from omni_server.types import (
    AudioDelta,
    Closed,
    Codes,
    DecodeOptions,
    Done,
    Event,
    Failed,
    ImagePreview,
    ImageProgress,
    ImageReady,
    Modality,
    Opened,
    Prompt,
    Request,
    Score,
    SpanClosed,
    SpanOpened,
    Speech,
    TextDelta,
    TokenChunk,
    Usage,
)

_log = logging.getLogger(__name__)
MOST_CODES = 32  # that one call of a decoder gets
_QUEUE = 64  # events that may wait for a slow reader before the backbone is held back


class Reply:
    """One reply on its way out. `run` plays it; `events` is what the door reads."""

    def __init__(
        self,
        request: Request,
        prompt: Prompt,
        codec: TextCodec,
        makers: Mapping[Modality, Maker],
        sample_rate: int,
        dialect: Dialect,
        heard: Speech | None,
        timeline: Timeline,
        reader: TextReader | None = None,
    ) -> None:
        """`heard` is the user's last recording, whose voice the model may choose to answer with."""
        self._sample_rate = sample_rate
        self._aside = Aside(
            dialect, heard, thinking=prompt.thinking, reader=reader, tools=request.tools, several=request.calling.several
        )
        self._request = request
        self._prompt = prompt
        self._text = codec.open(request.sampling.stop)
        self._codec = codec
        self._makers = makers
        self._timeline = timeline
        self._events: asyncio.Queue[Event] = asyncio.Queue(_QUEUE)
        self._spans: dict[int, asyncio.Queue[Codes | Closed]] = {}
        self._modalities: dict[int, Modality] = {}
        self._counts: Counter[Modality | None] = Counter()
        self._cached = 0
        self._thoughts = 0
        self._score: Score | None = None  # of the token that is being read
        self._scores: list[Score] = []  # of tokens whose text was not given out yet
        self._shown: set[int] = set()  # text spans of which the user has seen something
        timeline.mark("prompt")

    @asynccontextmanager
    async def run(self, tokens: AsyncGenerator[TokenChunk, None], router: Router, drain: Drain) -> AsyncIterator[None]:
        """Plays the reply in the background; leaving stops it, aborts the backbone and drops every open span."""
        player = asyncio.create_task(self._play(tokens, router, drain))
        try:
            yield
        finally:
            player.cancel()
            with suppress(asyncio.CancelledError):
                await player

    async def events(self) -> AsyncIterator[Event]:
        while True:
            event = await self._events.get()
            yield event
            if isinstance(event, Done | Failed):
                return

    async def _play(self, tokens: AsyncGenerator[TokenChunk, None], router: Router, drain: Drain) -> None:
        try:
            async with drain.in_time(), asyncio.TaskGroup() as spans:
                finish_reason = await self._route(tokens, router, spans)
        except* OmniError as group:
            await self._events.put(Failed(_first(group)))
        except* Exception as group:  # noqa: BLE001 - every accepted request must end once
            _log.exception("request %s failed", self._request.request_id, exc_info=group)
            await self._events.put(Failed(OmniError("an internal error ended this reply")))
        else:
            self._timeline.mark("total")
            await self._events.put(Done(finish_reason, self._usage(), dict(self._timeline.moments)))

    async def _route(self, tokens: AsyncGenerator[TokenChunk, None], router: Router, spans: asyncio.TaskGroup) -> str:
        """Step 6: every chunk to its spans; returns why the reply ended."""
        finish_reason = "stop"
        async with aclosing(tokens):
            while (chunk := await self._next(tokens)) is not None:
                self._timeline.mark("first_token")
                self._cached = max(self._cached, chunk.cached_tokens)
                self._counts[None] += len(chunk.token_ids)
                for ids, score in self._scored(chunk):
                    self._score = score
                    for event in router.feed(ids):
                        await self._take(event, spans)
                if self._text.stopped or self._aside.called_enough:
                    break
                finish_reason = chunk.finish_reason or finish_reason
        for event in router.finish():
            await self._take(event, spans)
        return "tool_calls" if self._aside.calls and finish_reason == "stop" else finish_reason

    async def _next(self, tokens: AsyncGenerator[TokenChunk, None]) -> TokenChunk | None:
        with self._timeline.stage("backbone"):
            return await anext(tokens, None)

    def _scored(self, chunk: TokenChunk) -> Iterator[tuple[tuple[int, ...], Score | None]]:
        """The ids of a chunk; token by token where each has a score."""
        if not chunk.scores:
            yield chunk.token_ids, None
        for token, score in zip(chunk.token_ids, chunk.scores, strict=False):
            likeliest = tuple((self._codec.decode([other]), its) for other, its in score.likeliest)
            yield (token,), Score(self._codec.decode([token]), score.logprob, likeliest)

    async def _take(self, event: Opened | Codes | Closed, spans: asyncio.TaskGroup) -> None:
        match event:
            case Opened(index, modality, ratio):
                self._modalities[index] = modality
                if modality is Modality.TEXT:
                    self._text = self._codec.open(self._request.sampling.stop)
                    self._scores.clear()
                else:
                    await self._events.put(SpanOpened(index, modality))
                    self._spans[index] = asyncio.Queue()
                    options = replace(self._request.decode, ratio=ratio or self._request.decode.ratio)
                    if modality is Modality.AUDIO:
                        options = self._aside.with_voice(options)
                    spans.create_task(self._decode(index, modality, options))
            case Codes(index, codes):
                self._counts[self._modalities[index]] += len(codes)
                self._thoughts += len(codes) if self._aside.in_thought else 0
                if index in self._spans:
                    self._spans[index].put_nowait(event)
                else:
                    if self._score is not None and not self._aside.in_thought:
                        self._scores.append(self._score)
                    await self._put_shown(index, self._aside.feed("".join(self._text.feed(codes)), codes))
            case Closed(index):
                if index in self._spans:
                    self._spans[index].put_nowait(event)
                else:
                    await self._put_shown(index, self._aside.feed("".join(self._text.finish())) + self._aside.finish())
                    if self._scores and index in self._shown and not self._text.stopped:
                        await self._put_shown(index, [""])
                    if index in self._shown:
                        await self._events.put(SpanClosed(index))
            case _:
                assert_never(event)

    async def _put_shown(self, index: int, events: list[str | Event]) -> None:
        """A text span is opened by its first letter that is meant for the user, for many hold nothing but tags."""
        for event in events:
            if isinstance(event, str):
                if index not in self._shown:
                    self._shown.add(index)
                    await self._events.put(SpanOpened(index, Modality.TEXT))
                event = TextDelta(index, event, tuple(self._scores))
                self._scores.clear()
            await self._events.put(event)

    async def _decode(self, index: int, modality: Modality, options: DecodeOptions) -> None:
        """Step 7 for one span. What fails here ends this span with a typed error, and nothing else."""
        error: OmniError | None = None
        try:
            await self._decode_span(index, modality, options)
        except OmniError as failure:
            error = failure
        except Exception as failure:  # noqa: BLE001 - whatever a model raises must end this span only
            _log.exception("request %s: span %d of %s failed", self._request.request_id, index, modality)
            error = DecodeFailed(f"the {modality} could not be made: {failure}")
        await self._events.put(SpanClosed(index, error))

    async def _decode_span(self, index: int, modality: Modality, options: DecodeOptions) -> None:
        queue = self._spans[index]
        maker = self._makers[modality]
        decoding = await self._work(modality, maker.open, options)
        while True:
            codes, closed = await _all_waiting(queue)
            if codes:
                await self._put_media(index, modality, await self._work(modality, maker.made, decoding.feed, codes))
            if closed is not None:
                break
        if modality is Modality.IMAGE and not closed.complete:
            raise DecodeFailed("the picture was cut off by the limit on completion tokens")
        if not isinstance(decoding, Stepwise):
            await self._put_media(index, modality, await self._work(modality, maker.made, decoding.finish))
            return
        # One call steps all that are drawn on this lane, so whoever waits for news drives the others too; between two calls
        # newcomers join.
        try:
            while (outputs := await self._work(modality, maker.made, decoding.advance)) is not None:
                await self._put_media(index, modality, outputs)
        finally:
            decoding.close()

    async def _work(self, modality: Modality, work: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        with self._timeline.stage(f"decode_{modality}"):
            return await work(*arguments)

    async def _put_media(self, index: int, modality: Modality, outputs: Any) -> None:
        for output in outputs:
            if isinstance(output, PictureStep):
                await self._events.put(ImageProgress(index, output.step, output.steps))
                if output.preview is not None:
                    self._timeline.mark("first_preview")
                    await self._events.put(ImagePreview(index, output.preview))
                continue
            self._timeline.mark(f"first_{modality}")
            if modality is Modality.AUDIO:
                await self._events.put(AudioDelta(index, output, self._sample_rate))
            else:
                await self._events.put(ImageReady(index, output))

    def _usage(self) -> Usage:
        return Usage(
            prompt_tokens=len(self._prompt.token_ids),
            prompt_image_tokens=self._prompt.image_tokens,
            prompt_audio_tokens=self._prompt.audio_tokens,
            cached_tokens=self._cached,
            completion_tokens=self._counts[None],
            completion_image_tokens=self._counts[Modality.IMAGE],
            completion_audio_tokens=self._counts[Modality.AUDIO],
            reasoning_tokens=self._thoughts,
        )


async def _all_waiting(queue: asyncio.Queue[Codes | Closed]) -> tuple[list[int], Closed | None]:
    """Wait for one item, then take what else is there: a vocoder that fell behind catches up in larger steps, but not so large
    that others must wait long for theirs, or the listener for what has been made."""
    codes: list[int] = []
    item = await queue.get()
    while True:
        if isinstance(item, Closed):
            return codes, item
        codes += item.codes
        if queue.empty() or len(codes) >= MOST_CODES:
            return codes, None
        item = queue.get_nowait()


def _first(group: BaseExceptionGroup[OmniError]) -> OmniError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
