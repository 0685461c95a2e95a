"""The answering side of a live conversation: one answer at a time, begun early, interrupted, cut to what was heard."""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from omni_server.answer import Answer
from omni_server.arguments import written_arguments
from omni_server.conversation import Conversation
from omni_server.door import Responder
from omni_server.errors import OutOfOrder, RequestError
from omni_server.outbox import Outbox
from omni_server.tasks import Tasks
from omni_server.turns import (
    AnswerBegun,
    CallMade,
    Ending,
    Interrupted,
    Item,
    ItemDropped,
    ItemPlaced,
    ResponseDone,
    ResponsePart,
    ResponseStarted,
    SessionEvent,
    SessionSettings,
    Transcript,
    Trouble,
    Truncated,
    TurnComplete,
    Wish,
)
from omni_server.types import AudioDelta, Message, Modality, Part, Request, SpanOpened, TextPart, ToolCall, ToolCalled
from omni_server.wording import shown

ANSWERS_KEPT = 16  # that may still be truncated
FULL = 0.75  # of the context; a conversation above it loses its oldest exchange

Underway = tuple[Answer, asyncio.Task[None]]


class Answering:
    """`commit` a turn, and it is answered into the outbox."""

    def __init__(
        self,
        pipeline: Responder,
        settings: SessionSettings,
        outbox: Outbox[SessionEvent],
        tasks: Tasks,
        clock: Callable[[], float],
    ) -> None:
        self._pipeline, self._settings, self._outbox, self._tasks, self._clock = pipeline, settings, outbox, tasks, clock
        self.conversation = Conversation(settings.history)
        self._current: Underway | None = None
        self._guess: Underway | None = None
        self._unanswered: str | None = None
        self._handed_back: str | None = None  # the last call whose result came
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._hurried = False

    @property
    def busy(self) -> bool:
        """An answer is being made, or still being heard."""
        return self._current is not None

    def answers(self, response_id: str) -> bool:
        return self._current is not None and self._current[0].id == response_id

    def change(self, settings: SessionSettings) -> None:
        """From the next answer on. What was begun ahead was begun for others."""
        self.drop_guess()
        self._settings = settings

    def request(self, *parts: Part, wish: Wish | None = None) -> Request:
        """For the next answer; `parts` are a turn that is not part of the conversation yet."""
        wish = wish or Wish(self._settings)
        settings = wish.settings
        conversation = self.conversation if wish.messages is None else Conversation(wish.messages)
        latest = self._pipeline.checkpoint.turns if wish.messages is None else 0
        return Request(
            request_id=f"converse-{uuid.uuid4().hex}",
            messages=conversation.messages(*parts, instructions=settings.instructions, latest=latest),
            modalities=settings.modalities | {Modality.TEXT},
            sampling=settings.sampling,
            decode=replace(settings.drawing, voice=settings.voice, seed=settings.sampling.seed),
            tools=settings.tools,
            calling=settings.calling,
            thinking=settings.thinking,
        )

    def guess(self, parts: tuple[Part, ...]) -> None:
        """The turn may be over: begins its answer, of which nobody hears unless `commit` brings the same parts."""
        self.drop_guess()
        if self._current is None:
            self._guess = self._begin(parts)

    def drop_guess(self) -> None:
        if self._guess is not None:
            self._guess[1].cancel()
            self._guess = None

    def commit(self, turn_id: str, parts: tuple[Part, ...]) -> None:
        """The turn, which is part of the conversation by now, is over and is answered."""
        if self._settings.turns.interrupts:
            self.break_off(Ending.INTERRUPTED)
        guess, self._guess = self._guess, None
        if guess is not None and guess[0].parts != parts:
            guess[1].cancel()
            guess = None
        if self._current is None:
            self._open(turn_id, guess or self._begin(()))
        else:
            self._unanswered = turn_id

    def respond(self, wish: Wish) -> str:
        """Answers the conversation as it stands, or what is wished for; the answer's id. Raises what is wrong with the wish,
        and where another answer is being made."""
        request = self.request(wish=wish)
        if not request.messages:
            raise RequestError("there is nothing to answer: the conversation is empty and there are no `instructions`")
        self._pipeline.check(request)
        if self._current is not None and self._current[0].made:  # and only being heard
            answer, task = self._current
            task.cancel()
            self._over(answer)
        if self._current is not None:
            told = f"{shown(self._current[0].id)} is being made; expected `response.cancel`, or its end, before the next one"
            raise OutOfOrder(told, code="conversation_already_has_active_response")
        self.drop_guess()
        underway = self._begin((), wish)
        self._open("", underway)
        return underway[0].id

    def break_off(self, ending: Ending) -> None:
        """Generation, vocoder and queued sound of the answer under way, if any, stop; what was heard of it stays."""
        if self._current is None:
            return
        answer, task = self._current
        heard = answer.playback.heard(self._clock())
        text = answer.spoken.heard(heard)
        task.cancel()
        self._outbox.drop(lambda event: _is_sound_of(answer.id, event))
        self.conversation.answer(answer.item_id, text, answer.images)
        if ending is Ending.INTERRUPTED:
            self._outbox.put(Interrupted(answer.id, heard, text))
        if not answer.made:
            self._outbox.put(Transcript(answer.id, "assistant", text, final=True))
            self._outbox.put(answer.broken_off(ending))
        self._over(answer)

    def cancel(self, response_id: str) -> bool:
        """An answer that is over already is let be. Whether one was being made, and is not any more."""
        if self._current is None or response_id not in ("", self._current[0].id):
            return False
        making = not self._current[0].made
        self.break_off(Ending.CANCELLED)
        return making

    def truncate(self, response_id: str, heard: float) -> None:
        answer = self._answers.get(response_id)
        if answer is None:
            told = f"`response_id` is {shown(response_id)}, which is no answer of this call, or too old; expected a later one"
            self._outbox.put(Trouble(RequestError(told, param="truncate.response_id")))
            return
        answer.report(heard)
        if self._current is not None and answer is self._current[0]:
            self.break_off(Ending.CANCELLED)
        text = answer.spoken.heard(heard)
        self.conversation.answer(answer.item_id, text, answer.images)
        self._outbox.put(Truncated(answer.id, heard, text))

    def played(self, response_id: str, heard: float) -> None:
        if response_id in self._answers:
            self._answers[response_id].report(heard)

    def hand_back(self, call_id: str, output: str) -> None:
        """What a tool answered. Once every call beside it has its result, the model goes on."""
        name = self.conversation.name_of(call_id)
        if name is None or self.conversation.has_result(call_id):
            told = f"`tool_result.call_id` is {shown(call_id)}; expected that of a call which has no result yet"
            self._outbox.put(Trouble(RequestError(told, param="tool_result.call_id")))
            return
        item = Item(f"item-{uuid.uuid4().hex[:12]}", Message("tool", (TextPart(output),), tool=name), call_id)
        self._outbox.put(ItemPlaced(item.id, self.conversation.place(item)))
        self.drop_guess()
        self._handed_back = call_id
        self._go_on()

    def drop(self, item_id: str) -> bool:
        """Whether there was such a turn; it has never been."""
        if not item_id or item_id not in self.conversation:
            return False
        self.drop_guess()
        if self.conversation.forget(item_id):
            self._outbox.put(ItemDropped(item_id))
        return True

    def hurry(self) -> None:
        """Nobody will speak any more, so no answer is waited for until it has been heard."""
        self._hurried = True
        if self._current is not None:
            self._current[0].hurry()

    def sent(self, event: SessionEvent) -> None:
        """An event has reached the client."""
        match event:
            case ResponsePart(response_id=id, event=AudioDelta() as delta) if id in self._answers:
                self._answers[id].playback.feed(len(delta.samples) / delta.sample_rate, self._clock())
            case ResponseDone(response_id=id) if id in self._answers:
                self._answers[id].delivered()
            case _:
                pass

    def _begin(self, parts: tuple[Part, ...], wish: Wish | None = None) -> Underway:
        answer = Answer(wish or Wish(self._settings), parts, self._clock)
        return answer, self._tasks.start(self._play(answer))

    def _open(self, turn_id: str, underway: Underway) -> None:
        self._current = underway
        answer = underway[0]
        answer.turn_id, answer.parts = turn_id, ()  # they are in the conversation by now
        if answer.wish.kept:
            self.conversation.reserve(answer.item_id)
        self._answers[answer.id] = answer
        while len(self._answers) > ANSWERS_KEPT:
            self._answers.popitem(last=False)
        self._outbox.put(ResponseStarted(answer.id, turn_id))
        answer.want()
        if self._hurried:
            answer.hurry()

    async def _play(self, answer: Answer) -> None:
        # What an answer apart from the conversation stands on is the client's to shorten.
        trim = self.conversation.trim if answer.wish.messages is None else lambda: False
        done = await answer.run(self._pipeline, lambda: self.request(*answer.parts, wish=answer.wish), trim, self._post)
        text = answer.spoken.text
        if done.ending is Ending.FAILED and not text:
            self.drop(answer.turn_id)
            self.drop(answer.item_id)
        else:
            self.conversation.answer(answer.item_id, text, answer.images)
            self._outbox.put(Transcript(answer.id, "assistant", text, final=True))
        self._outbox.put(done)
        usage = done.done.usage if done.done is not None else None
        if usage is not None and usage.prompt_tokens > FULL * self._pipeline.checkpoint.context_length:
            self.conversation.trim()
        await answer.heard_out()
        self._over(answer)

    def _over(self, answer: Answer) -> None:
        self._outbox.put(TurnComplete(answer.id))
        self._current = None
        self._go_on()

    def _go_on(self) -> None:
        """Answers whatever has waited for the end of an answer."""
        if self._current is not None:
            return
        wish = None
        if self._handed_back is not None and self.conversation.has_all_results(self._handed_back):
            self._handed_back, self._unanswered = None, self._unanswered or ""
            calling = replace(self._settings.calling, required=False, named=None)  # or it would call for ever
            wish = Wish(replace(self._settings, calling=calling))
        if self._unanswered is not None:
            turn_id, self._unanswered = self._unanswered, None
            self._open(turn_id, self._begin((), wish))

    async def _post(self, event: SessionEvent) -> None:
        await self._outbox.room()
        match event:
            case ResponsePart(response_id=id, event=ToolCalled() as called):
                event = self._placed(self._answers[id], called)
            case ResponsePart(response_id=id, event=SpanOpened()) if not self._answers[id].begun:
                answer = self._answers[id]
                answer.begun = True
                previous = self.conversation.begin(answer.item_id) if answer.item_id in self.conversation else None
                self._outbox.put(AnswerBegun(id, answer.item_id, previous))
            case _:
                pass
        self._outbox.put(event)

    def _placed(self, answer: Answer, called: ToolCalled) -> CallMade:
        """A call stands behind the words of its answer, and behind the calls before it."""
        item_id, call_id = (f"{kind}-{uuid.uuid4().hex[:12]}" for kind in ("item", "call"))
        call = Message("assistant", (), tool_calls=(ToolCall(called.name, written_arguments(called.arguments)),))
        previous = None
        if answer.wish.kept:
            after = answer.last_item if answer.last_item in self.conversation else None
            previous = self.conversation.place(Item(item_id, call, call_id), after)
            answer.last_item = item_id
        return CallMade(answer.id, item_id, previous, called.index, call_id, called.name, called.arguments)


def _is_sound_of(response_id: str, event: SessionEvent) -> bool:
    return isinstance(event, ResponsePart) and event.response_id == response_id and isinstance(event.event, AudioDelta)
