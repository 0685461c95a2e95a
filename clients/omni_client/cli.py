"""The command line of the SDK: chat, draw, say, transcribe and talk. Asks a running server; needs no model of its own."""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from omni_client.call_setup import CallWishes
from omni_client.chat import Chat, hold
from omni_client.client import OmniClient
from omni_client.errors import APIConnectionError, APITimeoutError, MediaError, OmniError, StreamBrokenError
from omni_client.media import OTHER_NAMES, Audio
from omni_client.progress import AFTER_SECONDS, progress
from omni_client.sound import Microphone, Speaker
from omni_client.talk import Talk
from omni_client.wire import AudioFormat, PictureFormat

COMMANDS = ("chat", "draw", "say", "transcribe", "talk")
NO_SERVER = "Start one with `omni-server serve`, or name another with --url or OMNI_BASE_URL."
PICTURE_FORMATS: dict[str, PictureFormat] = {"png": "png", "jpeg": "jpeg", "webp": "webp"}
AUDIO_FORMATS: dict[str, AudioFormat] = {"wav": "wav", "mp3": "mp3", "flac": "flac", "ogg": "opus", "aac": "aac"}


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m omni_client`, for an installation without the server."""
    parser = argparse.ArgumentParser(prog="omni-client", description="Ask a running omni-server.")
    add_commands(parser.add_subparsers(dest="command", required=True, metavar="COMMAND"))
    return run(parser.parse_args(arguments), parser.prog)


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds chat, draw, say, transcribe and talk to a parser's commands."""
    chat = _command(commands, "chat", "talk with the model in writing; pictures and voices of a reply are saved and named")
    chat.add_argument(
        "--voice", nargs="?", const="", metavar="NAME", help="speak the replies too, with this voice or the first"
    )
    chat.add_argument("--system", metavar="WORDS", help="what the model is told before the conversation")
    chat.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where pictures and voices go; here by default")

    draw = _command(commands, "draw", "draw a picture of what the words say")
    draw.add_argument("words", nargs="*", help="what to draw; read from standard input if left out")
    draw.add_argument("-o", "--out", metavar="FILE", help="png, jpeg or webp, by its suffix; named by the words by default")
    draw.add_argument("--count", type=int, default=1, metavar="N", help="how many pictures, 1 to 10")
    draw.add_argument("--seed", type=int, metavar="N", help="draws the same picture again")

    say = _command(commands, "say", "read the words aloud into a file")
    say.add_argument("words", nargs="*", help="what to say; read from standard input if left out")
    say.add_argument(
        "-o", "--out", metavar="FILE", help="wav, mp3, flac, ogg or aac, by its suffix; named by the words by default"
    )
    say.add_argument("--voice", metavar="NAME", help="who speaks; `omni-server say --voice ?` names the voices")

    transcribe = _command(commands, "transcribe", "write down what is said in a recording")
    transcribe.add_argument("file", help="a recording: wav, mp3, flac, ogg, aac, webm or m4a")
    transcribe.add_argument("-o", "--out", metavar="FILE", help="write the words there too")
    transcribe.add_argument("--language", metavar="NAME", help="how the model is asked, such as `en` or `ko`")

    talk = _command(commands, "talk", "hold a spoken conversation, with the microphone or with a recording")
    talk.add_argument("file", nargs="?", help="a WAV, 16 bits mono, instead of the microphone; sent as fast as it is spoken")
    talk.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="write the answers into this WAV; answer.wav for a recording"
    )
    talk.add_argument("--voice", metavar="NAME", help="who answers")
    talk.add_argument("--captions", action="store_true", help="write down what you say, too")
    talk.add_argument("--grpc", metavar="HOST:PORT", help="where gRPC is (OMNI_GRPC_TARGET; default one port above --url)")


def _command(commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, does: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.", allow_abbrev=False)
    command.add_argument("--url", help="where the server is (OMNI_BASE_URL; default http://127.0.0.1:8000)")
    command.add_argument("--model", metavar="NAME", help="which model; the server's first by default")
    return command


def run(given: argparse.Namespace, program: str) -> int:
    """The exit code: 0 done, 1 not done, 130 interrupted. What went wrong is one sentence on standard error."""
    try:
        with OmniClient(given.url, model=given.model, grpc_target=getattr(given, "grpc", None)) as client:
            match given.command:
                case "chat":
                    return _chat(client, given)
                case "draw":
                    return _draw(client, given)
                case "say":
                    return _say(client, given)
                case "talk":
                    return _talk(client, given)
                case _:
                    return _transcribe(client, given)
    except OmniError as problem:
        unreachable = isinstance(problem, APIConnectionError) and not isinstance(problem, APITimeoutError | StreamBrokenError)
        print(f"{program}: {str(problem).rstrip('.')}." + (f"\n{NO_SERVER}" if unreachable else ""), file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1  # whoever read our output has left
    except OSError as problem:
        print(f"{program}: `{problem.filename}` cannot be written: {problem.strerror}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)  # the terminal has shown ^C in the middle of a line
        return 130


def _chat(client: OmniClient, given: argparse.Namespace) -> int:
    model = next((model for model in client.models() if given.model in (None, model.id)), None)
    wishes: list[str] = [wish for wish in ("image",) if model is None or wish in model.output_modalities]
    if given.voice is not None:
        wishes.append("audio")
    given.out.mkdir(parents=True, exist_ok=True)
    chat = Chat(client, ["text", *wishes], given.voice or None, given.system, given.out)
    return hold(chat, sys.stdin, sys.stdout)


def _draw(client: OmniClient, given: argparse.Namespace) -> int:
    words = _words(given.words)
    path, suffix = _target(given.out, words, PICTURE_FORMATS, "png")
    with progress("drawing"):
        pictures = client.draw_many(words, given.count, seed=given.seed, format=PICTURE_FORMATS[suffix])
    for number, picture in enumerate(pictures, start=1):
        name = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        print(picture.save(name))
    return 0


def _say(client: OmniClient, given: argparse.Namespace) -> int:
    if given.voice == "?":
        print("\n".join(client.voices()))
        return 0
    words = _words(given.words)
    path, suffix = _target(given.out, words, AUDIO_FORMATS, "wav")
    with progress("speaking"):
        audio = client.speak(words, voice=given.voice, format=AUDIO_FORMATS[suffix])
    print(audio.save(path))
    return 0


def _transcribe(client: OmniClient, given: argparse.Namespace) -> int:
    with progress("listening"):
        heard = client.transcribe(given.file, language=given.language)
    if given.out is not None:
        heard.save(given.out)
    print(heard)
    return 0


def _talk(client: OmniClient, given: argparse.Namespace) -> int:
    source: Audio | Microphone = Microphone() if given.file is None else Audio.open(given.file)
    file = given.out or (None if given.file is None else Path("answer.wav"))
    if file is not None and file.suffix.lower() != ".wav":
        raise MediaError(f"`{file}` ends in `{file.suffix}`; expected `.wav`")
    wishes: CallWishes = {"captions": given.captions}
    if given.voice is not None:
        wishes["voice"] = given.voice
    with client.converse(source, **wishes) as call:
        assert call.ready is not None
        speaker = None
        if isinstance(source, Audio) and source.seconds > AFTER_SECONDS:
            print(f"[{given.file}: {source.seconds:.1f} s, sent as fast as it is spoken]", flush=True)
        if given.file is None:
            speaker = Speaker(call.ready.output_sample_rate)
            print("[speak; Ctrl-C ends the conversation]", flush=True)
        try:
            return Talk(call, sys.stdout, speaker, file, Path()).hold()
        finally:
            if speaker is not None:
                speaker.close()


def _words(given: list[str]) -> str:
    words = " ".join(given) if given else "" if sys.stdin.isatty() else sys.stdin.read()
    if not words.strip():
        raise MediaError('no words were given; expected some, such as "a fox"')
    return words.strip()


def _target(
    given: str | None, words: str, formats: dict[str, PictureFormat] | dict[str, AudioFormat], first: str
) -> tuple[Path, str]:
    """The file to write, and its format. Known before anything is asked, so that no work is lost for a misspelt suffix."""
    if given is None:
        stem = "-".join(re.findall(r"\w+", words))[:40] or "omni"
        names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        return next(path for name in names if not (path := Path(f"{name}.{first}")).exists()), first
    path = Path(given)
    suffix = path.suffix[1:].lower() if path.suffix else first
    suffix = OTHER_NAMES.get(suffix, suffix)
    if suffix not in formats:
        raise MediaError(f"`{path}` ends in `{path.suffix}`; expected one of {', '.join(f'`.{name}`' for name in formats)}")
    if not path.absolute().parent.is_dir():
        raise MediaError(f"the folder of `{path}` is not there")
    return path if path.suffix else path.with_suffix(f".{first}"), suffix
