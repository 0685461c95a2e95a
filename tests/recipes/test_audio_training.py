"""What the speech-in recipes rest on: texts as symbols, scores, augmentation, and features that equal the server's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen2AudioEncoderConfig
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

from omni_server.encoders.audio import AudioEncoder
from omni_server.encoders.log_mel import LogMel
from recipes.audio_augmentation import Strength, change_speed, distort, distort_mel
from recipes.audio_clips import ALPHABET, symbols
from recipes.audio_exports import read_ragged
from recipes.audio_heads import edit_distances
from recipes.domain import load_concepts
from recipes.korean_g2p import to_phonemes
from recipes.train_audio_encoder import resume, short_features, sinusoids

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


def heard(text: str, language: str) -> str:
    return "".join(ALPHABET[number - 1] for number in symbols(text, language))


def test_symbols_are_phonemes() -> None:
    """Stress or full stops becoming symbols nobody can hear, or a sound that has no symbol."""
    assert heard("여우.", "ko") == "jʌu"
    for concept in load_concepts():
        assert set(to_phonemes(concept.korean)) <= {*ALPHABET, "ˈ"}, concept


def test_symbols_of_english() -> None:
    """The same, where the recipes' own requirements are installed."""
    english = pytest.importorskip("hibari.g2p").G2P()
    assert heard("a fox.", "en") == "ɐ fɑks"
    for concept in load_concepts():
        assert set(english(concept.english)) <= {*ALPHABET, "ˈ", "ˌ"}, concept


def test_edit_distances() -> None:
    """A score that counts wrongly when candidates differ in length."""
    candidates = [[ord(letter) for letter in text] for text in ("kitten", "sitting", "", "mitten")]
    assert edit_distances([ord(letter) for letter in "sitten"], candidates).tolist() == [1, 2, 6, 1]


@pytest.mark.parametrize("seed", range(5))
def test_augmentation_is_seeded_and_finite(seed: int) -> None:
    """A recipe that cannot be repeated, or silence turning into not-a-number."""
    waveform = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    strength = Strength(noise=1, room=1, band=1)
    first, second = (distort(waveform, strength, np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.shape == waveform.shape
    assert np.isfinite(distort(np.zeros_like(waveform), strength, np.random.default_rng(seed))).all()
    log_mel = LogMel(80)(torch.from_numpy(waveform)).numpy()
    dirty = distort_mel(log_mel, strength, np.random.default_rng(seed))
    assert dirty.shape == log_mel.shape and np.isfinite(dirty).all()


def test_change_of_speed() -> None:
    """Faster speech that is longer."""
    assert len(change_speed(np.zeros(1000, np.float32), 2.0)) == 500


def test_features_of_a_batch_equal_the_servers() -> None:
    """A projector trained on features the server will never compute."""
    torch.manual_seed(0)
    encoder = AudioEncoder(CONFIG)
    encoder.tower.embed_positions.weight.data = sinusoids(100, 32)
    waveforms = [torch.randn(samples) * 0.1 for samples in (9000, 14_400)]
    mels = [LogMel(80)(waveform) for waveform in waveforms]
    batch = torch.stack([torch.nn.functional.pad(mel, (0, 90 - mel.shape[1]), value=float(mel.min())) for mel in mels])
    with torch.inference_mode():
        units, counts = short_features(encoder.tower, batch, torch.tensor([mel.shape[1] for mel in mels]))
    for row, count, waveform in zip(units, counts.tolist(), waveforms, strict=True):
        expected = encoder.encode_features(waveform)
        # The last unit sees the edge, where padding is silence here and the floor there.
        torch.testing.assert_close(row[: count - 1], expected[: count - 1], atol=0.02, rtol=0)


def test_a_deeper_tower_begins_as_the_shallower_one() -> None:
    """New layers that make what was learned before unreadable, or that can learn nothing."""
    torch.manual_seed(3)
    shallow, deep = (
        Qwen2AudioEncoder(Qwen2AudioEncoderConfig(**CONFIG["audio_config"] | {"encoder_layers": layers})).eval()
        for layers in (2, 4)
    )
    resume(deep, shallow.state_dict())
    log_mel, frames = torch.randn(2, 80, 120), torch.tensor([120, 80])
    wanted, _ = short_features(shallow, log_mel, frames)
    units, _ = short_features(deep, log_mel, frames)
    assert torch.allclose(units, wanted, atol=1e-5)
    units.square().sum().backward()
    assert all(layer.fc2.weight.grad.abs().max() > 0 for layer in deep.layers)


def test_ragged_rows(tmp_path: Path) -> None:
    """Rows that move to a neighbouring recording."""
    path = tmp_path / "rows.npz"
    assert read_ragged(path) == {}
    np.savez(path, paths=np.array(["a", "b#1"]), lengths=np.array([2, 1]), values=np.arange(3))
    rows = read_ragged(path)
    assert {key: value.tolist() for key, value in rows.items()} == {"a": [0, 1], "b#1": [2]}
