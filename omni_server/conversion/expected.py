"""Offline. The names and shapes that our own networks have at given sizes, built on the meta device: no memory, no weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from omni_server.conversion.tensors import Stored
from omni_server.errors import CheckpointError

Shapes = dict[str, tuple[int, ...]]


def expected_shapes(component: str, config: Mapping[str, Any]) -> Shapes:
    """Every tensor that `component` loads. Raises CheckpointError where its sizes contradict each other."""
    import torch

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            modules = BUILDERS[component](dict(config))
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as problem:
            raise CheckpointError(f"component `{component}` cannot be built from its config: {problem!r}") from problem
    return {
        prefix + name: tuple(tensor.shape) for prefix, module in modules.items() for name, tensor in module.state_dict().items()
    }


def check_shapes(component: str, config: Mapping[str, Any], found: Mapping[str, Stored | tuple[int, ...]]) -> None:
    """Raises CheckpointError for a missing, an unknown or a misshapen tensor."""
    expected = expected_shapes(component, config)
    missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unknown:
        named = f"lacks `{missing[0]}`" if missing else f"holds the unknown `{unknown[0]}`"
        raise CheckpointError(f"component `{component}` {named}: {len(missing)} tensors missing, {len(unknown)} unknown")
    for name, shape in expected.items():
        stored = found[name]
        real = stored.shape if isinstance(stored, Stored) else stored
        # Some publishers keep leading axes of size 1 on a vector; the numbers are the same.
        if _squeezed(real) != _squeezed(shape):
            raise CheckpointError(f"component `{component}`: `{name}` has shape `{list(real)}`; expected `{list(shape)}`")


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _backbone(config: dict[str, Any]) -> dict[str, Any]:
    from transformers import AutoConfig, AutoModelForCausalLM

    return {"": AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))}


def _image_encoder(config: dict[str, Any]) -> dict[str, Any]:
    from omni_server.encoders.vision import ImageEncoder

    encoder = ImageEncoder(config)
    return {"vision_model.": encoder.tower, "mm_projector.": encoder.projector}


def _image_codebook(config: dict[str, Any]) -> dict[str, Any]:
    from omni_server.encoders.ta_tok import TaTok, TaTokConfig

    return {"": TaTok(TaTokConfig(**config))}


def _audio_encoder(config: dict[str, Any]) -> dict[str, Any]:
    from omni_server.encoders.audio import AudioEncoder

    encoder = AudioEncoder(config)
    return {"audio_model.": encoder.tower, "audio_projector.": encoder.projector}


def _audio_codebook(config: dict[str, Any]) -> dict[str, Any]:
    from omni_server.encoders.s3_tokenizer import S3Config, S3Tokenizer

    return {"": S3Tokenizer(S3Config(**config))}


def _sound_compressor(config: dict[str, Any]) -> dict[str, Any]:
    from omni_server.encoders.mambamia import MambaMiaConfig, SoundCompressor

    return {"": SoundCompressor(MambaMiaConfig(**config))}


def _vocoder(config: dict[str, Any]) -> dict[str, Any]:
    from decoders.audio.unit_bigvgan import UnitBigVGAN, VocoderConfig

    return {"": UnitBigVGAN(VocoderConfig.from_mapping(config))}


def _picture_network(config: dict[str, Any]) -> dict[str, Any]:
    from decoders.image.transformer import VisionTransformer

    return {"": VisionTransformer(**_own(config))}


def _token_embedder(config: dict[str, Any]) -> dict[str, Any]:
    from decoders.image.transformer import VisionTokenEmbedder

    return {"": VisionTokenEmbedder(**_own(config))}


def _vae(config: dict[str, Any]) -> dict[str, Any]:
    from decoders.image.token_diffusion import vae_of

    return {"": vae_of(config)}


def _own(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without what diffusers writes about itself."""
    return {name: value for name, value in config.items() if not name.startswith("_")}


BUILDERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "backbone": _backbone,
    "image_encoder": _image_encoder,
    "image_codebook": _image_codebook,
    "audio_encoder": _audio_encoder,
    "audio_codebook": _audio_codebook,
    "sound_compressor": _sound_compressor,
    "audio_decoder": _vocoder,
    "voice_cloner": _vocoder,
    "transformer": _picture_network,
    "transformer2": _picture_network,
    "token_embedder": _token_embedder,
    "vae": _vae,
}
