"""The Qwen2-Audio encoder at small width: its front end, its lengths, and that padding is neither seen nor returned."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import WhisperFeatureExtractor

from omni_server.encoders.audio import AudioEncoder
from omni_server.encoders.log_mel import LogMel

CONFIG: dict[str, Any] = {
    "audio_config": {
        "num_mel_bins": 80,
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "max_source_positions": 100,
    },
    "projector_hidden_size": 32,
    "hidden_size": 48,
}
CHUNK_SAMPLES = 2 * 16_000


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    torch.manual_seed(0)
    encoder = AudioEncoder(CONFIG)
    for parameter in (*encoder.tower.parameters(), *encoder.projector.parameters()):
        torch.nn.init.normal_(parameter, std=0.2)
    return encoder


def noise(samples: int) -> Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(samples)) * 0.1


def test_front_end_is_whispers() -> None:
    """A log-mel that differs from the one the published encoder was trained on."""
    extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=2)
    waveform = noise(20_000)
    expected = extractor(waveform.numpy(), sampling_rate=16_000, return_tensors="pt").input_features[0]
    padded = torch.nn.functional.pad(waveform, (0, CHUNK_SAMPLES - len(waveform)))
    torch.testing.assert_close(LogMel(128)(padded), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("samples", "outputs"), [(0, 2), (1, 2), (1600, 2), (16_000, 25), (16_001, 25), (CHUNK_SAMPLES, 50), (40_000, 62)]
)
def test_number_of_outputs(encoder: AudioEncoder, samples: int, outputs: int) -> None:
    """Padding returned as sound, or a crash on very short audio."""
    assert encoder.encode(noise(samples)).shape == (outputs, 48)
    assert encoder.encode_features(noise(samples)).shape == (outputs, 32)


def test_padding_is_not_attended(encoder: AudioEncoder) -> None:
    """A mask that lets the silence after the sound into the result: a longer chunk must change nothing."""
    longer = AudioEncoder({**CONFIG, "audio_config": {**CONFIG["audio_config"], "max_source_positions": 150}})
    state = encoder.tower.state_dict()
    positions = longer.tower.embed_positions.weight.data
    positions[:100] = state.pop("embed_positions.weight")
    longer.tower.load_state_dict(state, strict=False)
    waveform = noise(12_345)
    torch.testing.assert_close(longer.encode_features(waveform), encoder.encode_features(waveform), atol=1e-5, rtol=0)


def test_chunks_are_joined(encoder: AudioEncoder) -> None:
    """Audio past the first chunk lost or moved."""
    waveform = noise(CHUNK_SAMPLES + 8000)
    whole = encoder.encode(waveform)
    parts = torch.cat([encoder.encode(waveform[:CHUNK_SAMPLES]), encoder.encode(waveform[CHUNK_SAMPLES:])])
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=0)


def test_encode_is_the_projected_features(encoder: AudioEncoder) -> None:
    """A projector trained on other features than the server computes."""
    waveform = noise(9000)
    projected = encoder.projector(encoder.encode_features(waveform).clone())
    torch.testing.assert_close(encoder.encode(waveform), projected, atol=1e-6, rtol=0)


def test_folder_round_trip_widens_half_floats(encoder: AudioEncoder, tmp_path: Any) -> None:
    """Tensors under other names than the published ones, or half floats left narrow."""
    tensors = {f"audio_model.{k}": v.half() for k, v in encoder.tower.state_dict().items()}
    tensors |= {f"audio_projector.{k}": v.half() for k, v in encoder.projector.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors")

    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    loaded = AudioEncoder.from_pretrained(tmp_path)
    embeddings = loaded.encode(np.asarray(noise(9000)))
    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings, encoder.encode(noise(9000)), atol=0.05, rtol=0.05)
