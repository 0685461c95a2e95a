"""The S3 tokenizer against numbers of the published network, and the lengths of what the codebook returns."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from omni_server.encoders.audio import AudioCodebook
from omni_server.encoders.log_mel import LogMel
from omni_server.encoders.s3_tokenizer import S3Config, S3Tokenizer, code_count

GOLDEN = Path(__file__).parents[1] / "golden" / "audio_tokenizer.safetensors"


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with safe_open(GOLDEN, "pt") as archive:
        return {name: archive.get_tensor(name) for name in set(archive.keys())}


@pytest.fixture(scope="module")
def codebook(golden: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> AudioCodebook:
    """The published network at small width, by way of a component folder."""
    folder = tmp_path_factory.mktemp("audio_codebook")
    with safe_open(GOLDEN, "pt") as archive:
        (folder / "config.json").write_text(archive.metadata()["config"])
    weights = {k.removeprefix("weights."): v for k, v in golden.items() if k.startswith("weights.")}
    save_file(weights, folder / "model.safetensors")
    return AudioCodebook.from_pretrained(folder)


@pytest.mark.parametrize("name", ["short", "long"])
def test_golden_codes(golden: dict[str, Tensor], codebook: AudioCodebook, name: str) -> None:
    """A network that would not compute the published codes: rotation, memory, epsilon, order of the digits."""
    waveform = golden[f"io.{name}.wav"][0]
    log_mel = LogMel(codebook.network.config.n_mels)(waveform)
    torch.testing.assert_close(log_mel, golden[f"io.{name}.log_mel"][0], atol=1e-4, rtol=0)
    assert codebook.encode(waveform) == golden[f"io.{name}.codes"][0].tolist()


def test_padding_in_a_batch_changes_nothing(golden: dict[str, Tensor], codebook: AudioCodebook) -> None:
    """Codes that depend on what else was in the batch."""
    short, long = (golden[f"io.{name}.log_mel"][0] for name in ("short", "long"))
    batch = torch.randn(2, *long.shape)
    batch[0, :, : short.shape[-1]] = short
    batch[1] = long
    codes = codebook.network(batch, torch.tensor([short.shape[-1], long.shape[-1]]))
    expected = golden["io.short.codes"][0]
    assert codes[0, : len(expected)].tolist() == expected.tolist()
    assert codes[1].tolist() == golden["io.long.codes"][0].tolist()


@pytest.mark.parametrize(
    ("samples", "codes"),
    [(0, 3), (1, 3), (1600, 3), (16_000, 25), (16_160, 26), (16_480, 26), (16_640, 26), (16_800, 27)],
)
def test_number_of_codes(codebook: AudioCodebook, samples: int, codes: int) -> None:
    """A wrong length, or a crash on audio that is too short to frame."""
    waveform = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
    found = codebook.encode(waveform)
    assert len(found) == codes == code_count(max(samples, 1600) // 160)
    assert all(0 <= code < codebook.size for code in found)


def test_long_audio_is_encoded_in_chunks(codebook: AudioCodebook) -> None:
    """Audio past the chunk length lost, or normalised together with what came before it."""
    chunk = 80 * 16_000
    waveform = torch.randn(chunk + 8000, generator=torch.Generator().manual_seed(0)) * 0.1
    codes = codebook.encode(waveform)
    assert len(codes) == 2000 + 13
    assert codes[2000:] == codebook.encode(waveform[chunk:])


def test_size_follows_the_configuration() -> None:
    """A codebook that only knows the published number of digits."""
    sizes = dict(n_mels=16, n_audio_state=16, n_audio_head=2, n_audio_layer=1)
    codebook = AudioCodebook(S3Tokenizer(S3Config(**sizes, n_codebook_size=729)))
    assert codebook.size == 729
    assert codebook.network.quantizer._codebook.project_down.weight.shape == (6, 16)
    with pytest.raises(ValueError, match="`728`"):
        S3Config(**sizes, n_codebook_size=728)


def test_rejects_stereo(codebook: AudioCodebook) -> None:
    """Two channels read as a batch."""
    with pytest.raises(ValueError, match="mono"):
        codebook.encode(np.zeros((2, 16_000), np.float32))


def test_configuration_is_complete_in_the_golden_file() -> None:
    """The published configuration renamed by accident: our field names are its own."""
    with safe_open(GOLDEN, "pt") as archive:
        config = json.loads(archive.metadata()["config"])
    assert set(S3Config.__dataclass_fields__) <= set(config)
