"""Step 3. The log-mel front end that both audio encoders hear through; knows nothing of what they do with it."""

import numpy as np
import torch
import torchaudio
from torch import Tensor, nn

SAMPLE_RATE = 16_000
WINDOW_SAMPLES = 400
HOP_SAMPLES = 160


class LogMel(nn.Module):
    """Waveform at 16 kHz to a Whisper-type log-mel spectrogram, 100 frames per second."""

    filters: Tensor
    window: Tensor

    def __init__(self, mel_bins: int) -> None:
        super().__init__()
        # Constants, wherever the network around them is built: on the meta device it has shapes and no numbers.
        with torch.device("cpu"):
            self._fill(mel_bins)

    def _fill(self, mel_bins: int) -> None:
        filters = torchaudio.functional.melscale_fbanks(
            n_freqs=WINDOW_SAMPLES // 2 + 1,
            f_min=0.0,
            f_max=SAMPLE_RATE / 2,
            n_mels=mel_bins,
            sample_rate=SAMPLE_RATE,
            norm="slaney",
            mel_scale="slaney",
        )  # [201, mel_bins]
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW_SAMPLES), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """[..., samples] -> [..., mel_bins, samples // 160]."""
        spectrum = torch.stft(
            waveform, WINDOW_SAMPLES, HOP_SAMPLES, window=self.window, center=True, return_complex=True
        )  # [..., 201, samples // 160 + 1]
        power = torch.view_as_real(spectrum[..., :-1]).square().sum(-1)
        log_mel = (self.filters.T @ power).clamp(min=1e-10).log10()  # [..., mel_bins, frames]
        # The floor hangs from the loudest point of the whole piece, so a piece must be cut before this, never after.
        loudest = log_mel.amax(dim=(-2, -1), keepdim=True)
        return (torch.maximum(log_mel, loudest - 8.0) + 4.0) / 4.0


def as_waveform(waveform: np.ndarray | Tensor) -> Tensor:
    """Checks and copies a mono waveform: -> float32 [samples] on the CPU."""
    tensor = torch.as_tensor(waveform).detach().to("cpu", torch.float32)
    if tensor.ndim != 1:
        raise ValueError(f"expected a mono waveform of shape [samples], got shape `{tuple(tensor.shape)}`")
    return tensor


def split(waveform: Tensor, chunk_samples: int, minimum_samples: int) -> list[Tensor]:
    """Cuts [samples] into chunks; a last one that is too short (or empty audio) is padded with silence."""
    chunks = list(torch.split(waveform, chunk_samples)) if len(waveform) else [waveform]
    missing = minimum_samples - len(chunks[-1])
    if missing > 0:
        chunks[-1] = nn.functional.pad(chunks[-1], (0, missing))
    return chunks
