"""Step 2: strangers' bytes are decoded where they can harm nobody."""

from __future__ import annotations

import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from omni_server import quarantine
from omni_server.config import MediaLimits
from omni_server.decoding import HereDecoding
from omni_server.errors import MediaError, MediaTooLarge, OmniError
from omni_server.media import MediaLoader
from omni_server.quarantine import Quarantine
from omni_server.types import MediaSource
from tests.hostile import corpus, flipped
from tests.media_samples import mp4_of, png_of, wav_of_tone

LIMITS = MediaLimits(bytes=8 << 20, pixels=32_000_000, seconds=20.0, film_pixels=1_000_000)
PICTURE = png_of(PIL.Image.fromarray(np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8)))


async def no_fetch(url: str, param: str, limit: int) -> bytes:
    raise AssertionError(url)


@pytest.fixture(scope="module")
def kept() -> Iterator[Quarantine]:
    made = Quarantine(20.0)
    yield made
    made.close()


@contextmanager
def one() -> Iterator[Quarantine]:
    """With a single process, which has answered once."""
    made = Quarantine(20.0, workers=1)
    try:
        made.picture(PICTURE, "p", LIMITS)
        yield made
    finally:
        made.close()


def process_of(made: Quarantine) -> int:
    return int(made._idle.queue[-1].process.pid)


def test_what_comes_out_is_what_is_read_here(kept: Quarantine) -> None:
    """Catches pixels, samples or frames that are another on their way from one process to another."""
    here, there = MediaLoader(LIMITS, no_fetch), MediaLoader(LIMITS, no_fetch, kept)
    for data, load in ((PICTURE, "picture"), (wav_of_tone(), "speech")):
        assert (
            getattr(here, load)(MediaSource("m", data=data)).digest == getattr(there, load)(MediaSource("m", data=data)).digest
        )
    for hears in (True, False):
        source = MediaSource("m", data=mp4_of(2.0))
        mine, theirs = (loader.video(source, 2.0, 8, hears=hears) for loader in (here, there))
        assert (mine.digest, mine.pace, mine.seconds) == (theirs.digest, theirs.pace, theirs.seconds)
        assert (theirs.sound is not None) is hears


def test_errors_come_back_as_they_are(kept: Quarantine) -> None:
    """Catches a limit whose words are lost, or that is another error than in the documents."""
    with pytest.raises(MediaTooLarge, match="`m` is a picture of `64x48` pixels; expected at most 100") as caught:
        kept.picture(PICTURE, "m", MediaLimits(1 << 20, 100, 1.0))
    assert caught.value.param == "m"
    with pytest.raises(MediaError, match="not audio"):
        kept.speech(PICTURE, "m", LIMITS)
    with pytest.raises(MediaTooLarge, match="1000 pixels in all"):
        kept.video(mp4_of(1.0), "m", MediaLimits(1 << 20, 1 << 20, 5.0, 1000), 2.0, 8, False)


def test_a_decoder_that_hangs_is_killed_and_replaced() -> None:
    """Catches a request that never ends, and a decoder that is lost for all requests after it."""
    with one() as made:
        first = process_of(made)
        made._idle.queue[-1].channel.settimeout(0.5)
        os.kill(first, signal.SIGSTOP)
        with pytest.raises(MediaError, match=r"`m` could not be decoded within 20 seconds"):
            made.picture(PICTURE, "m", LIMITS)
        assert made.picture(PICTURE, "m", LIMITS).size == (64, 48)
        assert process_of(made) != first and not Path(f"/proc/{first}").exists()


def test_a_decoder_that_dies_fails_one_request() -> None:
    """Catches a pool that is broken as a whole by one crash, and a request that waits for a dead process."""
    with one() as made:
        first = process_of(made)
        os.kill(first, signal.SIGSTOP)
        killer = threading.Timer(0.2, os.kill, (first, signal.SIGKILL))
        killer.start()
        with pytest.raises(MediaError, match="`m` cannot be decoded"):
            made.picture(PICTURE, "m", LIMITS)
        killer.join()
        os.kill(process_of(made), signal.SIGKILL)  # of nobody's request, as when memory is short
        while made._idle.queue[-1].process.poll() is None:
            time.sleep(0.01)
        assert made.picture(PICTURE, "m", LIMITS).size == (64, 48)


