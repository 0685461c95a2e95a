"""draft.py: a draft that does not fit its backbone is refused before anything is loaded, with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from omni_server.app import open_pipeline
from omni_server.backbone import _drafted
from omni_server.checkpoint import read_checkpoint, write_hashes
from omni_server.config import Settings
from omni_server.errors import CheckpointError, ConfigError
from tests.facts import write_checkpoint

SIZES = {
    "hidden_size": 8,
    "vocab_size": 320,
    "intermediate_size": 12,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
}
SHAPES = {
    "fc": (8, 16),
    "norm": (8,),
    "pre_fc_norm_embedding": (8,),
    "pre_fc_norm_hidden": (8,),
    "layer.input_layernorm": (8,),
    "layer.post_attention_layernorm": (8,),
    "layer.self_attn.q_proj": (8, 8),
    "layer.self_attn.k_proj": (4, 8),
    "layer.self_attn.v_proj": (4, 8),
    "layer.self_attn.o_proj": (8, 8),
    "layer.mlp.gate_proj": (12, 8),
    "layer.mlp.up_proj": (12, 8),
    "layer.mlp.down_proj": (8, 12),
}


def write_draft(root: Path, facts: dict[str, Any], config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    folder = root / "backbone_draft"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors = {f"{name}.weight": np.zeros(shape, np.float16) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    write_hashes(root, facts)


@pytest.mark.parametrize(("config", "expected"), [({}, 1), ({"draft_tokens": 3}, 3), ({"draft_tokens": 0}, 0)])
def test_how_many_tokens(tmp_path: Path, config: dict[str, Any], expected: int) -> None:
    """Would catch a draft that is there and not used, or one that is to lie ready and is."""
    facts = write_checkpoint(tmp_path)
    assert read_checkpoint(tmp_path).draft_tokens == 0
    write_draft(tmp_path, facts, SIZES | config, SHAPES)
    assert read_checkpoint(tmp_path).draft_tokens == expected


@pytest.mark.parametrize(
    ("config", "shapes", "words"),
    [
        ({"hidden_size": 16}, {}, "`hidden_size` is `16`; the backbone's is `8`"),
        ({"vocab_size": 64}, {}, "`vocab_size` is `64`; the backbone's is `320`"),
        ({"head_dim": None}, {}, "`head_dim` is `None`; expected a number above 0"),
        ({"draft_tokens": 17}, {}, "`draft_tokens` is `17`; expected a whole number from 0 to 16"),
        ({"draft_tokens": "two"}, {}, "`draft_tokens` is `'two'`"),
        ({}, {"fc": (8, 8)}, r"tensor `fc.weight` has the shape `\[8, 8\]`; expected `\[8, 16\]`"),
        ({}, {"norm": None}, "no tensor `norm.weight`"),
        ({}, {"extra": (1,)}, "holds the tensor `extra.weight`"),
    ],
)
def test_a_draft_that_does_not_fit(tmp_path: Path, config: dict[str, Any], shapes: dict[str, Any], words: str) -> None:
    """Would catch a draft of another backbone that only fails inside the engine, a minute later."""
    facts = write_checkpoint(tmp_path)
    write_draft(tmp_path, facts, SIZES | config, {name: shape for name, shape in (SHAPES | shapes).items() if shape})
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(tmp_path)


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without("config.json"), "config.json` cannot be read as JSON"),
        (without("model.safetensors"), "model.safetensors` cannot be read as safetensors"),
        (lambda folder: (folder / "config.json").write_text("[]", encoding="utf-8"), "a JSON list; expected an object"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x08"), "cannot be read as safetensors"),
    ],
)
def test_a_draft_that_cannot_be_read(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    """Would catch a traceback of a library in place of what is wrong with which file."""
    facts = write_checkpoint(tmp_path)
    write_draft(tmp_path, facts, SIZES, SHAPES)
    damage(tmp_path / "backbone_draft")
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(tmp_path, verify_hashes=False)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, 2),
        ({"draft_tokens": 0}, 0),
        ({"draft_tokens": 3}, 3),
        ({"pipeline_parallel_size": 2}, 0),
        ({"engine_args": {"pipeline_parallel_size": 2}}, 0),
        ({"lora_modules": {"fine": "/adapter"}}, 0),
        ({"pipeline_parallel_size": 2, "draft_tokens": 1}, 1),
    ],
)
def test_whether_it_is_used(tmp_path: Path, said: dict[str, Any], expected: int) -> None:
    """Would catch a draft that is used where its backbone is not beside it, and a wish that is not followed."""
    facts = write_checkpoint(tmp_path)
    write_draft(tmp_path, facts, SIZES | {"draft_tokens": 2}, SHAPES)
    assert _drafted(read_checkpoint(tmp_path), Settings(checkpoint=tmp_path, **said)) == expected


async def test_a_draft_that_is_not_there(tmp_path: Path) -> None:
    """Would catch a wish for drafts that is forgotten in silence."""
    write_checkpoint(tmp_path)
    with pytest.raises(ConfigError, match="--draft-tokens is `2`; expected 0"):
        async with open_pipeline(Settings(checkpoint=tmp_path, draft_tokens=2)):
            pass
