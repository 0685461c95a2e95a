"""Our networks at the published sizes, on the meta device, against a list of the published tensors."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import pytest

from omni_server.conversion.configs import component_configs
from omni_server.conversion.expected import check_shapes, expected_shapes
from omni_server.conversion.parts import PARTS, plan_parts
from omni_server.conversion.published import Published
from omni_server.conversion.tensors import Stored
from omni_server.errors import CheckpointError
from tests.conversion.manifest import read_manifest

MANIFEST = read_manifest()
PREFIXES = [part.prefix for part in PARTS]
REAL_CONFIG: dict[str, Any] = {
    "text_config": {
        "model_type": "llama",
        "hidden_size": 4096,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 12288,
        "vocab_size": 200704,
        "max_position_embeddings": 8192,
    },
    "vision_config": {
        "model_type": "qwen2_5_vl_visual",
        "depth": 32,
        "hidden_size": 1280,
        "num_heads": 16,
        "intermediate_size": 3456,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "out_hidden_size": 5120,
        "tokens_per_second": 2,
        "in_channels": 3,
    },
    "audio_config": {
        "num_mel_bins": 128,
        "d_model": 1280,
        "encoder_layers": 32,
        "encoder_attention_heads": 20,
        "encoder_ffn_dim": 5120,
        "max_source_positions": 1500,
    },
    "discrete_vision_config": {"model_type": "ta_tok"},
    "discrete_audio_config": {"model_type": "cosyvoice2"},
}
VOCODER = {
    "num_units": 6561,
    "unit_emb_dim": 1280,
    "spk_emb_dim": 256,
    "upsample_initial_channel": 1536,
    "upsample_rates": [5, 4, 4, 3, 2, 2],
    "upsample_kernel_sizes": [10, 8, 8, 6, 4, 4],
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5]] * 3,
    "use_bias_at_final": False,
    "use_tanh_at_final": False,
    "causal": False,
}


@pytest.fixture(scope="module")
def published() -> Published:
    """The real checkpoint as its headers would tell it, without a byte of weights."""
    tensors = {
        prefix + name: Stored(Path("none"), "F32", shape, 0, 4 * prod(shape))
        for prefix in PREFIXES
        for name, shape in MANIFEST[prefix][2].items()
    }
    return Published(Path("none"), REAL_CONFIG, tensors, {}, frozenset())


def test_the_manifest_adds_up() -> None:
    """Would catch a slip in the list that everything else is measured by."""
    for prefix, (count, parameters, tensors) in MANIFEST.items():
        assert (len(tensors), sum(prod(shape) for shape in tensors.values())) == (count, parameters), prefix
    assert [MANIFEST[prefix][0] for prefix in PREFIXES] == [327, 390, 2, 527, 487, 4, 102, 21]
    assert sum(MANIFEST[prefix][0] for prefix in PREFIXES) == 1860
    assert sum(MANIFEST[prefix][1] for prefix in PREFIXES) == 10_741_664_520


def test_every_published_tensor_has_its_place(published: Published) -> None:
    """Would catch a network of ours that differs from the published one in one name or one shape, and a tensor that is
    neither used nor left out for a reason."""
    configs = component_configs(published)
    plan = plan_parts(published.tensors, codebook_layers=26)
    assert plan.count == 1860
    for component, tensors in plan.used.items():
        assert expected_shapes(component, configs[component]) == {name: t.shape for name, t in tensors.items()}, component
    # 64 of the feature decoder, 4 + 2 behind the bottleneck, the last layer, 2 of its norm, 11 of its head
    assert len(plan.left_out) == 64 + 4 + 2 + 16 + 2 + 11


@pytest.mark.parametrize("part", ["transformer", "token_embedder"])
def test_the_picture_networks_have_the_published_shapes(part: str) -> None:
    """Would catch class defaults that are not the published ones."""
    count, parameters, tensors = MANIFEST[f"decoder/vision/{part}:"]
    found = expected_shapes(part, {})
    assert (len(found), sum(prod(shape) for shape in found.values())) == (count, parameters)
    assert found == tensors


@pytest.mark.parametrize(
    ("extra", "parameters"), [({"finetune": True, "num_spk": 26}, 138_981_969), ({"finetune": False}, 145_016_273)]
)
def test_the_vocoders_have_the_published_sizes(extra: dict[str, Any], parameters: int) -> None:
    """Would catch a vocoder that is not the published one. Filters and running means are no parameters."""
    found = expected_shapes("audio_decoder", VOCODER | extra)
    buffers = ("filter", "running_mean", "running_var", "num_batches_tracked")
    folded = sum(prod(shape) for name, shape in found.items() if not name.endswith(buffers))
    # A published weight is a gain and a direction: one number more for each slice of its first axis.
    gains = sum(shape[0] for name, shape in found.items() if name.endswith("conv.weight") and _has_gain(name))
    assert folded + gains == parameters


def _has_gain(name: str) -> bool:
    return not name.startswith("spk_emb.")


def test_wrong_shapes_are_told() -> None:
    """Would catch a tensor of another size that is loaded, or refused without its name."""
    shapes: dict[str, Any] = dict(expected_shapes("token_embedder", {}))
    shapes["uncond_embedding"] = (1, 7)
    with pytest.raises(CheckpointError, match=r"`uncond_embedding` has shape `\[1, 7\]`; expected `\[1, 1536\]`"):
        check_shapes("token_embedder", {}, shapes)
