"""The answering side of a live conversation: one answer at a time, begun early, interrupted, cut to what was heard."""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Callable

from omni_server.answer import Answer
from omni_server.conversation import Conversation
from omni_server.door import Responder
from omni_server.errors import RequestError
from omni_server.outbox import Outbox
from omni_server.tasks import Tasks
from omni_server.turns import (
    Ending,
    Interrupted,
    ResponseDone,
    ResponsePart,
    ResponseStarted,
    SessionEvent,
    SessionSettings,
    Transcript,
    Trouble,
    Truncated,
    TurnComplete,
)
from omni_server.types import AudioDelta, DecodeOptions, Modality, Part, Request
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
        self._conversation = Conversation(settings.instructions, settings.history)
        self._current: Underway | None = None
        self._guess: Underway | None = None
        self._unanswered: str | None = None
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._hurried = False

    @property
    def busy(self) -> bool:
        """An answer is being made, or still being heard."""
        return self._current is not None

    def request(self, *parts: Part) -> Request:
        """For the next answer; `parts` are a turn that is not part of the conversation yet."""
        return Request(
            request_id=f"converse-{uuid.uuid4().hex}",
            messages=self._conversation.messages(*parts),
            modalities=self._settings.modalities | {Modality.TEXT},
            sampling=self._settings.sampling,
            decode=DecodeOptions(voice=self._settings.voice, seed=self._settings.sampling.seed),
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
        """The turn is over and part of the conversation."""
        if self._settings.turns.interrupts:
            self.break_off(Ending.INTERRUPTED)
        guess, self._guess = self._guess, None
        if guess is not None and guess[0].parts != parts:
            guess[1].cancel()
            guess = None
        self._conversation.listen(turn_id, parts)
        if self._current is None:
            self._open(turn_id, guess)
        else:
            self._unanswered = turn_id

    def break_off(self, ending: Ending) -> None:
        """Generation, vocoder and queued sound of the answer under way, if any, stop; what was heard of it stays."""
        if self._current is None:
            return
        answer, task = self._current
        heard = answer.playback.heard(self._clock())
        text = answer.spoken.heard(heard)
        task.cancel()
        self._outbox.drop(lambda event: _is_sound_of(answer.id, event))
        self._conversation.answer(answer.id, text, answer.images)
        if ending is Ending.INTERRUPTED:
            self._outbox.put(Interrupted(answer.id, heard, text))
        if not answer.made:
            self._outbox.put(Transcript(answer.id, "assistant", text, final=True))
            self._outbox.put(answer.broken_off(ending))
        self._over(answer)

    def cancel(self, response_id: str) -> None:
        """An answer that is over already is let be."""
        if self._current is not None and response_id in ("", self._current[0].id):
            self.break_off(Ending.CANCELLED)

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
        self._conversation.answer(answer.id, text, answer.images)
        self._outbox.put(Truncated(answer.id, heard, text))

    def played(self, response_id: str, heard: float) -> None:
        if response_id in self._answers:
            self._answers[response_id].report(heard)

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

    def _begin(self, parts: tuple[Part, ...]) -> Underway:
        aloud = Modality.AUDIO in self._settings.modalities
        answer = Answer(f"response-{uuid.uuid4().hex[:12]}", parts, aloud, self._clock)
        return answer, self._tasks.start(self._play(answer))

    def _open(self, turn_id: str, guess: Underway | None) -> None:
        self._current = guess or self._begin(())
        answer = self._current[0]
        answer.turn_id, answer.parts = turn_id, ()  # they are in the conversation by now
        self._conversation.answer(answer.id, "")  # its place, whoever speaks next
        self._answers[answer.id] = answer
        while len(self._answers) > ANSWERS_KEPT:
            self._answers.popitem(last=False)
        self._outbox.put(ResponseStarted(answer.id, turn_id))
        answer.want()
        if self._hurried:
            answer.hurry()

    async def _play(self, answer: Answer) -> None:
        done = await answer.run(self._pipeline, lambda: self.request(*answer.parts), self._conversation.trim, self._post)
        text = answer.spoken.text
        if done.ending is Ending.FAILED and not text:
            self._conversation.forget(answer.turn_id, answer.id)
        else:
            self._conversation.answer(answer.id, text, answer.images)
            self._outbox.put(Transcript(answer.id, "assistant", text, final=True))
        self._outbox.put(done)
        usage = done.done.usage if done.done is not None else None
        if usage is not None and usage.prompt_tokens > FULL * self._pipeline.checkpoint.context_length:
            self._conversation.trim()
        await answer.heard_out()
        self._over(answer)

    def _over(self, answer: Answer) -> None:
        self._outbox.put(TurnComplete(answer.id))
        self._current = None
        if self._unanswered is not None:
            turn_id, self._unanswered = self._unanswered, None
            self._open(turn_id, None)

    async def _post(self, event: SessionEvent) -> None:
        await self._outbox.room()
        self._outbox.put(event)


def _is_sound_of(response_id: str, event: SessionEvent) -> bool:
    return isinstance(event, ResponsePart) and event.response_id == response_id and isinstance(event.event, AudioDelta)
