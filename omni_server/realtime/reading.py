"""Step 1. One client event of the realtime wire to calls of the session; what is answered at once, without the session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from omni_server.door import Door
from omni_server.errors import OmniError, OutOfOrder, RequestError
from omni_server.live_audio import open_reader
from omni_server.realtime.held import Body, hold_for_one, hold_more, session_body
from omni_server.realtime.items import frames, item_body, read_base64, read_item
from omni_server.realtime.ledger import Asked, Ledger, told
from omni_server.realtime.wire import (
    BufferAppend,
    BufferClear,
    BufferCommit,
    ClientEvent,
    ItemCreate,
    ItemDelete,
    ItemFields,
    ItemRetrieve,
    ItemTruncate,
    ResponseCancel,
    ResponseCreate,
    ResponseFields,
    SessionUpdate,
)
from omni_server.session import Session
from omni_server.turns import Item, Wish
from omni_server.types import Message
from omni_server.wording import shown

# What the core calls the fields of a conversation, and what they are called here.
FIELDS = {
    "audio.voice": "audio.output.voice",
    "modalities": "output_modalities",
    "language": "audio.input.transcription.language",
}
ROOT = "root"  # what OpenAI calls the beginning of a conversation


@dataclass(frozen=True, slots=True)
class EventReader:
    """`take(event)` gives what is told at once. Raises what is wrong with the event; the call goes on without it."""

    session: Session
    ledger: Ledger
    door: Door

    async def take(self, event: ClientEvent) -> list[Body]:
        match event:
            case BufferAppend():
                for frame in frames(read_base64(event.audio, "audio"), self.ledger.held.sound_in):
                    await self.session.hear(frame)
            case BufferCommit():
                if not await self.session.commit():
                    told_what = "the input audio buffer holds no voice; expected `input_audio_buffer.append` before"
                    raise RequestError(told_what, code="input_audio_buffer_commit_empty")
            case BufferClear():
                self.session.clear()
                return [told("input_audio_buffer.cleared")]
            case SessionUpdate():
                with named("session"):
                    return self._change(event)
            case ItemCreate():
                await self._place(event)
            case ItemDelete(item_id=id):
                if not self.session.drop(id):
                    raise _no_item(id, "item_delete_invalid_item_id")
            case ItemRetrieve(item_id=id):
                if id not in self.ledger.items:
                    raise _no_item(id, "item_retrieve_invalid_item_id")
                return [told("conversation.item.retrieved", item=self.ledger.items[id])]
            case ItemTruncate(item_id=id, audio_end_ms=end):
                if id not in self.ledger.responses:
                    raise _no_item(id, "item_truncate_invalid_item_id")
                self.session.truncate(self.ledger.responses[id], end / 1000)
            case ResponseCreate():
                with named("response"):
                    await self._respond(event.response or ResponseFields())
            case ResponseCancel(response_id=id):
                if not self.session.cancel(id or ""):
                    told_what = "Cancellation failed: no such response is being made"
                    raise OutOfOrder(told_what, param="response_id", code="response_cancel_not_active")
            case _:
                raise TypeError(f"`{event.type}` is read and not taken")
        return []

    def _change(self, event: SessionUpdate) -> list[Body]:
        before = self.ledger.held
        held = hold_more(before, event.session, self.door)
        sound = held.sound_in
        reader = open_reader(sound.encoding, sound.sample_rate) if sound != before.sound_in else None
        self.session.change(held.settings, reader)
        self.ledger.held = held
        return [told("session.updated", session=session_body(held, self.session.id, self.door))]

    async def _place(self, event: ItemCreate) -> None:
        item = self._read(event.item, "item")
        after = "" if event.previous_item_id == ROOT else event.previous_item_id
        before = self.ledger.items.get(item.id)
        self.ledger.items[item.id] = item_body(event.item, item.id, item.call_id)
        try:
            await self.session.place(item, after)
        except BaseException:
            self.ledger.items.pop(item.id)
            if before is not None:
                self.ledger.items[item.id] = before
            raise

    async def _respond(self, asked: ResponseFields) -> None:
        held = hold_for_one(self.ledger.held, asked)
        messages: tuple[Message, ...] | None = None
        if asked.input is not None:
            messages = tuple(self._meant(item, f"input[{place}]") for place, item in enumerate(asked.input))
        kept = asked.conversation != "none"
        response_id = await self.session.respond(Wish(held.settings, messages, kept))
        self.ledger.asked[response_id] = Asked(held, kept, asked.metadata)

    def _meant(self, item: ItemFields, param: str) -> Message:
        """An item, or what is in the conversation already and is referred to."""
        if item.type != "item_reference":
            return self._read(item, param).message
        found = self.session.message_of(item.id or "")
        if found is None:
            told = f"`{param}.id` is {shown(item.id or '')}, which is not in the conversation; expected an item that is"
            raise RequestError(told, param=f"{param}.id")
        return found

    def _read(self, item: ItemFields, param: str) -> Item:
        return read_item(item, self.ledger.held.sound_in, param, self.session.name_of)


@contextmanager
def named(event: str) -> Iterator[None]:
    """What is wrong is told by the name that the field has on this wire."""
    try:
        yield
    except OmniError as error:
        if error.param is not None:
            error.param = f"{event}.{FIELDS.get(error.param, error.param)}"
        raise


def _no_item(id: str, code: str) -> RequestError:
    return RequestError(
        f"`item_id` is {shown(id)}, which is not in the conversation; expected one that is", param="item_id", code=code
    )
