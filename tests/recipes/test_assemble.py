"""recipes/assemble.py: what the recipe writes into omni.json is what the server reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from omni_server.checkpoint import read_checkpoint, sha256_of
from omni_server.config import EMBEDDED_CHECKPOINT
from omni_server.dialect import PROMPT_SLOTS
from recipes import assemble
from tests.facts import write_checkpoint


def test_wordings_are_trained_and_readable(tmp_path: Path) -> None:
    """Would catch a wording that the model was never taught, or one that the server refuses to start with."""
    write_checkpoint(tmp_path)
    facts = json.loads((tmp_path / "omni.json").read_text(encoding="utf-8"))
    (tmp_path / "omni.json").write_text(json.dumps(facts | {"prompts": assemble.prompts()}), encoding="utf-8")
    prompts = read_checkpoint(tmp_path).prompts
    assert set(prompts) == set(PROMPT_SLOTS)
    assert prompts["speech"] == {"en": "say '{input}'", "ko": "'{input}'라고 말해줘"}
    # Only Korean words are translated: into English, which is what the server asks this wording for.
    assert {name for name, wordings in prompts.items() if set(wordings) != {"en", "ko"}} == {"translation"}
    assert prompts["translation"] == {"ko": "{input} 영어로 번역해줘"}


def test_a_draft_of_another_backbone_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a backbone that was trained on beside a draft that was not, with nothing said of it."""
    root = tmp_path / "embedded"
    shutil.copytree(EMBEDDED_CHECKPOINT, root)
    config = root / "backbone_draft" / "config.json"
    facts = json.loads(config.read_text(encoding="utf-8"))
    for beside, told in ((sha256_of(root / "backbone" / "model.safetensors"), False), ("0" * 64, True)):
        config.write_text(json.dumps(facts | {"trained_beside": beside}), encoding="utf-8")
        assemble.assemble(root)
        assert ("trained beside another backbone" in capsys.readouterr().out) is told
