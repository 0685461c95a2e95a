"""Every example runs as it is, against the real server and the embedded checkpoint."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from omni_client import Audio, Picture
from tests.clients.command import ROOT, run
from tests.conftest import RealServer

EXAMPLES = ROOT / "clients" / "examples"
WITH_THE_STOCK_CLIENT = {"conversation.py"}
NAMES = sorted({path.name for path in EXAMPLES.glob("*.py")} - WITH_THE_STOCK_CLIENT)
# What each leaves behind.
FILES = {
    "call.py": ("answer.wav",),
    "draw.py": ("fox.png", "fox.wav"),
    "many.py": ("fox.png", "banana.png"),
    "redraw.py": ("flat.png", "varied-1.png", "varied-2.png"),
    "see_and_hear.py": (),
    "stream.py": ("reply.wav",),
    "turns.py": ("turns.png",),
    "voices.py": (),
}
WORDS = {
    "draw.py": "with the seed 1",
    "redraw.py": "in English:",
    "see_and_hear.py": "a waveform:",
    "stream.py": "done: stop",
    "turns.py": "audio.voice",
    "voices.py": "no voice was made: ",
}


def test_all_are_here() -> None:
    """Catches an example that nobody runs."""
    assert set(FILES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
async def test_it_runs(name: str, server: RealServer, grpc_target: str, tmp_path: Path) -> None:
    """Catches an example that has stopped working."""
    ran = await run(str(EXAMPLES / name), url=server.url, folder=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert WORDS.get(name, "") in ran.out
    for file in FILES[name]:
        medium = Audio.open(tmp_path / file) if file.endswith(".wav") else Picture.open(tmp_path / file)
        assert medium.data


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_needs(name: str) -> None:
    """Catches an example that `uv run` and `pipx run` cannot start."""
    header = re.match(r"# /// script\n((?:#.*\n)+?)# ///\n", (EXAMPLES / name).read_text(encoding="utf-8"))
    assert header is not None
    needs = tomllib.loads(re.sub(r"^# ?", "", header[1], flags=re.MULTILINE))
    assert needs["requires-python"] == ">=3.11"
    assert any(package.startswith("omni-server") for package in needs["dependencies"])
