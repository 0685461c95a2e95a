"""checkpoint.py: a checkpoint that must not be served is refused before anything is loaded, with the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omni_server.checkpoint import read_checkpoint
from omni_server.errors import CheckpointError
from omni_server.types import REPLIES, Modality
from tests.facts import write_checkpoint


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "mini")
    return tmp_path / "mini"


def edit(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads((root / "omni.json").read_text(encoding="utf-8"))
    change(document)
    (root / "omni.json").write_text(json.dumps(document), encoding="utf-8")


def test_reads_what_was_written(root: Path) -> None:
    """Would catch facts that are written under one name and read under another."""
    checkpoint = read_checkpoint(root)
    assert checkpoint.modalities_out == REPLIES == checkpoint.modalities_in
    assert checkpoint.bands[Modality.AUDIO].size == 12
    assert checkpoint.image is not None and checkpoint.image.codes == 6
    assert checkpoint.voices == ("mint",)
    assert checkpoint.prompts["transcription"]["ko"] == "적어줘"


def test_absent_component_turns_its_modality_off(root: Path) -> None:
    """Would catch a server that promises a voice without a vocoder."""
    edit(root, lambda d: d["components"].pop("audio_decoder"))
    assert read_checkpoint(root).modalities_out == {Modality.TEXT, Modality.IMAGE}
    assert Modality.AUDIO in read_checkpoint(root).modalities_in


def test_absent_prompts(root: Path) -> None:
    """Would catch a checkpoint of before there were prompts that is refused, when it only lacks some resources."""
    edit(root, lambda d: d.pop("prompts"))
    assert read_checkpoint(root).prompts == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(version=2), "version is `2`"),
        (lambda d: d.update(format="other"), "format is `other`"),
        (lambda d: d["components"].pop("backbone"), "no `backbone`"),
        (lambda d: d["components"].update(nose={}), "unknown component `nose`"),
        (lambda d: d["components"].pop("image_codebook"), "come together"),
        (lambda d: d["bands"][0].update(first=250), "overlaps"),
        (lambda d: d["bands"][1].update(size=1000), "vocabulary has `320`"),
        (lambda d: d["bands"][0].update(size=0), "overlaps"),
        (lambda d: d["bands"][0].pop("open"), "malformed"),
        (lambda d: d["bands"][0].update(open="<|nothing|>"), "`<|nothing|>`"),
        (lambda d: d["bands"][0].update(open="<|a3|>"), "lies inside a band"),
        (lambda d: d["bands"][0].update(modality="image"), "another"),
        (lambda d: d["image"].update(ratios={}), "ratios"),
        (lambda d: d["image"].update(rows="two"), "`rows` is `'two'`"),
        (lambda d: d.pop("text_ranges"), "text_ranges"),
        (lambda d: d.update(prompts=["say"]), "`prompts` is"),
        (lambda d: d["prompts"].update(smell={"en": "smell {input}"}), "unknown prompt `smell`"),
        (lambda d: d["prompts"].update(speech="say {input}"), "`prompts.speech` is `'say"),
        (lambda d: d["prompts"].update(speech={}), "a wording for each language"),
        (lambda d: d["prompts"].update(speech={"en": "say {text}"}), r"with `\{input\}` once"),
        (lambda d: d["prompts"].update(speech={"en": "say {input}, {style}"}), "no other braces"),
        (lambda d: d["prompts"].update(picture={"ko": 3}), r"`prompts.picture.ko` is `3`"),
        (lambda d: d["prompts"].update(transcription={"en": "write {input}"}), "without braces"),
        (lambda d: d["components"]["backbone"].update({"../../etc/hosts": "0"}), "not a safetensors file"),
        (lambda d: d["components"]["backbone"].update({"model.safetensors": "0" * 64}), "SHA-256"),
    ],
)
def test_malformed_facts_are_refused(root: Path, change: Callable[[dict[str, Any]], None], words: str) -> None:
    """Would catch a malformed checkpoint that is served, or one refused with a bare KeyError."""
    edit(root, change)
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(root)


def test_missing_folder_and_changed_weights_are_refused(root: Path) -> None:
    """Would catch weights that were cut short by a copy."""
    (root / "image_decoder" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="SHA-256"):
        read_checkpoint(root)
    shutil.rmtree(root / "image_decoder")
    with pytest.raises(CheckpointError, match="is missing"):
        read_checkpoint(root)


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    """Would catch a traceback where a mistyped path deserves a sentence."""
    with pytest.raises(CheckpointError, match="missing"):
        read_checkpoint(tmp_path)
    (tmp_path / "omni.json").write_text("[1", encoding="utf-8")
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        read_checkpoint(tmp_path)
