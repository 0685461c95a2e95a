"""Step 8. One response of the realtime wire, from `response.created` to `response.done`. Sync, no sockets, no clock."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable

from omni_server.errors import OmniError
from omni_server.live_audio import FrameWriter
from omni_server.realtime.held import Body, modality_names
from omni_server.realtime.items import answer_body, call_body
from omni_server.realtime.ledger import Asked, Ledger, Told, error_fields, milliseconds
from omni_server.turns import AnswerBegun, CallMade, Ending, ResponseDone, ResponsePart
from omni_server.types import AudioDelta, Done, ImageReady, Modality, SpanClosed

STATUSES = {
    Ending.COMPLETED: ("completed", None),
    Ending.INCOMPLETE: ("incomplete", "max_output_tokens"),
    Ending.INTERRUPTED: ("cancelled", "turn_detected"),
    Ending.CANCELLED: ("cancelled", "client_cancelled"),
    Ending.FAILED: ("failed", None),
}


class ResponseWriter:
    """`feed(event)` gives the events of one answer of the session, `words` those of its words so far."""

    def __init__(self, ledger: Ledger, id: str, asked: Asked) -> None:
        self.id = id
        self.over = False
        self._ledger = ledger
        self._asked = asked
        self._aloud = Modality.AUDIO in asked.held.settings.modalities
        self._sound: FrameWriter | None = None
        self._seconds = 0.0
        self._text = ""
        self._output: list[Body] = []
        self._message: int | None = None  # its place in the output
        self._previous: str | None = None  # what stands before the message in the conversation
        self._cut: list[Told] = []

    def created(self) -> Iterable[Told]:
        yield "response.created", {"response": self._body("in_progress")}

    def cut(self, events: list[Told]) -> None:
        """What is told once it is over."""
        self._cut = events

    def feed(self, event: AnswerBegun | ResponsePart | CallMade | ResponseDone) -> Iterable[Told]:
        match event:
            case AnswerBegun(item_id=id, previous=previous):
                yield from self._begun(id, previous)
            case ResponsePart(event=AudioDelta() as delta):
                yield from self._heard(delta)
            case ResponsePart(event=ImageReady(image=image)):
                png = io.BytesIO()
                image.save(png, "PNG")
                drawn = base64.b64encode(png.getvalue()).decode()
                yield "omni.image.done", {**self._place(), "format": "png", "image": drawn}
            case ResponsePart(event=SpanClosed(error=OmniError() as error)):
                yield "error", error_fields(error)
            case CallMade():
                yield from self._called(event)
            case ResponseDone():
                self.over = True
                yield from self._done(event)
            case _:
                pass

    def words(self, text: str) -> Iterable[Told]:
        if len(text) > len(self._text):
            delta, self._text = text[len(self._text) :], text
            kind = "output_audio_transcript" if self._aloud else "output_text"
            yield f"response.{kind}.delta", {**self._place(), "delta": delta}

    def _begun(self, id: str, previous: str | None) -> Iterable[Told]:
        item = answer_body(id, "in_progress", [])
        self._message, self._previous = len(self._output), previous
        self._output.append(item)
        self._ledger.items[id], self._ledger.responses[id] = item, self.id
        yield "response.output_item.added", {"response_id": self.id, "output_index": self._message, "item": item}
        if self._asked.kept:
            yield "conversation.item.added", {"previous_item_id": previous, "item": item}
        part = {"type": "audio", "transcript": ""} if self._aloud else {"type": "text", "text": ""}
        yield "response.content_part.added", {**self._place(), "part": part}

    def _heard(self, delta: AudioDelta) -> Iterable[Told]:
        if self._sound is None:
            wanted = self._asked.held.sound_out
            self._sound = FrameWriter(wanted.encoding, delta.sample_rate, wanted.sample_rate)
        start = self._seconds
        self._seconds += len(delta.samples) / delta.sample_rate
        yield from self._frames(self._sound.feed(delta.samples), start)

    def _frames(self, frames: list[bytes], start: float) -> Iterable[Told]:
        """`start_ms` and `end_ms` are an extension."""
        if data := b"".join(frames):
            times = {"start_ms": milliseconds(start), "end_ms": milliseconds(self._seconds)}
            sound = base64.b64encode(data).decode()
            yield "response.output_audio.delta", {**self._place(), "delta": sound, **times}

    def _called(self, call: CallMade) -> Iterable[Told]:
        item = call_body(call.item_id, "in_progress", call.call_id, call.name, "")
        whole = call_body(call.item_id, "completed", call.call_id, call.name, call.arguments)
        place = {"response_id": self.id, "output_index": len(self._output)}
        self._output.append(whole)
        self._ledger.items[call.item_id] = whole
        yield "response.output_item.added", {**place, "item": item}
        if self._asked.kept:
            yield "conversation.item.added", {"previous_item_id": call.previous, "item": item}
        which = {**place, "item_id": call.item_id, "call_id": call.call_id}
        yield "response.function_call_arguments.delta", {**which, "delta": call.arguments}
        yield "response.function_call_arguments.done", {**which, "name": call.name, "arguments": call.arguments}
        if self._asked.kept:
            yield "conversation.item.done", {"previous_item_id": call.previous, "item": whole}
        yield "response.output_item.done", {**place, "item": whole}

    def _done(self, event: ResponseDone) -> Iterable[Told]:
        status, _ = STATUSES[event.ending]
        if self._message is not None:
            yield from self._message_over(event.ending)
        yield "response.done", {"response": self._body(status, event)}
        yield from self._cut

    def _message_over(self, ending: Ending) -> Iterable[Told]:
        assert self._message is not None
        place = self._place()
        if self._aloud:
            if self._sound is not None and ending not in (Ending.INTERRUPTED, Ending.CANCELLED):
                yield from self._frames(self._sound.finish(), self._seconds)
            yield "response.output_audio.done", place
            yield "response.output_audio_transcript.done", {**place, "transcript": self._text}
            part: Body = {"type": "audio", "transcript": self._text}
            content: Body = {"type": "output_audio", "transcript": self._text}
        else:
            yield "response.output_text.done", {**place, "text": self._text}
            part = {"type": "text", "text": self._text}
            content = {"type": "output_text", "text": self._text}
        yield "response.content_part.done", {**place, "part": part}
        id = self._output[self._message]["id"]
        item = answer_body(id, "completed" if ending is Ending.COMPLETED else "incomplete", [content])
        self._output[self._message] = item
        if id in self._ledger.items:
            self._ledger.items[id] = item
        if self._asked.kept:
            yield "conversation.item.done", {"previous_item_id": self._previous, "item": item}
        where = {"response_id": self.id, "output_index": self._message}
        yield "response.output_item.done", {**where, "item": item}

    def _place(self) -> Body:
        at = self._message
        assert at is not None
        return {
            "response_id": self.id,
            "item_id": self._output[at]["id"],
            "output_index": at,
            "content_index": 0,
        }

    def _body(self, status: str, over: ResponseDone | None = None) -> Body:
        held = self._asked.held
        done = over.done if over is not None else None
        return {
            "id": self.id,
            "object": "realtime.response",
            "status": status,
            "status_details": status_details(over) if over is not None else None,
            "output": list(self._output),
            "conversation_id": self._ledger.conversation_id if self._asked.kept else None,
            "output_modalities": modality_names(held.settings),
            "audio": {"output": {"format": held.sound_out.body, "voice": held.settings.voice}} if self._aloud else None,
            "max_output_tokens": held.settings.sampling.max_tokens or "inf",
            "metadata": self._asked.metadata,
            "usage": usage_body(done) if done is not None else None,
        }


def status_details(over: ResponseDone) -> Body | None:
    status, reason = STATUSES[over.ending]
    if over.error is not None:
        error = over.error
        return {"type": status, "error": {"type": error.type, "code": error.code, "message": error.message}}
    return {"type": status, "reason": reason} if reason is not None else None


def usage_body(done: Done) -> Body:
    usage = done.usage
    audio_in, image_in = usage.prompt_audio_tokens, usage.prompt_image_tokens
    audio_out, image_out = usage.completion_audio_tokens, usage.completion_image_tokens
    return {
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "input_token_details": {
            "text_tokens": usage.prompt_tokens - audio_in - image_in,
            "audio_tokens": audio_in,
            "image_tokens": image_in,
            "cached_tokens": usage.cached_tokens,
        },
        "output_token_details": {
            "text_tokens": usage.completion_tokens - audio_out - image_out,
            "audio_tokens": audio_out,
            "image_tokens": image_out,
        },
    }
