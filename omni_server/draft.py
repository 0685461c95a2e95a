"""The draft beside the backbone: whether its folder fits, and how many tokens it is to draft. Loads no weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omni_server.errors import CheckpointError

# What a draft has in common with its backbone, because it reads that one's hidden states and speaks through its head.
SHARED = ("hidden_size", "vocab_size")
SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size")
MOST_TOKENS = 16


def draft_tokens(folder: Path, backbone: Mapping[str, Any]) -> int:
    """How many tokens the checkpoint wants drafted at a time; 0 where the draft lies ready, and is used only when asked for.

    `backbone` is the backbone's own config. Raises CheckpointError for a file that is missing, sizes that are not the
    backbone's, and tensors that are missing or of another shape.
    """
    config = _object(folder / "config.json")
    for name in SHARED:
        if config.get(name) != backbone.get(name):
            raise CheckpointError(
                f"backbone_draft/config.json: `{name}` is `{config.get(name)!r}`; the backbone's is `{backbone.get(name)!r}`"
            )
    for name in SIZES:
        if not isinstance(config.get(name), int) or config[name] < 1:
            raise CheckpointError(f"backbone_draft/config.json: `{name}` is `{config.get(name)!r}`; expected a number above 0")
    tokens = config.get("draft_tokens", 1)
    if not isinstance(tokens, int) or not 0 <= tokens <= MOST_TOKENS:
        raise CheckpointError(
            f"backbone_draft/config.json: `draft_tokens` is `{tokens!r}`; expected a whole number from 0 to {MOST_TOKENS}"
        )
    _check_tensors(folder / "model.safetensors", _shapes(config))
    return tokens


def _object(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"`{path}` cannot be read as JSON: {error}") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"`{path}` holds a JSON {type(document).__name__}; expected an object")
    return document


def _shapes(config: Mapping[str, Any]) -> dict[str, list[int]]:
    """The tensors of one Llama block and of what stands around it."""
    width, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    around = {f"{name}.weight": [width] for name in ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden")}
    return around | {
        "fc.weight": [width, 2 * width],
        "layer.input_layernorm.weight": [width],
        "layer.post_attention_layernorm.weight": [width],
        "layer.self_attn.q_proj.weight": [queries, width],
        "layer.self_attn.k_proj.weight": [keys, width],
        "layer.self_attn.v_proj.weight": [keys, width],
        "layer.self_attn.o_proj.weight": [width, queries],
        "layer.mlp.gate_proj.weight": [inner, width],
        "layer.mlp.up_proj.weight": [inner, width],
        "layer.mlp.down_proj.weight": [width, inner],
    }


def _check_tensors(path: Path, expected: Mapping[str, list[int]]) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as stored:
            found = {name: list(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"`{path}` cannot be read as safetensors: {error}") from None
    for name, shape in expected.items():
        if name not in found:
            raise CheckpointError(f"`{path}` has no tensor `{name}`; expected one of shape `{shape}`")
        if found[name] != shape:
            raise CheckpointError(f"`{path}`: tensor `{name}` has the shape `{found[name]}`; expected `{shape}`")
    if unknown := sorted(set(found) - set(expected)):
        raise CheckpointError(f"`{path}` holds the tensor `{unknown[0]}`, which a draft does not have")
