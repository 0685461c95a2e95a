"""Every step of a request killed, hung, slowed and spoilt, on every door: each ends once, and as docs/operations.md says."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from omni_server.backoff import Backoff
from omni_server.checkpoint import Checkpoint, read_checkpoint
from omni_server.config import Settings, StorePolicy, UrlPolicy
from omni_server.fetch import UrlFetcher
from omni_server.maker import Maker
from omni_server.media import MediaLoader
from omni_server.media_store import MediaStore
from omni_server.pipeline import Pipeline
from omni_server.prompt import Prompter
from omni_server.revival import Revival
from omni_server.senses import Sense
from omni_server.text import TextCodec
from omni_server.types import Modality
from tests.doubles import (
    Lever,
    LeveredBackbone,
    LeveredDecoder,
    LeveredEye,
    LeveredInternet,
    LeveredLoader,
    LeveredPlace,
    LeveredPrompter,
    ScriptedNames,
)
from tests.facts import write_checkpoint
from tests.fault_doors import DOORS, STEPS, House
from tests.fault_outcomes import FAULTS, OUTCOMES, table
from tests.media_samples import png_of
from tests.test_pipeline import END, picture, speech

LIMIT = 2.0  # seconds after which what hangs is given up; where nothing hangs there is time enough
PICTURE = png_of(PIL.Image.new("RGB", (8, 8), "red"))
PROMPTS = {"picture": {"en": "draw {prompt}"}, "variation": {"en": "draw this again"}}
DOCUMENT = Path(__file__).parent.parent / "docs" / "operations.md"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    root = tmp_path_factory.mktemp("mini")
    write_checkpoint(root, PROMPTS)
    return read_checkpoint(root)


def script_of(checkpoint: Checkpoint, steps: set[str]) -> Any:
    """Four chunks that hold what the door gives out."""
    drawn = picture(checkpoint) if "image open" in steps else [105]
    spoken = speech(checkpoint, 1, 2) if "audio open" in steps else [105]
    return [104, 105], drawn, spoken, [104, END]


def levered(checkpoint: Checkpoint, lever: Lever, door: str) -> House:
    codec = TextCodec(checkpoint.folders["backbone"] / "tokenizer.json")
    limit = LIMIT if lever.fault == "hang" else 20.0
    names: Any = ScriptedNames(pictures_test=[["93.184.216.34"]])
    fetcher = UrlFetcher(UrlPolicy(allowed=True, seconds=limit), names, LeveredInternet(lever, PICTURE))
    misplaced = checkpoint.bands[Modality.IMAGE].close
    makers = {m: Maker(m, LeveredDecoder(m, lever), 6, seconds=limit) for m in (Modality.AUDIO, Modality.IMAGE)}
    eyes = {m: LeveredEye(lever) for m in (Modality.AUDIO, Modality.IMAGE)}
    pipeline = Pipeline(
        checkpoint=checkpoint,
        loader=LeveredLoader(MediaLoader(Settings().media_limits, fetcher), lever),
        senses={m: Sense(m, eye.encoder, eye.codebook, seconds=limit) for m, eye in eyes.items()},
        prompter=LeveredPrompter(Prompter(checkpoint, codec), lever),  # type: ignore[arg-type]
        backbone=Revival(lambda: LeveredBackbone(lever, misplaced, *script_of(checkpoint, STEPS[door])), limit, Backoff()),
        codec=codec,
        makers=makers,
        end_of_turn=[END],
        stage_seconds=limit,
    )
    return House(pipeline, checkpoint, MediaStore(StorePolicy(), place=LeveredPlace(lever), patience=limit), PICTURE)


async def ending(checkpoint: Checkpoint, door: str, step: str, fault: str) -> str:
    """Each door meets the fault first, before any breaker has fallen."""
    lever = Lever(step, fault)
    house = levered(checkpoint, lever, door)
    try:
        async with asyncio.timeout(90):
            told = await DOORS[door](house)
    finally:
        lever.release.set()
        await house.pipeline.close()
    assert lever.met, f"{door} does not come by `{step}`"
    return told


@pytest.mark.parametrize(("step", "fault"), [(step, fault) for step, faults in OUTCOMES.items() for fault in faults])
async def test_each_request_ends_once_and_says_how(checkpoint: Checkpoint, step: str, fault: str) -> None:
    """Would catch a request without an ending, with two, or with another one than is written down for its door."""
    doors = [door for door in DOORS if step in STEPS[door]]
    told = dict(zip(doors, await asyncio.gather(*(ending(checkpoint, door, step, fault) for door in doors)), strict=True))
    assert told == OUTCOMES[step][fault]


def test_every_step_has_every_fault_on_every_door() -> None:
    """Would catch a step, a fault or a door that the matrix leaves out."""
    assert set(OUTCOMES) == set().union(*STEPS.values())
    for step, faults in OUTCOMES.items():
        assert set(faults) == set(FAULTS) - ({"corrupt"} if step.endswith(" open") else set())
        for told in faults.values():
            assert set(told) == {door for door in DOORS if step in STEPS[door]}


def test_the_document_says_what_is_held_here() -> None:
    """Would catch a table that users read and that is no longer true."""
    assert table() in DOCUMENT.read_text(encoding="utf-8")
