"""A spoken conversation: a microphone or a recording in, a speaker or a recording out. Knows no arguments of a command."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from omni_client.call import Call
from omni_client.call_events import CallEvent, Caption, GoAway, Interrupted, Refused, ResponseDone, ResponseStarted
from omni_client.events import AudioDelta, ImageReady, SpanClosed
from omni_client.media import Audio
from omni_client.sound import Speaker

WHO = {"user": "you", "assistant": "it"}


@dataclass(slots=True)
class Talk:
    """Plays what is said on `speaker`, where there is one; keeps it for `file`, where that is set. Pictures of an answer go
    into `folder`."""

    call: Call
    out: TextIO
    speaker: Speaker | None
    file: Path | None
    folder: Path
    spoken: bytearray = field(default_factory=bytearray)
    pictures: int = 0
    response_id: str = ""

    def hold(self) -> int:
        """To the end of the call. 1 where an answer failed."""
        failed = False
        try:
            for event in self.call:
                failed = self._take(event) or failed
        finally:  # also what was said before a fault, or before Ctrl-C
            self._save()
        return int(failed)

    def _save(self) -> None:
        if self.file is None or not self.spoken or self.call.ready is None:
            return
        audio = Audio.from_pcm(bytes(self.spoken), self.call.ready.output_sample_rate)
        self._tell(f"[{audio.seconds:.2f} s of voice: {audio.save(self.file)}]")

    def _take(self, event: CallEvent) -> bool:
        """Whether an answer failed."""
        match event:
            case ResponseStarted(response_id=response_id):
                self.response_id = response_id
                if self.speaker is not None:
                    self.speaker.begin()
            case AudioDelta(pcm=pcm):
                self._sound(pcm)
            case Caption(role=role, text=text, final=True):
                self._tell(f"{WHO[role]}: {text}")
            case ImageReady(picture=picture):
                self.pictures += 1
                self._tell(f"[picture: {picture.save(self.folder / f'talk-{self.pictures}')}]")
            case SpanClosed(error=error) if error is not None:
                self._tell(f"[{error.message}]")
            case Interrupted():
                if self.speaker is not None:
                    self.speaker.drop()
                self._tell("[interrupted]")
            case Refused(message=message):
                self._tell(f"[{message}]")
            case ResponseDone(status="failed", error=error):
                self._tell(f"[the answer failed: {error.message if error is not None else 'no reason was given'}]")
                return True
            case ResponseDone(turn_to_first_audio=pause) if pause is not None:
                self._tell(f"[first sound after {pause:.2f} s]")
            case GoAway(seconds=seconds):
                self._tell(f"[the server stops in {seconds:.0f} s]")
            case _:
                pass
        return False

    def _sound(self, pcm: bytes) -> None:
        if self.file is not None:
            self.spoken += pcm
        if self.speaker is not None:
            self.speaker.play(pcm)
            self.call.played(self.response_id, self.speaker.heard)

    def _tell(self, line: str) -> None:
        print(line, file=self.out, flush=True)
