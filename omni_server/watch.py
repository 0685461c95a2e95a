"""Watches each reply from its acceptance to its end: what is measured, logged and traced of it. Changes nothing of it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from omni_server.call import Call, current_call
from omni_server.errors import OmniError
from omni_server.measures import Measures
from omni_server.timeline import Timeline
from omni_server.types import AudioDelta, Done, Event, Failed, ImageReady, Modality, Request, SpanClosed, SpanOpened, Usage

_log = logging.getLogger(__name__)

EARLY_ENOUGH = 0.001  # seconds that even an event which lies ready takes to be handed over


class Tracer(Protocol):
    """Where the stages of a reply go as spans."""

    def record(self, request: Request, call: Call | None, timeline: Timeline, ending: str, usage: Usage) -> None: ...
    def close(self) -> None: ...


class Watch:
    """One for all replies of a pipeline."""

    def __init__(self, measures: Measures | None = None, tracer: Tracer | None = None) -> None:
        self.measures = measures or Measures()
        self._tracer = tracer

    @asynccontextmanager
    async def reply(self, request: Request) -> AsyncIterator[WatchedReply]:
        """Leaving it without an ending is an abort; an error before the first event is a rejection."""
        call = current_call()
        watched = WatchedReply(self.measures, call.first_audio_within if call is not None else None)
        if call is not None:
            call.replies.append(watched.timeline)
        try:
            yield watched
        except OmniError as error:
            if not watched.begun:
                watched.refusal = error.code or "error"
            raise
        finally:
            self._over(request, call, watched)

    def close(self) -> None:
        if self._tracer is not None:
            self._tracer.close()

    def _over(self, request: Request, call: Call | None, watched: WatchedReply) -> None:
        timeline, seconds = watched.timeline, watched.timeline.elapsed()
        for name, stage in timeline.stages.items():
            self.measures.stage(name, stage.worked)
        if watched.refusal is not None:
            self.measures.rejected(watched.refusal)
        else:
            watched.account(seconds)
        ending = watched.refusal or watched.ending
        stages = {name: round(stage.worked, 4) for name, stage in timeline.stages.items()}
        told = {"reply": request.request_id, "ending": ending, "seconds": round(seconds, 4), "stages": stages}
        _log.info("reply %s: %s after %.3f s", request.request_id, ending, seconds, extra={"fields": told})
        if self._tracer is not None:
            self._tracer.record(request, call, timeline, ending, watched.usage)


class WatchedReply:
    """One reply on its way. `events` is what the door reads, and passes through here."""

    def __init__(self, measures: Measures, first_audio_within: float | None) -> None:
        self._first_audio_within = first_audio_within
        self.timeline = Timeline()
        self.ending = "abort"
        self.refusal: str | None = None
        self.usage = Usage()
        self.begun = False
        self._measures = measures
        self._events: AsyncIterator[Event] | None = None
        self._player = Player()
        self.first_sound: float | None = None
        self._sound = 0.0
        self._last_sound = 0.0

    def events(self, events: AsyncIterator[Event]) -> AsyncIterator[Event]:
        self._events = events
        return self

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        assert self._events is not None
        asked = self.timeline.elapsed()
        event = await anext(self._events)
        self._see(event, asked, self.timeline.elapsed())
        return event

    def account(self, seconds: float) -> None:
        """It is over: what can be said of the whole."""
        measures, usage = self._measures, self.usage
        measures.ended({"tool_calls": "stop"}.get(self.ending, self.ending))
        measures.whole.observe(seconds)
        if self._sound:
            measures.real_time_factor.observe(self._last_sound / self._sound)
        counts = {
            "prompt_tokens": usage.prompt_tokens,
            "generation_tokens": usage.completion_tokens,
            "prefix_cache_queries": usage.prompt_tokens,
            "prefix_cache_hits": usage.cached_tokens,
        }
        for name, count in counts.items():
            measures.tokens[name].inc(count)

    def _see(self, event: Event, asked: float, now: float) -> None:
        self._player.pass_time(asked, now)
        if not self.begun and not isinstance(event, Failed):
            self._measures.first_token.observe(now)
        self.begun = True
        match event:
            case SpanOpened(modality=Modality.AUDIO):
                self._player.open()
            case AudioDelta(samples=samples, sample_rate=sample_rate):
                seconds = len(samples) / sample_rate
                if self.first_sound is None:
                    self.first_sound = now
                    self._measures.first_audio.observe(now)
                    if self._first_audio_within is not None:
                        self._measures.first_audio_deadline(met=now <= self._first_audio_within)
                self._sound, self._last_sound = self._sound + seconds, now
                self._measures.audio_seconds.inc(seconds)
                if self._player.feed(seconds):
                    self._measures.underruns.inc()
            case ImageReady():
                self._measures.pictures.inc()
            case SpanClosed(error=OmniError() as error):
                self._measures.failed(error.code or "error")
            case Done(finish_reason=reason, usage=usage):
                self.ending, self.usage = reason, usage
            case Failed(error=error):
                self.ending = "error"
                self._measures.failed(error.code or "error")
            case _:
                pass


class Player:
    """Somebody who plays the sound as it comes, without a buffer, and whose fault it is where they hear silence.

    While the reader is busy with an event it has, nothing is the server's fault; while it waits for the next, all is.
    """

    def __init__(self) -> None:
        self._until: float | None = None  # where the sound so far has been played; None before the first of a span
        self._now = 0.0
        self._dry = False

    def open(self) -> None:
        self._until, self._dry = None, False

    def pass_time(self, asked: float, now: float) -> None:
        self._now = now
        if self._until is not None:
            self._until = max(self._until, asked)
            self._dry = self._dry or now - self._until > EARLY_ENOUGH

    def feed(self, seconds: float) -> bool:
        """Whether this sound came too late."""
        dry, self._dry = self._dry, False
        self._until = max(self._until or 0.0, self._now) + seconds
        return dry
