"""Speech-out step: the output voices' recordings with their units, told as they shall be learnt. Knows nothing of networks.

Units come from the trained speech codebook. Before there is one, `stand_in_units` gives clusters of a log-mel instead,
so that a vocoder can already learn the voices; its unit embedding is then learnt anew.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torchaudio
from torch import Tensor

from recipes.backbone_media import ANSWER_VOICES
from recipes.domain import OUTPUT_VOICES
from recipes.speech import read_manifest, read_recording
from recipes.vocoder_phase import in_step

SAMPLE_RATE, SAMPLES_PER_UNIT = 24_000, 960
SPEAKERS = tuple(OUTPUT_VOICES)
WRITERS = {language: list(OUTPUT_VOICES.values()).index(voice) for language, voice in ANSWER_VOICES.items()}
SMOOTHING = 1.5  # units, of the time that one recording keeps with another
SEARCH = 240  # samples to either side where the next piece may be taken from: two glottal pulses of a low voice
HELD_OUT = 8  # clips kept for validation


@dataclass(slots=True)
class SpokenClip:
    waveform: Tensor  # [n * samples per unit], padded with silence
    samples: int  # before the padding
    speaker: int
    text: str
    language: str
    units: Tensor  # [n]
    sounds: Tensor  # [n, width], what is said at each unit, for finding the same in another voice


def load_clips(cache: Path) -> list[SpokenClip]:
    """Every recording of an output voice, padded to whole units; the units are still empty."""
    names = {voice: index for index, voice in enumerate(OUTPUT_VOICES.values())}
    clips = []
    for row in read_manifest(cache, set="output"):
        if row["voice"] in names:
            waveform = torch.from_numpy(read_recording(cache, row))
            samples = len(waveform)
            waveform = torch.nn.functional.pad(waveform, (0, -len(waveform) % SAMPLES_PER_UNIT))
            units, sounds = torch.empty(0, dtype=torch.long), torch.empty(0, 0)
            clips.append(SpokenClip(waveform, samples, names[row["voice"]], row["text"], row["language"], units, sounds))
    random.Random("vocoder").shuffle(clips)
    return clips


def codebook_units(clips: Sequence[SpokenClip], folder: Path) -> None:
    """Fills in the units the server's own codebook hears, resampled as the backbone's training material is."""
    import soxr

    from omni_server.encoders.audio import AudioCodebook
    from omni_server.encoders.log_mel import LogMel

    codebook = AudioCodebook.from_pretrained(folder)
    log_mel = LogMel(codebook.network.config.n_mels)

    @torch.inference_mode()
    def before_codes(waveform: np.ndarray) -> Tensor:  # [samples] -> [units, width]
        hidden, _ = codebook.network.encoder(log_mel(torch.from_numpy(waveform))[None], None)
        return torch.nn.functional.layer_norm(hidden[0], hidden.shape[-1:])

    for clip in clips:
        heard = soxr.resample(clip.waveform[: clip.samples].numpy(), SAMPLE_RATE, 16_000)
        codes = codebook.encode(heard)
        count = len(clip.waveform) // SAMPLES_PER_UNIT
        codes += codes[-1:] * (count - len(codes))  # the tokenizer may drop a last, partial unit
        clip.units, clip.sounds = torch.tensor(codes[:count]), before_codes(heard)[:count]


def stand_in_units(clips: Sequence[SpokenClip], size: int, rounds: int = 12) -> None:
    """Fills in clusters of log-mel vectors, two half units each, by k-means."""
    hop = SAMPLES_PER_UNIT // 2
    mel = torchaudio.transforms.MelSpectrogram(SAMPLE_RATE, 1024, hop_length=hop, n_mels=40, power=1.0)
    features = []
    for clip in clips:
        frames = mel(clip.waveform)[:, :-1].clamp(min=1e-3).log().T  # [2 n, 40]
        features.append(frames.reshape(-1, 80))
    points = torch.cat(features)  # [all units, 80]
    generator = torch.Generator().manual_seed(0)
    centres = points[torch.randperm(len(points), generator=generator)[:size]]
    for _ in range(rounds):
        nearest = torch.cdist(points, centres).argmin(dim=1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        counts = torch.bincount(nearest, minlength=len(centres))[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    for clip, frames in zip(clips, features, strict=True):
        clip.units, clip.sounds = torch.cdist(frames, centres).argmin(dim=1), frames


def as_written(clips: Sequence[SpokenClip]) -> list[SpokenClip]:
    """Every recording as the backbone would have it said: with the units that it writes for the words, one voice's in each
    language, on that voice's time, whoever speaks.

    Units still hold something of who spoke, and how long sounds last is theirs: by a vocoder that had learned each voice's own,
    and the other's on its own time, half of the names were understood in the other voice.
    """
    written = {(clip.text, clip.language): clip for clip in clips if clip.speaker == WRITERS[clip.language]}
    pairs = ((clip, written[clip.text, clip.language]) for clip in clips if (clip.text, clip.language) in written)
    return [
        clip if clip is writer else replace(writer, speaker=clip.speaker, waveform=in_time(clip, writer))
        for clip, writer in pairs
    ]


def kept_in_step(clip: SpokenClip) -> SpokenClip:
    """The same with a pitch that its units tell."""
    return replace(clip, waveform=torch.from_numpy(in_step(clip.waveform.numpy(), SAMPLE_RATE, SAMPLES_PER_UNIT)))


def in_time(clip: SpokenClip, writer: SpokenClip) -> Tensor:
    """The recording, each moment of it when `writer` says the same: [samples of `writer`]."""
    from scipy.ndimage import gaussian_filter1d

    smooth = gaussian_filter1d(places(writer.sounds, clip.sounds).double().numpy(), SMOOTHING, mode="nearest")
    halves = np.arange(0.5, len(smooth), 0.5) - 0.5  # of units, counted from the middle of the first
    moments = (np.interp(halves, np.arange(len(smooth)), smooth) + 0.5) * SAMPLES_PER_UNIT
    made = stretched(clip.waveform.numpy(), moments.round().astype(int))[: len(writer.waveform)]
    return torch.nn.functional.pad(torch.from_numpy(made), (0, len(writer.waveform) - len(made)))


def places(mine: Tensor, theirs: Tensor) -> Tensor:
    """For each of [n, width], which of [m, width] says the same, by dynamic time warping: [n]."""
    import librosa

    shapes = [(sounds - sounds.mean(dim=0)).T.numpy() for sounds in (mine, theirs)]
    _, path = librosa.sequence.dtw(*shapes, metric="cosine")
    found = torch.zeros(len(mine), dtype=torch.long)
    for place, other in path[::-1].tolist():
        found[place] = other
    return found


def stretched(waveform: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Waveform-similarity overlap-add (Verhelst and Roelands, 1993): float32 [n] and, for every 20 ms of the result, the sample
    of the waveform that is then heard, [m] -> float32 [(m + 1) * 480]. The pitch stays."""
    hop, length = SAMPLES_PER_UNIT // 2, SAMPLES_PER_UNIT
    source = np.pad(waveform, 2 * length)
    window = np.hanning(length + 1)[:-1].astype(np.float32)
    made = np.zeros((len(moments) + 1) * hop, np.float32)
    start = int(moments[0]) + 2 * length - hop
    for number, moment in enumerate(moments):
        if number:
            first = int(moment) + 2 * length - hop - SEARCH
            following = source[start + hop : start + hop + length]
            start = first + int(np.correlate(source[first : first + length + 2 * SEARCH], following).argmax())
        made[number * hop : number * hop + length] += window * source[start : start + length]
    return made
