"""The command line, in a process of its own, against scripted replies behind a real socket."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from omni_client import Audio, Picture
from omni_client.progress import progress
from omni_server import types
from omni_server.errors import ContextOverflow, DecodeFailed
from tests.clients.command import Ran, run
from tests.doubles import ScriptedPipeline
from tests.rest.scripts import done, picture, served, tone, voice, words
from tests.rest.worded import worded

REPLY = [*words(0, "A fox"), *picture(1), *picture(2, "blue"), *voice(3, tone(0.3)), done()]


@pytest.fixture(scope="module")
def pipeline() -> ScriptedPipeline:
    return worded(*REPLY)


@pytest.fixture(scope="module")
def url(pipeline: ScriptedPipeline) -> Iterator[str]:
    with served(pipeline) as url:
        yield url


async def omni(*command: str, url: str, folder: Path, typed: str = "", module: str = "omni_server") -> Ran:
    return await run("-m", module, *command, url=url, folder=folder, typed=typed.encode())


async def test_draw(url: str, tmp_path: Path) -> None:
    """Catches a picture under another's name, in another format, or written over an earlier one."""
    for name in ("a-fox.png", "a-fox-2.png"):
        ran = await omni("draw", "a", "fox", url=url, folder=tmp_path)
        assert (ran.code, ran.out, ran.err) == (0, f"{name}\n", "")
        assert Picture.open(tmp_path / name).format == "png"
    ran = await omni("draw", "여우", "--count", "2", "-o", "x.jpg", "--seed", "7", url=url, folder=tmp_path)
    assert ran.out == "x.jpg\nx-2.jpg\n"
    assert Picture.open(tmp_path / "x-2.jpg").format == "jpeg"


async def test_say(url: str, tmp_path: Path) -> None:
    """Catches a voice that is written as what its name does not say, words from a pipe, and a list of voices."""
    assert (await omni("say", url=url, folder=tmp_path, typed="a fox!\n")).out == "a-fox.wav\n"
    assert Audio.open(tmp_path / "a-fox.wav").seconds == pytest.approx(0.3)
    for suffix, format in (("mp3", "mp3"), ("opus", "ogg"), ("flac", "flac")):
        await omni("say", "fox", "--voice", "mint", "-o", f"x.{suffix}", url=url, folder=tmp_path)
        assert Audio.open(tmp_path / f"x.{suffix}").format == format
    assert (await omni("say", "--voice", "?", url=url, folder=tmp_path)).out == "mint\nsage\n"


async def test_transcribe(url: str, tmp_path: Path) -> None:
    """Catches words that are lost, and a command that needs the server's package."""
    Audio.from_pcm(b"\0\0" * 8000, 16_000).save(tmp_path / "hi.wav")
    for module in ("omni_server", "omni_client"):
        ran = await omni("transcribe", "hi.wav", "-o", "hi.txt", url=url, folder=tmp_path, module=module)
        assert (ran.code, ran.out, ran.err) == (0, "A fox\n", "")
        assert (tmp_path / "hi.txt").read_text(encoding="utf-8") == "A fox\n"


async def test_chat_from_a_pipe(url: str, pipeline: ScriptedPipeline, tmp_path: Path) -> None:
    """Catches media that are not sent, a conversation that is not remembered, and files that overwrite each other."""
    picture_file(tmp_path)
    (tmp_path / "hi.wav").write_bytes(Audio.from_pcm(b"\0\0" * 8000, 16_000).data)
    typed = "draw a fox\n/image look.png\nwhat is this?\n/audio hi.wav\n\n/new\nhello\n/quit\nnever asked\n"
    before = len(pipeline.requests)
    ran = await omni("chat", "--voice", "sage", "--system", "Be kind.", url=url, folder=tmp_path, typed=typed)
    assert (ran.code, ran.err) == (0, "")
    first = "A fox\n[picture: reply-1.png]\n[picture: reply-1-2.png]\n[voice: reply-1.wav]\n"
    assert ran.out.startswith(first + "[look.png goes with your next line]\nA fox\n[picture: reply-2.png]\n")
    asked = pipeline.requests[before:]
    kinds = [[(message.role, [type(part).__name__ for part in message.parts]) for message in one.messages] for one in asked]
    assert len(asked) == 4
    answer = ("assistant", ["TextPart", "ImagePart", "ImagePart"])
    assert kinds[2] == [
        ("system", ["TextPart"]), ("user", ["TextPart"]), answer, ("user", ["ImagePart", "TextPart"]), answer,
        ("user", ["AudioPart"]),
    ]  # fmt: skip
    assert kinds[3] == [("system", ["TextPart"]), ("user", ["TextPart"])]
    assert asked[0].decode.voice == "sage"
    assert asked[0].modalities == types.REPLIES
    assert Picture.open(tmp_path / "reply-4-2.png").image.getpixel((0, 0)) == (0, 0, 255)