def test_others_are_served_while_one_hangs() -> None:
    """Catches a decoder that everybody waits for."""
    made = Quarantine(20.0, workers=2)
    try:
        made.picture(PICTURE, "m", LIMITS)
        held = made._idle.queue[-1].process.pid
        os.kill(held, signal.SIGSTOP)
        waiting = threading.Thread(target=made.picture, args=(PICTURE, "m", LIMITS))
        waiting.start()
        while len(made._idle.queue) > 1:
            time.sleep(0.01)
        for _ in range(20):
            assert made.picture(PICTURE, "m", LIMITS).size == (64, 48)
        assert waiting.is_alive()
        os.kill(held, signal.SIGCONT)
        waiting.join()
    finally:
        made.close()


def test_the_process_has_no_secrets_little_memory_and_writes_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a decoder that can be taken over and then finds the operator's keys."""
    monkeypatch.setenv("OMNI_SECRET", "sk-omni-secret")
    with one() as made:
        about = Path(f"/proc/{process_of(made)}")
        assert b"sk-omni-secret" not in (about / "environ").read_bytes()
        limits = {line[:26].strip(): line[26:].split()[0] for line in (about / "limits").read_text().splitlines()[1:]}
        assert limits["Max file size"] == limits["Max core file size"] == "0"
        assert int(limits["Max address space"]) < 5 << 30
        held = {os.readlink(file) for file in (about / "fd").iterdir()}
        assert sum(name.startswith("socket:") for name in held) == 1
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 0


def test_it_ends_with_the_server() -> None:
    """Catches processes that are left behind."""
    made = Quarantine(20.0, workers=1)
    made.picture(PICTURE, "m", LIMITS)
    process = made._idle.queue[-1].process
    made._idle.queue[-1].channel.close()  # as when the server is killed
    assert process.wait(timeout=20) == 0
    made.close()
    made = Quarantine(20.0)
    processes = [worker.process for worker in made._idle.queue]
    made.close()
    assert all(process.returncode is not None for process in processes)


@pytest.mark.parametrize(
    "said",
    [{"size": 1 << 60, "width": 1, "height": 1}, {"size": -1, "width": 1, "height": 1}, {"size": 3, "width": 9, "height": 9}],
)
def test_a_decoder_that_tells_what_cannot_be_is_not_believed(said: dict[str, int]) -> None:
    """Catches memory of the server that a taken-over decoder can fill or read."""
    server, decoder = socket.socketpair()
    with server, decoder, quarantine.shared_memory(PICTURE, 100) as file:
        open_files = len(os.listdir("/proc/self/fd"))
        quarantine.describe(decoder, said, file)
        with pytest.raises(ValueError):
            quarantine.answer_of(server, {}, file, 100, quarantine.picture_of)
        assert len(os.listdir("/proc/self/fd")) == open_files, "it can fill the server with open files"
        with pytest.raises(PermissionError):
            os.truncate(file, 1)  # reading what is no longer there would end the server


@pytest.mark.parametrize("name", corpus())
def test_hostile_media_are_refused_or_read(kept: Quarantine, name: str) -> None:
    """Catches a crash, a hang, memory without limit or a 500 at media that were made for it."""
    data = corpus()[name]
    for read in (kept.picture, kept.speech, lambda *given: kept.video(*given, 2.0, 16, True)):
        try:
            read(data, "m", LIMITS)
        except OmniError as error:
            assert error.http_status in (400, 413) and "`m`" in error.message
            assert "cannot be decoded" not in error.message, "the decoder died"


def test_limits_come_before_the_work() -> None:
    """Catches memory that is taken by what is refused a moment later."""
    says = {
        "png of 50000 x 50000": "pixels",
        "gif of 65535 x 65535": "pixels",
        "png that expands": "expected less to come of less",
        "wav of 65535 channels": "channels|damaged",
        "wav of a forever": "longer than 20 seconds",
    }
    files = corpus()
    for name, words in says.items():
        read = HereDecoding().speech if name.startswith("wav") else HereDecoding().picture
        with pytest.raises(OmniError, match=words):
            read(files[name], "m", LIMITS)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_harm_nobody(kept: Quarantine, seed: int) -> None:
    """Catches a byte in a good file that ends the process."""
    for data, read in ((PICTURE, kept.picture), (wav_of_tone(), kept.speech)):
        try:
            read(flipped(data, seed), "m", LIMITS)
        except OmniError as error:
            assert error.http_status in (400, 413)
