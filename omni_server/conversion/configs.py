"""Offline. The config.json of each component, from the published sections; unstated sizes come from the tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from omni_server.conversion.published import Published
from omni_server.conversion.tensors import Stored
from omni_server.errors import CheckpointError

Config = dict[str, Any]
CODEBOOK = "model.discrete_vision_model."
SPEECH_CODEBOOK = "model.discrete_audio_model."
COMPRESSOR = "model.video_audio_compressor."
# What the public networks behind these components have where a config does not say it.
SIGLIP_HEAD_WIDTH, S3_HEAD_WIDTH, MAMBA_HEAD_WIDTH = 72, 64, 64
SELECT_LAYER, IMAGE_SIZE = -2, 384
LEAST_PIXELS, MOST_PIXELS = 3136, 2_073_600
FRAMES_PER_SECOND, MOST_FRAMES, FRAME_PIXELS = 2, 128, 378 * 378
LEVELS = 3  # of one digit of a speech code


def component_configs(published: Published) -> dict[str, Config]:
    """Raises CheckpointError where a section is missing or is of another model."""
    text = dict(published.section("text_config"))
    if text.get("model_type") != "llama":
        raise CheckpointError(f"config.json: `text_config.model_type` is `{text.get('model_type')}`; expected `llama`")
    hidden = int(text["hidden_size"])
    return {
        "backbone": _backbone(published, text),
        "image_encoder": _image_encoder(published, hidden),
        "image_codebook": image_codebook_config(published),
        "audio_encoder": _audio_encoder(published, hidden),
        "audio_codebook": _audio_codebook(published),
        "sound_compressor": _sound_compressor(published),
    }


def _backbone(published: Published, text: Config) -> Config:
    unknown = [name for name in ("embedding_multiplier", "residual_multiplier", "attention_multiplier") if text.get(name)]
    if unknown:
        raise CheckpointError(f"config.json: `text_config.{unknown[0]}` is set; a plain Llama has no such multiplier")
    rows = _shape(published, "model.language_model.model.embed_tokens.weight")[0]
    vocabulary = int(text.get("padded_vocab_size") or text["vocab_size"])
    if rows != vocabulary:
        raise CheckpointError(f"the embedding table has `{rows}` rows; `text_config` says a vocabulary of `{vocabulary}`")
    return {**text, "vocab_size": vocabulary, "architectures": ["LlamaForCausalLM"]}


def _image_encoder(published: Published, hidden: int) -> Config:
    dropped = ("model_type", "architectures", "torch_dtype", "dtype", "transformers_version", "_attn_implementation")
    vision = {name: value for name, value in published.section("vision_config").items() if name not in dropped}
    pictures = published.document("preprocessor_config.json")
    return {
        "hidden_size": hidden,
        "min_pixels": int(pictures.get("min_pixels") or LEAST_PIXELS),
        "max_pixels": int(pictures.get("max_pixels") or MOST_PIXELS),
        "video": {"frames_per_second": FRAMES_PER_SECOND, "max_frames": MOST_FRAMES, "max_frame_pixels": FRAME_PIXELS},
        "vision_config": vision,
    }


def image_codebook_config(published: Published) -> Config:
    section = published.section("discrete_vision_config")
    if section.get("model_type") != "ta_tok":
        raise CheckpointError(
            f"config.json: `discrete_vision_config.model_type` is `{section.get('model_type')}`; expected `ta_tok`"
        )
    tower: Mapping[str, Any] = section.get("vision_config", {})
    arguments: Mapping[str, Any] = section.get("args", {})
    patches = _shape(published, CODEBOOK + "encoder.embeddings.patch_embedding.weight")
    side = math.isqrt(_shape(published, CODEBOOK + "encoder.embeddings.position_embedding.weight")[0])
    layers = _count(published.tensors, CODEBOOK + "encoder.encoder.layers.")
    size, width = _shape(published, CODEBOOK + "bottleneck.regularizer.embedding.weight")
    pixels = int(arguments.get("input_size") or IMAGE_SIZE)
    if pixels // patches[-1] != side:
        raise CheckpointError(
            f"the image codebook has `{side}` x `{side}` positions; pictures of `{pixels}` pixels in patches of "
            f"`{patches[-1]}` have `{pixels // patches[-1]}`"
        )
    return {
        "image_size": pixels,
        "patch_size": patches[-1],
        "hidden_size": patches[0],
        "intermediate_size": _shape(published, CODEBOOK + "encoder.encoder.layers.0.mlp.fc1.weight")[0],
        "num_hidden_layers": layers,
        "num_attention_heads": int(tower.get("num_attention_heads") or max(1, patches[0] // SIGLIP_HEAD_WIDTH)),
        "select_layer": int(arguments.get("select_layer_id", SELECT_LAYER)),
        "bottleneck_dim": width,
        "codebook_size": size,
    }


def _audio_encoder(published: Published, hidden: int) -> Config:
    names = (
        "num_mel_bins", "d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim", "max_source_positions",
    )  # fmt: skip
    audio = published.section("audio_config")
    missing = [name for name in names if name not in audio]
    if missing:
        raise CheckpointError(f"config.json: `audio_config` lacks `{missing[0]}`")
    kind = published.config.get("audio_projector_type", "mlp")
    if kind != "mlp":
        raise CheckpointError(f"config.json: `audio_projector_type` is `{kind}`; this server has `mlp`")
    middle = _shape(published, "model.audio_projector.fc1.weight")[0]
    return {
        "audio_config": {name: audio[name] for name in names},
        "projector_hidden_size": middle,
        "hidden_size": hidden,
    }


def _audio_codebook(published: Published) -> Config:
    section = published.section("discrete_audio_config")
    width, mels, _ = _shape(published, SPEECH_CODEBOOK + "encoder.conv1.weight")
    digits = _shape(published, SPEECH_CODEBOOK + "quantizer._codebook.project_down.weight")[0]
    return {
        "n_mels": mels,
        "n_audio_state": width,
        "n_audio_head": int(section.get("n_audio_head") or max(1, width // S3_HEAD_WIDTH)),
        "n_audio_layer": _count(published.tensors, SPEECH_CODEBOOK + "encoder.blocks."),
        "n_codebook_size": LEVELS**digits,
    }


def _sound_compressor(published: Published) -> Config:
    kind = published.config.get("video_audio_compressor_type", "mambamia")
    if kind != "mambamia":
        raise CheckpointError(f"config.json: `video_audio_compressor_type` is `{kind}`; this server has `mambamia`")
    inner, inputs = _shape(published, COMPRESSOR + "input_proj.weight")
    mixer = COMPRESSOR + "model.layers.0.mixer."
    channels, _, kernel = _shape(published, mixer + "conv1d.weight")
    wide = _shape(published, mixer + "norm.weight")[0]
    return {
        "input_size": inputs,
        "inner_size": inner,
        "output_size": _shape(published, COMPRESSOR + "output_proj.weight")[0],
        "chunk_size": _shape(published, COMPRESSOR + "model.layers.0.weight_fc.weight")[0],
        "head_dim": wide // _shape(published, mixer + "A_log")[0],
        "state_size": (channels - wide) // 2,
        "expand": wide // inner,
        "conv_kernel": kernel,
        "num_layers": _count(published.tensors, COMPRESSOR + "model.layers."),
    }


def _shape(published: Published, name: str) -> tuple[int, ...]:
    if name not in published.tensors:
        raise CheckpointError(f"tensor `{name}` is missing; expected it in the published checkpoint")
    return published.tensors[name].shape


def _count(tensors: Mapping[str, Stored], stem: str) -> int:
    """How many numbered things lie under `stem`."""
    return len({name.removeprefix(stem).partition(".")[0] for name in tensors if name.startswith(stem)})