def picture_file(folder: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (8, 6), "red").save(folder / "look.png")
    return folder / "look.png"


async def test_a_medium_alone_is_sent_at_the_end(url: str, pipeline: ScriptedPipeline, tmp_path: Path) -> None:
    """Catches a recording that is attached and then forgotten, when a pipe ends without another line."""
    picture_file(tmp_path)
    before = len(pipeline.requests)
    ran = await omni("chat", url=url, folder=tmp_path, typed="/image look.png")
    assert ran.code == 0
    assert len(pipeline.requests) == before + 1


async def test_chat_goes_on_and_tells(tmp_path: Path) -> None:
    """Catches a script that takes a failed question for an answered one, and a fault that is not told where it happened."""
    spans = [types.SpanOpened(1, types.Modality.IMAGE), types.SpanClosed(1, DecodeFailed("no paint"))]
    with served(ScriptedPipeline(*words(0, "Hi"), *spans, done("length"))) as url:
        ran = await omni("chat", url=url, folder=tmp_path, typed="hello\n/image nothing.png\n/nonsense\n")
        assert ran.out.startswith("Hi\n[no paint]\n[the limit on tokens cut this reply]\n[`nothing.png` cannot be read")
        assert (ran.code, "/quit" in ran.out) == (1, True)
    with served(ScriptedPipeline(refusal=ContextOverflow("too long"))) as url:
        ran = await omni("chat", url=url, folder=tmp_path, typed="hello\n")
        assert (ran.code, ran.out) == (1, "[too long]\n")


@pytest.mark.parametrize("command", [["draw", "a fox"], ["say", "hi"], ["chat"], ["transcribe", "hi.wav"]])
async def test_no_server(command: list[str], tmp_path: Path) -> None:
    """Catches a traceback for the commonest fault of all."""
    Audio.from_pcm(b"\0\0" * 8000, 16_000).save(tmp_path / "hi.wav")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"  # nobody listens there
        ran = await omni(*command, url=url, folder=tmp_path)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"omni-server: no server answers at {url}: ")
    assert "Start one with `omni-server serve`" in ran.err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["draw", "fox", "-o", "x.gif"], "`.webp`"),
        (["say", "fox", "-o", "no/x.wav"], "folder"),
        (["draw"], "no words"),
        (["transcribe", "nothing.wav"], "`nothing.wav` cannot be read"),
        (["say", "fox", "--voice", "nobody"], "nobody"),
        (["draw", "fox", "--count", "99"], "`n`"),
        (["draw", "fox", "--model", "nobody"], "omni-scripted"),
        (["draw", "fox", "--url", "ftp://box"], "http://"),
    ],
)
async def test_what_is_wrong_is_one_line(command: list[str], words: str, tmp_path: Path) -> None:
    """Catches a traceback, and work that is done before a misspelt name is found."""
    from omni_server.errors import RequestError

    with served(worded(refusal=RequestError("voice `nobody` is unknown"))) as url:
        ran = await omni(*command, url=url, folder=tmp_path)
    assert (ran.code, ran.out) == (1, "")
    assert words in ran.err and ran.err.startswith("omni-server: ") and ran.err.count("\n") == 1


def test_progress() -> None:
    """Catches a line that stays on the terminal, one for work that was quick, and a file full of control characters."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    quick, slow, file = Terminal(), Terminal(), io.StringIO()
    with progress("drawing", quick, after=60):
        pass
    with progress("drawing", slow, after=0), progress("drawing", file, after=0):
        while not slow.getvalue() or not file.getvalue():
            time.sleep(0.01)
    assert quick.getvalue() == ""
    assert slow.getvalue().startswith("\rdrawing ... 0 s") and slow.getvalue().endswith("\r\x1b[K")
    assert file.getvalue() == "drawing ...\n"
