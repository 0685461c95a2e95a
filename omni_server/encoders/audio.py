"""Step 3. Waveform to what the backbone hears (continuous) and could also have said (codes); 25 of each per second.

A folder is `config.json` and `model.safetensors`; all sizes come from the first, stored half floats are widened.
"""

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from omni_server.encoders.log_mel import HOP_SAMPLES, LogMel, as_waveform, split
from omni_server.encoders.s3_tokenizer import S3Config, S3Tokenizer

Folder = str | os.PathLike[str]

MINIMUM_SAMPLES = 1600
CODEBOOK_CHUNK_SAMPLES = 80 * 16_000  # 2000 codes, the length the tokenizer's positions were made for


def read_folder(folder: Folder) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads a component folder: its configuration and its tensors as float32."""
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(Path(folder) / "model.safetensors")
    return config, {name: tensor.float() for name, tensor in tensors.items()}


class AudioCodebook:
    """Discrete speech codes by an S3 tokenizer."""

    units_per_second = 25

    def __init__(self, network: S3Tokenizer) -> None:
        self.network = network.eval()
        self.size = network.config.n_codebook_size
        self._log_mel = LogMel(network.config.n_mels)

    @classmethod
    def from_pretrained(cls, folder: Folder) -> Self:
        config, tensors = read_folder(folder)
        network = S3Tokenizer(S3Config(**{field.name: config[field.name] for field in fields(S3Config)}))
        network.load_state_dict(tensors)
        return cls(network)

    def to(self, device: str) -> Self:
        self.network.to(device)
        return self

    @torch.inference_mode()
    def encode(self, media: np.ndarray | Tensor) -> list[int]:
        """Mono float waveform at 16 kHz [samples] -> codes, each in [0, size)."""
        codes: list[int] = []
        for chunk in split(as_waveform(media), CODEBOOK_CHUNK_SAMPLES, MINIMUM_SAMPLES):
            log_mel = self._log_mel(chunk)[None].to(next(self.network.parameters()).device)
            codes += self.network(log_mel)[0].tolist()
        return codes


class Projector(nn.Module):
    """From the encoder's width to the backbone's."""

    def __init__(self, input_size: int, hidden_size: int, output_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(input_size, hidden_size)
        self.fc2 = nn.Linear(hidden_size, output_size)

    def forward(self, x: Tensor) -> Tensor:
        """[..., input_size] -> [..., output_size]."""
        projected: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return projected


class AudioEncoder:
    """Continuous embeddings by a Qwen2-Audio encoder and a projector into the backbone's width."""

    units_per_second = 25

    def __init__(self, config: dict[str, Any]) -> None:
        from transformers import Qwen2AudioEncoderConfig
        from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

        tower = Qwen2AudioEncoderConfig(**config["audio_config"])
        self.tower: Qwen2AudioEncoder = Qwen2AudioEncoder(tower)
        self.projector = Projector(tower.d_model, config["projector_hidden_size"], config["hidden_size"]).eval()
        self.tower.train(False)
        self.hidden_size: int = config["hidden_size"]
        self._log_mel = LogMel(tower.num_mel_bins)
        # The first convolution keeps the 100 frames a second, the second halves them into positions.
        self._chunk_samples = 2 * tower.max_source_positions * HOP_SAMPLES

    @classmethod
    def from_pretrained(cls, folder: Folder) -> Self:
        config, tensors = read_folder(folder)
        encoder = cls(config)
        for prefix, module in (("audio_model.", encoder.tower), ("audio_projector.", encoder.projector)):
            module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        return encoder

    def to(self, device: str) -> Self:
        self.tower.to(device)
        self.projector.to(device)
        return self

    @torch.inference_mode()
    def encode(self, media: np.ndarray | Tensor) -> Tensor:
        """Mono float waveform at 16 kHz [samples] -> [n, hidden], on the CPU."""
        projected: Tensor = self.projector(self.encode_features(media))
        return projected.cpu()

    @torch.inference_mode()
    def encode_features(self, media: np.ndarray | Tensor) -> Tensor:
        """The same up to just before the projector: [samples] -> [n, d_model]."""
        chunks = split(as_waveform(media), self._chunk_samples, MINIMUM_SAMPLES)
        return torch.cat([self._encode_chunk(chunk) for chunk in chunks])

    def _encode_chunk(self, chunk: Tensor) -> Tensor:
        """[samples], at most one chunk -> [n, d_model], only what the samples account for."""
        padded = functional.pad(chunk, (0, self._chunk_samples - len(chunk)))
        log_mel = self._log_mel(padded)[None]  # [1, mels, 2 * max_source_positions]
        frames = -(-len(chunk) // HOP_SAMPLES)
        positions = (frames - 1) // 2 + 1
        units = (positions - 2) // 2 + 1
        # An additive mask over the keys keeps the padding out of the attention.
        mask = torch.zeros(1, 1, log_mel.shape[-1] // 2, log_mel.shape[-1] // 2)
        mask[..., positions:] = float("-inf")
        device = self.projector.fc1.weight.device
        hidden: Tensor = self.tower(log_mel.to(device), attention_mask=mask.to(device)).last_hidden_state
        return hidden[0, :units]
