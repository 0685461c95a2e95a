"""Plays steps 2 to 7 of a request in one readable function. Knows the order, the lanes and the queues; no model and no wire."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from omni_server.breaker import STAGE_SECONDS
from omni_server.call_grammar import call_grammar
from omni_server.checkpoint import Checkpoint
from omni_server.cloned_voices import ClonedVoices
from omni_server.dialect import Dialect
from omni_server.drain import Drain
from omni_server.errors import ModalityUnavailable, OmniError, RequestError
from omni_server.forms import check_calling, check_form
from omni_server.gate import Gate
from omni_server.interfaces import Backbone, TextParsers
from omni_server.lanes import Lane
from omni_server.maker import Maker
from omni_server.media import MediaLoader
from omni_server.prompt import Prompter
from omni_server.reply import Reply
from omni_server.router import Router
from omni_server.senses import Sense, VideoSense
from omni_server.text import TextCodec
from omni_server.thinking import think_and_answer
from omni_server.timeline import Timeline
from omni_server.types import (
    AudioPart,
    Encoding,
    Event,
    ImagePart,
    MediaPart,
    MediaSource,
    Modality,
    Picture,
    Prompt,
    Request,
    Sampling,
    Speech,
    Thinking,
    TokenChunk,
    Video,
    VideoPart,
)
from omni_server.watch import Watch

Made = TypeVar("Made")
_log = logging.getLogger(__name__)

LEAVE_SECONDS = 5.0  # that a lane gets to come out of its model before the process ends around it


class Pipeline:
    """One checkpoint, ready to answer. Everything it needs is handed to it by app.py."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        loader: MediaLoader,
        senses: dict[Modality, Sense],
        prompter: Prompter,
        backbone: Backbone,
        codec: TextCodec,
        makers: dict[Modality, Maker],
        end_of_turn: Sequence[int],
        watch: Watch | None = None,
        gate: Gate | None = None,
        stage_seconds: float = STAGE_SECONDS,
        cloned: ClonedVoices | None = None,
        parsers: TextParsers | None = None,
    ) -> None:
        """`stage_seconds`: the limit of reading one medium, and of building one prompt. `parsers`: of thoughts and calls, in
        place of our own."""
        self.checkpoint = checkpoint
        self.backbone = backbone
        self.cloned = cloned or ClonedVoices()
        self._loader = loader
        self._senses = senses
        self._prompter = prompter
        self._parsers = parsers
        self._codec = codec
        self._makers = makers
        self._end_of_turn = tuple(end_of_turn)
        self._watch = watch or Watch()
        self.drain = Drain()
        self._gate = gate or Gate(measures=self._watch.measures)
        self.measures = self._watch.measures
        self.measures.watch_encoders(lambda: {str(m): (sense.asked, sense.encoded) for m, sense in senses.items()})
        self._load_lane = Lane("load", workers=2, seconds=stage_seconds)
        self._prompt_lane = Lane("prompt", seconds=stage_seconds)  # its own: words never wait for a film that is decoded
        self._breakers = [(m, sense.breaker) for m, sense in senses.items()]
        self._breakers += [(m, maker.breaker) for m, maker in makers.items()]

    @asynccontextmanager
    async def respond(self, request: Request) -> AsyncIterator[AsyncIterator[Event]]:
        """Steps 2 to 7 of one request. Entering raises what is wrong with the request; the iterator then ends in exactly one
        Done or Failed. Leaving, at any moment, cancels the backbone and every open span."""
        async with self._watch.reply(request) as watched:
            self.drain.check()
            self.check(request)
            request = self.cloned.spoken(request)
            await self.backbone.check()
            timeline = watched.timeline
            # 1 door: room, or the time at which there will be some
            async with self._gate.seat(request, watched, self.drain) as seat:
                request = seat.request
                # 2 load, 3 encode
                async with self.drain.in_time():
                    encodings, heard = await typed(self._encode(request, timeline))
                # 4 prompt
                with timeline.stage("prompt"):
                    prompt = await typed(self._prompt(request, encodings))
                seat.settle(prompt)
                # 5 backbone
                request = self._held_to_calls(request)
                tokens = self._speak(request, prompt)
                # 6 route
                router = Router(self.checkpoint.bands, self.checkpoint.image, self._end_of_turn)
                # 7 decode
                rate = self.checkpoint.sample_rate
                # What goes on from given words is no answer, so nothing in it is told apart.
                dialect = self.checkpoint.dialect if request.verbatim is None else Dialect()
                reader = self._parsers.open(request, prompt, dialect) if self._parsers and request.verbatim is None else None
                reply = Reply(request, prompt, self._codec, self._makers, rate, dialect, heard, timeline, reader)
                async with reply.run(tokens, router, self.drain):
                    yield watched.events(reply.events())

    async def prepare(self, part: ImagePart | AudioPart) -> None:
        """Steps 2 and 3 of one part, ahead of the request that will hold it. Raises what is wrong with it."""
        await typed(self._encode_part(part, Timeline()))

    async def speech(self, source: MediaSource) -> Speech:
        """Step 2 of a recording that was handed over as bytes. Raises what is wrong with it."""
        return await typed(self._load_lane.run(self._loader.speech, source))

    async def warm(self, request: Request) -> None:
        """Steps 2 to 5 of a conversation that goes on: the engine then need not read again what it has read. Where
        requests wait for room it is left out."""
        if self._gate.crowded:
            return
        encodings, _ = await typed(self._encode(request, Timeline()))
        prompt = await typed(self._prompt(request, encodings))
        one = Sampling(max_tokens=1)
        async with aclosing(self.backbone.stream(request.request_id, prompt, one, frozenset({Modality.TEXT}))) as tokens:
            async for _ in tokens:
                pass

    async def ready(self) -> dict[str, bool]:
        """Whether each modality can be served now, in every way that the checkpoint knows: read and made."""
        try:
            await self.backbone.check()
        except OmniError:
            alive = False
        else:
            alive = not self.drain.leaving
        modalities = self.checkpoint.modalities_in | self.checkpoint.modalities_out
        down = {modality for modality, breaker in self._breakers if not breaker.up}
        return {str(modality): alive and modality not in down for modality in sorted(modalities)}

    async def close(self) -> None:
        await self.backbone.close()
        for _, breaker in self._breakers:
            breaker.close()
        for lane in (self._load_lane, self._prompt_lane):
            lane.close()
        for lane in (self._load_lane, self._prompt_lane, *(breaker.lane for _, breaker in self._breakers)):
            await asyncio.to_thread(lane.join, LEAVE_SECONDS)
        self._watch.close()

    def check(self, request: Request) -> None:
        """Refuse what this checkpoint cannot do, before any work."""
        missing = sorted(request.modalities - self.checkpoint.modalities_out)
        if missing:
            raise ModalityUnavailable(
                f"modality `{missing[0]}` cannot be made by `{self.checkpoint.name}`; "
                f"expected some of {_listed(self.checkpoint.modalities_out)}",
                param="modalities",
            )
        self._check_tools(request)
        if request.sampling.form is not None:
            check_form(request)
        voice = request.decode.voice
        if voice is not None and voice not in self.checkpoint.voices and not self.cloned.known(voice):
            cloned = ", or the id of a voice that was made of a recording" if self.checkpoint.clones_voices else ""
            raise RequestError(
                f"voice `{voice}` is unknown; expected one of {_listed(self.checkpoint.voices)}{cloned}",
                param="audio.voice",
            )

    def _check_tools(self, request: Request) -> None:
        reads_calls = self._parsers is not None and self._parsers.reads_calls
        if request.tools and not reads_calls and self.checkpoint.dialect.tag_of("tool_call") is None:
            raise RequestError(f"`tools` is set; `{self.checkpoint.name}` has not learned to call tools", param="tools")
        check_calling(request)
        if request.calling.required and self._call_grammar(request) is None:
            raise RequestError(
                f"`tool_choice` asks for a call; `{self.checkpoint.name}` writes calls in no form that this server can hold "
                "it to, expected `auto` or `none`",
                param="tool_choice",
            )

    def _call_grammar(self, request: Request) -> Mapping[str, Any] | None:
        if self._parsers is not None and self._parsers.reads_calls:
            return self._parsers.grammar(request)
        form, calling = self._prompter.call_form, request.calling
        if form is None:
            return None
        tools = [tool for tool in request.tools if calling.named in (None, tool["function"]["name"])]
        tag = call_grammar(form, tools, several=calling.several and calling.named is None)
        return {"structural_tag": json.dumps(tag)}

    def _held_to_calls(self, request: Request) -> Request:
        """The sampling that the wish for tools asks for."""
        calls = self._call_grammar(request) if request.calling.required else None
        return replace(request, sampling=replace(request.sampling, calls=calls, may_call=bool(request.tools)))

    async def _prompt(self, request: Request, encodings: list[Encoding]) -> Prompt:
        if request.verbatim is not None:
            return await self._load_lane.run(self._prompter.verbatim, request.verbatim)
        draws = Modality.IMAGE in request.modalities
        # A form holds from the first token on, so there is no room for thoughts that nobody asked for.
        free = request.sampling.form is None or request.thinking.wanted is not None or request.thinking.budget is not None
        thinking = request.thinking if free else Thinking(wanted=False)
        return await self._prompt_lane.run(
            self._prompter.build, request.messages, encodings, request.tools, thinking, draws=draws
        )

    def _speak(self, request: Request, prompt: Prompt) -> AsyncGenerator[TokenChunk, None]:
        """The backbone's tokens; where thoughts have a budget, or a call must follow them, in two strides."""
        tag = self.checkpoint.dialect.tag_of("reasoning")
        strides = request.thinking.budget is not None or request.sampling.calls is not None
        if strides and prompt.thinking and tag is not None:
            return think_and_answer(self.backbone, request, prompt, self._codec, tag)
        return self.backbone.stream(request.request_id, prompt, request.sampling, request.modalities)

    async def _encode(self, request: Request, timeline: Timeline) -> tuple[list[Encoding], Speech | None]:
        """Every picture, utterance and video of the conversation, in order, those of one request side by side; and the user's
        last recording, whose voice an answer may take."""
        parts = [(m, p) for m in request.messages for p in m.parts if isinstance(p, MediaPart)]
        met = await asyncio.gather(*(self._encode_part(part, timeline) for _, part in parts))
        heard = [media for (message, _), (_, media) in zip(parts, met, strict=True) if message.role == "user"]
        speech = [media for media in heard if isinstance(media, Speech)]
        return [encoding for encoding, _ in met], speech[-1] if speech else None

    async def _encode_part(self, part: MediaPart, timeline: Timeline) -> tuple[Encoding, Picture | Speech | Video]:
        modality = {ImagePart: Modality.IMAGE, AudioPart: Modality.AUDIO, VideoPart: Modality.VIDEO}[type(part)]
        if modality not in self._senses:
            raise ModalityUnavailable(
                f"`{self.checkpoint.name}` cannot take `{modality}`; expected some of {_listed(self.checkpoint.modalities_in)}",
                param=part.source.param,
            )
        sense = self._senses[modality]
        with timeline.stage("load"):
            source = await self._loader.fetch(part.source)
            media = await self._load_lane.run(lambda: self._load(source, modality, sense))
        with timeline.stage("encode"):
            return await sense.encode(media), media

    def _load(self, source: MediaSource, modality: Modality, sense: Sense) -> Picture | Speech | Video:
        if isinstance(sense, VideoSense):
            return self._loader.video(source, sense.pace, sense.most_frames, hears=sense.hears)
        return self._loader.picture(source) if modality is Modality.IMAGE else self._loader.speech(source)


async def typed(step: Awaitable[Made]) -> Made:
    """What a step of ours raises without a type is one error to every door: live conversations go on after errors that they
    know, and end after others."""
    try:
        return await step
    except OmniError:
        raise
    except Exception as fault:
        _log.exception("a step of a request failed")
        raise OmniError("an internal error ended this request") from fault


def _listed(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "none"
