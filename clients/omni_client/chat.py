"""A conversation in writing: lines in, a reply for each, pictures and voices into files. Knows no arguments of a command."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from omni_client.client import OmniClient
from omni_client.content import Message
from omni_client.errors import APIError, MediaError, OmniError
from omni_client.events import Event, ImageReady, SpanClosed, SpanOpened, TextDelta
from omni_client.media import Audio, Picture
from omni_client.progress import progress
from omni_client.reply import Reply

HELP = """\
/image FILE   show the model a picture together with your next line
/audio FILE   let the model hear a recording together with your next line; an empty line sends it alone
/new          forget the conversation
/quit         leave"""


@dataclass(slots=True)
class Chat:
    """The conversation so far, and what goes with the next line. Files are `reply-1.png`, `reply-1.wav`, ... in `folder`."""

    client: OmniClient
    modalities: Sequence[str]
    voice: str | None
    system: str | None
    folder: Path
    turns: list[Message | Reply] = field(default_factory=list)
    attached: list[Picture | Audio] = field(default_factory=list)

    def attach(self, command: str, path: str) -> str:
        """Reads the file now, so that what is wrong with it is told now. Returns what to tell."""
        medium = Picture.open(path) if command == "/image" else Audio.open(path)
        self.attached.append(medium)
        return f"[{path} goes with your next line]"

    def ask(self, words: str) -> Iterator[str]:
        """Sends the turn and yields what to show, as it comes. A turn that fails is forgotten."""
        content: list[Any] = [*self.attached, *([words] if words else [])]
        turn = Message("user", content if self.attached else words)
        self.attached = []
        wishes: Any = {"modalities": self.modalities, "voice": self.voice, "system": self.system}
        wishes = {name: value for name, value in wishes.items() if value is not None}
        with self.client.stream([*self.turns, turn], **wishes) as stream:
            stem = self._free_stem()
            pictures = itertools.count(1)
            for event in stream:
                yield self._shown(event, stem, pictures)
            reply = stream.final()
        if reply.audio is not None:
            yield f"\n[voice: {reply.audio.save(stem.with_suffix('.wav'))}]"
        if reply.finish_reason == "length":
            yield "\n[the limit on tokens cut this reply]"
        self.turns += [turn, reply]

    def _shown(self, event: Event, stem: Path, pictures: Iterator[int]) -> str:
        match event:
            case TextDelta(text=text):
                return text
            case SpanOpened(modality="image"):
                return "\n"
            case ImageReady(picture=picture):
                number = next(pictures)
                name = stem.name if number == 1 else f"{stem.name}-{number}"
                return f"\n[picture: {picture.save(stem.with_name(f'{name}.{picture.format}'))}]\n"
            case SpanClosed(error=error) if error is not None:
                return f"\n[{error.message}]\n"
            case _:
                return ""

    def _free_stem(self) -> Path:
        """A name that no earlier reply has taken, also not one of an earlier conversation."""
        taken = {path.name.split(".")[0] for path in self.folder.glob("reply-*")}
        return next(self.folder / name for number in itertools.count(1) if (name := f"reply-{number}") not in taken)


def hold(chat: Chat, lines: TextIO, out: TextIO) -> int:
    """Reads lines until `/quit` or their end. On a terminal a fault is told and the conversation goes on; from a pipe the
    exit code is 1 then."""
    person = lines.isatty()
    failed = False
    if person:
        print(f"{HELP}\n", file=out)
    while True:
        try:
            line = input("> ") if person else next(iter(lines))
        except (EOFError, StopIteration):
            break
        line = line.strip()
        if line == "/quit":
            break
        failed = not _answer(chat, line, out, person) or failed
    if chat.attached and not person:
        failed = not _answer(chat, "", out, person) or failed
    return int(failed and not person)


def _answer(chat: Chat, line: str, out: TextIO, person: bool) -> bool:
    """Whether the line could be answered."""
    command, _, rest = line.partition(" ")
    try:
        if command in ("/image", "/audio") and rest.strip():
            print(chat.attach(command, rest.strip()), file=out, flush=True)
        elif command == "/new":
            chat.turns.clear()
            print("[a new conversation]", file=out, flush=True)
        elif command.startswith("/"):
            print(HELP, file=out, flush=True)
            return command == "/help"
        elif line or chat.attached:
            _show(chat.ask(line), out)
    except OmniError as problem:
        full = isinstance(problem, APIError) and problem.code == "context_length_exceeded" and chat.turns
        hint = "; /new begins a new conversation" if full else ""
        print(f"[{problem}{hint}]", file=out, flush=True)
        return isinstance(problem, MediaError) and person
    except KeyboardInterrupt:
        if not person:
            raise
        print("\n[stopped]", file=out, flush=True)
    return True


def _show(pieces: Iterator[str], out: TextIO) -> None:
    """Writes the pieces as they come, with line breaks only where they are needed."""
    fresh = True  # whether the cursor stands at the beginning of a line
    while True:
        with progress("working") if fresh else nullcontext():
            piece = next(pieces, None)
        if piece is None:
            break
        text = piece.removeprefix("\n") if fresh else piece
        if text:
            print(text, end="", file=out, flush=True)
            fresh = text.endswith("\n")
    if not fresh:
        print(file=out, flush=True)
