"""Offline. Which published tensor belongs where: eight prefixes to seven components, or a reason to leave it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from omni_server.conversion.tensors import Stored
from omni_server.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Part:
    """Tensors under `prefix` go to `component`, where `inner` stands before the rest of their name. `narrows`: may be stored
    as bfloat16; the networks that choose codes must not, for a rounded feature is another code."""

    prefix: str
    component: str
    inner: str
    narrows: bool


PARTS = (
    Part("model.language_model.", "backbone", "", True),
    Part("model.vision_model.", "image_encoder", "vision_model.", True),
    Part("model.mm_projector.", "image_encoder", "mm_projector.", True),
    Part("model.discrete_vision_model.", "image_codebook", "", False),
    Part("model.audio_model.", "audio_encoder", "audio_model.", True),
    Part("model.audio_projector.", "audio_encoder", "audio_projector.", True),
    Part("model.discrete_audio_model.", "audio_codebook", "", False),
    Part("model.video_audio_compressor.", "sound_compressor", "", True),
)
_IMAGE_CODEBOOK = "model.discrete_vision_model."
LEFT_OUT = {
    "decoder.": "rebuilds features in training; codes are chosen without it",
    "decode_task_layer.": "rebuilds features in training; codes are chosen without it",
    "bottleneck.out_linear.": "leads to the feature decoder; codes are chosen before it",
    "encoder.post_layernorm.": "lies behind the layer that the codes are read from",
    "encoder.head.": "lies behind the layer that the codes are read from",
}


@dataclass(slots=True)
class Plan:
    """Every published tensor: used by a component under its new name, or left out for a reason."""

    used: dict[str, dict[str, Stored]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    narrows: dict[str, bool] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(len(tensors) for tensors in self.used.values()) + len(self.left_out)


def plan_parts(tensors: Mapping[str, Stored], codebook_layers: int) -> Plan:
    """`codebook_layers`: how many layers of the image codebook's tower lie before the one that codes are read from.

    Raises CheckpointError for a tensor under none of the prefixes, and for a prefix without tensors.
    """
    plan = Plan()
    for name, stored in tensors.items():
        part = next((part for part in PARTS if name.startswith(part.prefix)), None)
        if part is None:
            raise CheckpointError(
                f"tensor `{name}` is under none of the expected prefixes {', '.join(p.prefix for p in PARTS)}; "
                "this is another kind of checkpoint"
            )
        rest = name.removeprefix(part.prefix)
        reason = _reason(rest, codebook_layers) if part.prefix == _IMAGE_CODEBOOK else None
        if reason is not None:
            plan.left_out[name] = reason
        else:
            plan.used.setdefault(part.component, {})[part.inner + rest] = stored
            plan.narrows[part.component] = part.narrows
    absent = [part.prefix for part in PARTS if not any(name.startswith(part.prefix) for name in tensors)]
    if absent:
        raise CheckpointError(f"no tensor is under the prefix `{absent[0]}`; expected all of the eight prefixes")
    return plan


def _reason(rest: str, layers: int) -> str | None:
    for prefix, reason in LEFT_OUT.items():
        if rest.startswith(prefix):
            return reason
    stem = "encoder.encoder.layers."
    if rest.startswith(stem) and int(rest.removeprefix(stem).partition(".")[0]) >= layers:
        return "lies behind the layer that the codes are read from"
    return None
