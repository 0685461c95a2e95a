"""One conversation through every pair of modalities, in English and in Korean, with the stock `openai` client.

    python clients/examples/conversation.py --out out/demo [--url http://127.0.0.1:8000]

Each turn is asked without the ones before it, for the weights that ship were trained on single turns; a picture that was
drawn is shown again in the turns that ask about it. Without --url it starts `omni-server serve` on the checkpoint that ships
inside. Pictures, voices and the transcript stay in --out.
"""

from __future__ import annotations

import argparse
import base64
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

MEDIA = Path(__file__).parent / "media"
TEXT, PICTURE, SPEECH = ("text",), ("text", "image"), ("text", "audio")


@dataclass(frozen=True, slots=True)
class Turn:
    """One question: its words, a recording's file name, and whether the last picture that was drawn goes with it."""

    pair: str
    wants: tuple[str, ...]
    text: str = ""
    recording: str = ""
    with_picture: bool = False


ENGLISH = (
    Turn("text to picture", PICTURE, "draw a fox"),
    Turn("picture to words", TEXT, "what is this?", with_picture=True),
    Turn("text to speech", SPEECH, "say 'banana'"),
    Turn("speech to words", TEXT, "write down what you hear", recording="en-name.flac"),
    Turn("speech to speech", SPEECH, recording="en-question.flac"),
    Turn("speech to picture", PICTURE, recording="en-draw.flac"),
    Turn("words, a picture and a voice", ("text", "image", "audio"), "describe it, draw it and say it", with_picture=True),
)
KOREAN = (
    Turn("text to picture", PICTURE, "해바라기 그려줘"),
    Turn("picture to words", TEXT, "이게 뭐야?", with_picture=True),
    Turn("text to speech", SPEECH, "'여우'라고 말해줘"),
    Turn("speech to words", TEXT, "들은 것을 적어줘", recording="ko-name.flac"),
    Turn("speech to speech", SPEECH, recording="ko-question.flac"),
    Turn("speech to picture", PICTURE, recording="ko-draw.flac"),
    Turn("words, a picture and a voice", ("text", "image", "audio"), "설명하고, 그리고, 말해줘", with_picture=True),
)

AFTERWORD = """
The same by hand, while `make serve` runs:

  curl {url}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model": "{model}", "modalities": ["text", "image"], "messages": [{{"role": "user", "content": "draw a fox"}}]}}'

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="none")
  reply = client.chat.completions.create(
      model="{model}", modalities=["text", "audio"], audio={{"voice": "heart", "format": "wav"}},
      messages=[{{"role": "user", "content": "say 'banana'"}}])
  print(reply.choices[0].message.audio.transcript)

With the SDK, and from a terminal:

  from omni_client import OmniClient
  OmniClient("{url}").draw("a fox").save("fox.png")

  omni-server draw "a fox" -o fox.png --url {url}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    parser.add_argument("--url", default=None)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "transcript.txt").open("w", encoding="utf-8") as transcript, serving(given.url) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
        model = client.models.list().data[0].id
        for language, turns in (("en", ENGLISH), ("ko", KOREAN)):
            for line in hold(client, model, language, turns, given.out):
                print(line, flush=True)
                transcript.write(line + "\n")
    print(f"\nPictures, voices and the transcript are in {given.out}/")
    print(AFTERWORD.format(url=given.url or "http://127.0.0.1:8000", model=model))


def hold(client: openai.OpenAI, model: str, language: str, turns: tuple[Turn, ...], out: Path) -> Iterator[str]:
    """Plays `turns` and yields their transcript, two lines a turn."""
    picture = ""
    yield f"\n== {language} =="
    for number, turn in enumerate(turns, start=1):
        content = parts_of(turn, picture)
        start = time.perf_counter()
        reply: Any = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": content}],  # type: ignore[misc, list-item]
            modalities=list(turn.wants),  # type: ignore[arg-type]
            audio={"voice": "heart", "format": "wav"} if "audio" in turn.wants else openai.omit,
            temperature=0,
        )
        seconds = time.perf_counter() - start
        message = reply.choices[0].message
        said, saved = message.content or "", []
        if message.audio:
            said = message.audio.transcript
            saved.append(save(out / f"{language}-{number}.wav", base64.b64decode(message.audio.data)))
        for image in getattr(message, "images", None) or ():
            picture = image["image_url"]["url"]
            saved.append(save(out / f"{language}-{number}.png", base64.b64decode(picture.split(",", 1)[1])))
        asked = " + ".join(
            [
                *(["a picture"] if turn.with_picture else []),
                *([turn.recording] if turn.recording else []),
                *([turn.text] if turn.text else []),
            ]
        )
        heard = (getattr(message, "omni", None) or {}).get("user_transcript")  # what the model wrote down before it answered
        if heard:
            asked += f", heard as {heard!r}"
        yield f"{turn.pair}\n  you: {asked}"
        yield f"  it:  {said!r} {' '.join(saved)}  ({seconds:.2f} s)"


def parts_of(turn: Turn, picture: str) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    if turn.with_picture and picture:
        parts.append({"type": "image_url", "image_url": {"url": picture}})
    if turn.recording:
        data = base64.b64encode((MEDIA / turn.recording).read_bytes()).decode()
        parts.append({"type": "input_audio", "input_audio": {"data": data, "format": "flac"}})
    if turn.text:
        parts.append({"type": "text", "text": turn.text})
    return parts


def save(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return path.name


@contextmanager
def serving(url: str | None) -> Iterator[str]:
    """The server at `url`, or one of our own for as long as the conversation lasts."""
    if url:
        yield url.rstrip("/")
        return
    print("Starting the server on the checkpoint that ships inside ...", flush=True)
    start = time.perf_counter()
    command = [sys.executable, "-m", "omni_server", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = next((line for line in server.stdout if "is ready on" in line), "")
            if not line:
                raise SystemExit("the server did not start; `omni-server doctor` tells what is missing")
            print(f"ready after {time.perf_counter() - start:.0f} s", flush=True)
            yield re.findall(r"https?://[^\s,]+", line)[0]
        finally:
            server.terminate()
            server.wait(60)


if __name__ == "__main__":
    main()
