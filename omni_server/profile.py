"""A Hugging Face folder served as it is: a text model, or one that also sees. Its facts are read off its own files.

Such a folder has no `omni.json`, so nothing in it is hashed, and what it cannot do is absent: no bands, no voices.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omni_server.checkpoint import Checkpoint, Pads, read_checkpoint, read_json, token_ids
from omni_server.dialect import Dialect
from omni_server.errors import CheckpointError

# The names that image and video pads go by; a config that says their id wins.
PAD_NAMES = {
    "image": ("<|IMAGE_PAD|>", "<|image_pad|>", "<|image|>"),
    "video": ("<|VIDEO_PAD|>", "<|video_pad|>", "<|video|>"),
}
PAD_FIELDS = {"image": ("image_token_id", "img_start_id"), "video": ("video_token_id", "video_start_id")}
DURATION = "<|video_duration|>"
TAGS = {"think": "reasoning", "tool_call": "tool_call"}
# How templates are told not to think; a name that a template does not read changes nothing.
THINKING_SWITCHES = ("enable_thinking", "thinking")
THINKING_STOPS = ("skip_reasoning",)


def open_checkpoint(root: Path, *, verify_hashes: bool = True) -> Checkpoint:
    """Our format where there is an omni.json, else a Hugging Face folder. Raises CheckpointError for neither."""
    if (root / "config.json").is_file() and not (root / "omni.json").is_file():
        return read_profile(root)
    return read_checkpoint(root, verify_hashes=verify_hashes)


def read_profile(root: Path) -> Checkpoint:
    """Raises CheckpointError where the folder is no causal language model that this server can place."""
    config = read_json(root / "config.json")
    text: Mapping[str, Any] = config.get("text_config") or config
    for name in ("hidden_size", "vocab_size", "max_position_embeddings"):
        if not isinstance(text.get(name), int):
            raise CheckpointError(f"`{root}/config.json`: `{name}` is `{text.get(name)!r}`; expected an integer")
    if "audio_config" in config or "discrete_vision_config" in config:
        raise CheckpointError(
            f"`{root}` is a published omni checkpoint; run `omni-server convert {root} DST` once, and serve DST"
        )
    tokens = token_ids(root / "tokenizer.json")
    sees = "vision_config" in config
    pads = {medium: _pad(config, tokens, medium) for medium in PAD_NAMES} if sees else {}
    if sees and pads["image"] is None:
        raise CheckpointError(
            f"`{root}`: no image pad; expected `image_token_id` in config.json, or one of {PAD_NAMES['image']}"
        )
    template = _template(root)
    return Checkpoint(
        name=root.resolve().name,
        root=root,
        folders={"backbone": root, "image_encoder": root} if sees else {"backbone": root},
        text_ranges=(),
        bands={},
        pads=Pads(**pads),
        image=None,
        sample_rate=24000,
        units_per_second=25,
        voices=(),
        prompts={},
        vocabulary=text["vocab_size"],
        context_length=text["max_position_embeddings"],
        dialect=Dialect(
            durations={"video": (DURATION, "{}")} if DURATION in template else {},
            thinking_on=dict.fromkeys(THINKING_SWITCHES, True),
            thinking_off=dict.fromkeys(THINKING_SWITCHES, False) | dict.fromkeys(THINKING_STOPS, True),
            tags={tag: role for tag, role in TAGS.items() if f"<{tag}>" in template or f"<{tag}>" in tokens},
        ),
    )


def _pad(config: Mapping[str, Any], tokens: Mapping[str, int], medium: str) -> int | None:
    said = [config[name] for name in PAD_FIELDS[medium] if isinstance(config.get(name), int)]
    named = [tokens[name] for name in PAD_NAMES[medium] if name in tokens]
    return next(iter(said + named), None)


def _template(root: Path) -> str:
    path = root / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    return str(read_json(root / "tokenizer_config.json").get("chat_template") or "")
