"""Step 7, voice. Two vocoders as one decoder: named voices by one, the voice of a given recording by the other."""

from __future__ import annotations

import numpy as np
import torch
from torchaudio.functional import resample

from decoders.audio.audio import AudioDecoder, DecodeOptions, HasVoice, VoiceStream

REFERENCE_RATE = 16_000  # of the recordings that the server hands over


class Voices:
    """`named` speaks with the voices it knows, `cloner` with a recording's."""

    spans_at_once = AudioDecoder.spans_at_once

    def __init__(self, named: AudioDecoder, cloner: AudioDecoder) -> None:
        if named.sample_rate != cloner.sample_rate:
            raise ValueError(
                f"two vocoders of one checkpoint at `{named.sample_rate}` and `{cloner.sample_rate}` samples a second"
            )
        self.named, self.cloner = named, cloner
        self.sample_rate = named.sample_rate
        self.speakers = named.speakers

    def open(self, options: HasVoice) -> VoiceStream:
        reference = getattr(options, "reference", None)
        if reference is None:
            return self.named.open(options)
        resampled = resample(torch.as_tensor(reference, dtype=torch.float32), REFERENCE_RATE, self.cloner.sample_rate)
        look_ahead = getattr(options, "look_ahead", None)
        return self.cloner.open(DecodeOptions(reference=np.asarray(resampled), look_ahead=look_ahead))
