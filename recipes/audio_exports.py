"""Speech-in step: codes and features of all recordings, by the classes that serve. Knows nothing about training.

`audio_codes.npz` and `audio_features.npz` hold ragged rows: `paths` [clips], `lengths` [clips], and `values`, all rows
joined ([units] int16, or [units, width] float16). A recording as it is stands under its manifest path; changed variants
of it, another speaker in another room, stand under the path with `#1`, `#2` ... appended, the same in both files.
"""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from omni_server.encoders.audio import AudioCodebook, AudioEncoder
from omni_server.encoders.log_mel import HOP_SAMPLES, LogMel
from recipes.audio_augmentation import Strength, change_speed, distort, surround
from recipes.audio_clips import Clip, read_clips, read_waveform
from recipes.domain import cache_folder
from recipes.train_audio_encoder import short_features

STRENGTH = Strength(speed=0.15)
BATCH_CLIPS = 24
SILENT_LOG_MEL = -0.5


def write_codes(variants: int) -> None:
    """Brings audio_codes.npz up to date with the manifest; so many variants of each training clip of the input."""
    network = AudioCodebook.from_pretrained(cache_folder() / "audio_codebook").network
    log_mel = LogMel(network.config.n_mels)

    @torch.inference_mode()
    def encode(waveforms: list[np.ndarray]) -> list[np.ndarray]:
        padded, frames = _padded(log_mel, waveforms)
        codes = network(padded, frames)
        counts = ((frames + 1) // 2 + 1) // 2
        return [row[:count].numpy().astype(np.int16) for row, count in zip(codes, counts.tolist(), strict=True)]

    _write(cache_folder() / "audio_codes.npz", encode, variants)


def write_features(variants: int) -> None:
    """Brings audio_features.npz up to date with the manifest; input recordings only."""
    encoder = AudioEncoder.from_pretrained(cache_folder() / "audio_encoder")
    log_mel = LogMel(encoder.tower.config.num_mel_bins)
    longest = 2 * encoder.tower.config.max_source_positions * HOP_SAMPLES  # a slowed clip with silence around it may be longer

    @torch.inference_mode()
    def encode(waveforms: list[np.ndarray]) -> list[np.ndarray]:
        units, counts = short_features(encoder.tower, *_padded(log_mel, [waveform[:longest] for waveform in waveforms]))
        return [row[:count].numpy().astype(np.float16) for row, count in zip(units, counts.tolist(), strict=True)]

    _write(cache_folder() / "audio_features.npz", encode, variants, lambda clip: not clip.is_output_voice)


def _padded(log_mel: LogMel, waveforms: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-mels [batch, mels, frames] and how many frames of each are valid [batch]."""
    mels = [log_mel(torch.from_numpy(waveform)).T for waveform in waveforms]
    padded = pad_sequence(mels, batch_first=True, padding_value=SILENT_LOG_MEL).transpose(1, 2)
    return padded, torch.tensor([len(mel) for mel in mels])


def heard_as(clip: Clip, variant: int) -> np.ndarray:
    """float32 [samples]: the recording itself (0), or a variant that depends on nothing but path and number."""
    waveform = read_waveform(clip).astype(np.float32) / 32767
    if variant == 0:
        return waveform
    random = np.random.default_rng([zlib.crc32(clip.path.encode()), variant])
    waveform = change_speed(waveform, float(np.exp(random.uniform(-STRENGTH.speed, STRENGTH.speed))))
    return distort(surround(waveform, random), STRENGTH, random)


def may_vary(clip: Clip) -> bool:
    """The server's own voices and evaluation clips are only ever themselves."""
    return clip.is_training and not clip.is_output_voice


def read_ragged(path: Path) -> dict[str, np.ndarray]:
    """{key: rows} of one of the two files; empty while it is missing."""
    if not path.exists():
        return {}
    arrays = np.load(path)
    rows = np.split(arrays["values"], np.cumsum(arrays["lengths"])[:-1])
    return dict(zip(arrays["paths"].tolist(), rows, strict=True))


def _write(
    path: Path,
    encode: Callable[[list[np.ndarray]], list[np.ndarray]],
    variants: int,
    wanted: Callable[[Clip], bool] = lambda clip: True,
) -> None:
    torch.set_num_threads(1)
    rows = read_ragged(path)
    # The server's own voices first, and every recording once before any variant of one: a first file soon serves.
    clips = sorted(filter(wanted, read_clips()), key=lambda clip: (not clip.is_output_voice, clip.seconds))
    fresh = 0
    for variant in range(1 + variants):
        missing = [clip for clip in clips if (not variant or may_vary(clip)) and _key(clip, variant) not in rows]
        for start in range(0, len(missing), BATCH_CLIPS):
            batch = missing[start : start + BATCH_CLIPS]
            found = encode([heard_as(clip, variant) for clip in batch])
            rows |= {_key(clip, variant): row for clip, row in zip(batch, found, strict=True)}
        fresh += len(missing)
        _save(path, rows)
        print(f"{path.name}: variant {variant}, {fresh} new, {len(rows)} in all", flush=True)


def _key(clip: Clip, variant: int) -> str:
    return f"{clip.path}#{variant}" if variant else clip.path


def _save(path: Path, rows: dict[str, np.ndarray]) -> None:
    unfinished = path.with_suffix(".part.npz")
    lengths = np.array([len(row) for row in rows.values()])
    np.savez(unfinished, paths=np.array(list(rows)), lengths=lengths, values=np.concatenate(list(rows.values())))
    unfinished.rename(path)
