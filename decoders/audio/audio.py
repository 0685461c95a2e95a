"""Step 7, voice. Speech units in, pieces of waveform out, while the units still come; knows nothing of tokens.

A chunk of units is decoded together with the units around it that its samples depend on. With all of the right
context the pieces joined are the one-shot waveform. With less (`look_ahead_units`) sound starts earlier, and
neighbouring chunks, which then differ a little where they meet, are cross-faded. Chunk borders depend on the count of
units alone, so how the units were cut when fed never changes the sound.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from decoders.audio.reference import reference_mel
from decoders.audio.unit_bigvgan import UnitBigVGAN, VocoderConfig, fold_weight_norm
from decoders.audio.vocoder import Company, Precision, Window, open_vocoder

LookAhead = Literal["low_latency", "exact"]


class UnitError(ValueError):
    """A unit outside the vocabulary."""


class VoiceError(ValueError):
    """A voice this decoder does not have."""


class HasVoice(Protocol):
    """All that `open` must be given; it takes `reference` and `look_ahead` too where the options have them."""

    @property
    def voice(self) -> str | None: ...


@dataclass(frozen=True, slots=True, eq=False)
class DecodeOptions:
    """Who speaks: a named voice, or (zero-shot decoders) a reference recording at `sample_rate`; None is the default.

    `look_ahead`: "exact" waits for the whole right context, "low_latency" for the decoder's `look_ahead_units`; None is
    the decoder's own choice.
    """

    voice: str | None = None
    reference: np.ndarray | None = None  # float32 [samples]
    look_ahead: LookAhead | None = None


@dataclass(frozen=True, slots=True)
class Streaming:
    """The streaming keys of config.json."""

    look_ahead_units: int = 8
    first_chunk_units: int = 4
    # Chunks grow by half each time: playing one covers making the next where a second of sound takes 0.67 s or less.
    largest_chunk_units: int = 24
    cross_fade_samples: int = 240

    def chunk_after(self, units: int) -> int:
        return min(units + (units + 1) // 2, self.largest_chunk_units)


class AudioDecoder:
    """One vocoder with its voices, shared by all streams; `open` once per span.

    `precision`: "auto" is bfloat16 where the CPU multiplies it, else float32.
    """

    spans_at_once = 16  # that may feed at the same time, each from a thread of its own

    def __init__(
        self,
        network: UnitBigVGAN,
        sample_rate: int,
        speakers: Sequence[str] = (),
        default_speaker: str | None = None,
        streaming: Streaming = Streaming(),
        precision: Precision = "auto",
        look_ahead: LookAhead = "low_latency",
    ):
        if default_speaker is not None and default_speaker not in speakers:
            raise ValueError(f"`default_speaker` must be one of {list(speakers)}, got `{default_speaker}`")
        longest = min(1, streaming.look_ahead_units) * network.samples_per_unit
        if not 0 <= streaming.cross_fade_samples <= longest:
            raise ValueError(f"`cross_fade_samples` must be in 0..{longest}, got `{streaming.cross_fade_samples}`")
        self.network = network.eval().requires_grad_(False)
        self.sample_rate = sample_rate
        self.speakers = tuple(speakers)
        self.default_speaker = default_speaker or next(iter(speakers), None)
        self.streaming = streaming
        self.look_ahead = look_ahead
        vocoder = open_vocoder(self.network, precision)
        self.precision = vocoder.precision
        self._company = Company(vocoder)

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike[str], precision: Precision = "auto", look_ahead: LookAhead = "low_latency"
    ) -> Self:
        """Reads config.json and model.safetensors; half floats are widened, weight norm is folded if still apart."""
        config: Mapping[str, Any] = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        network = UnitBigVGAN(VocoderConfig.from_mapping(config))
        network.load_state_dict(fold_weight_norm(load_file(Path(folder) / "model.safetensors")))
        speakers, sample_rate = config.get("speakers", []), config["sample_rate"]
        if sample_rate != config["units_per_second"] * network.samples_per_unit:
            raise ValueError(
                f"`sample_rate` must be `units_per_second` {config['units_per_second']} times the product of "
                f"`upsample_rates` {network.samples_per_unit}, got `{sample_rate}`"
            )
        if network.config.finetune and len(speakers) != network.config.num_spk:
            raise ValueError(f"`speakers` must name `num_spk` {network.config.num_spk} voices, got `{len(speakers)}`")
        streaming = Streaming(**{key.name: config[key.name] for key in fields(Streaming) if key.name in config})
        return cls(network, sample_rate, speakers, config.get("default_speaker"), streaming, precision, look_ahead)

    def open(self, options: HasVoice, streaming: Streaming | None = None) -> VoiceStream:
        """One utterance. `streaming` stands in for the checkpoint's own."""
        left, right = self.network.context()
        streaming = streaming or self.streaming
        wished = getattr(options, "look_ahead", None) or self.look_ahead
        look_ahead = min(streaming.look_ahead_units, right) if wished == "low_latency" else right
        fade = streaming.cross_fade_samples if look_ahead < right else 0
        return VoiceStream(self._company, self.network, self._voice(options), streaming, (left, look_ahead), fade)

    @torch.inference_mode()
    def _voice(self, options: HasVoice) -> Tensor:  # [1, voice width]
        if not self.network.config.finetune:
            reference = getattr(options, "reference", None)
            if reference is None:
                raise VoiceError(f"this decoder needs a reference recording of a voice, got the name `{options.voice}` alone")
            return self.network.spk_emb(reference_mel(reference, self.sample_rate, self.network.config.num_mels)[None])
        name = self.default_speaker if options.voice is None else options.voice
        if name not in self.speakers:
            raise VoiceError(f"voice must be one of {', '.join(self.speakers)}; got `{name}`")
        return self.network.spk_emb(torch.tensor([self.speakers.index(name)]))


class VoiceStream:
    """One utterance under way."""

    def __init__(
        self,
        company: Company,
        network: UnitBigVGAN,
        voice: Tensor,
        streaming: Streaming,
        context: tuple[int, int],
        fade: int,
    ):
        self._company, self._network, self._voice, self._streaming = company, network, voice, streaming
        self._left, self._look_ahead = context  # units
        self._fade = fade  # samples
        self._units: list[int] = []  # from `_first` on
        self._first = 0  # index of `_units[0]` in the utterance
        self._next = 0  # index of the first unit not yet spoken
        self._chunk = streaming.first_chunk_units
        self._tail = np.zeros(0, dtype=np.float32)  # what the last chunk made of the beginning of the next

    def feed(self, units: Sequence[int]) -> list[np.ndarray]:
        """float32 mono pieces, each [samples], that these units complete."""
        size = self._network.config.num_units
        for unit in units:
            if not 0 <= unit < size:
                raise UnitError(f"speech unit must be in 0..{size - 1}, got `{unit}`")
        self._units += units
        pieces = []
        while self._first + len(self._units) >= self._next + self._chunk + self._look_ahead:
            pieces.append(self._speak(self._chunk, self._fade))
            self._chunk = self._streaming.chunk_after(self._chunk)
        return pieces

    def finish(self) -> list[np.ndarray]:
        """The rest, which ends where the utterance ends."""
        remaining = self._first + len(self._units) - self._next
        return [self._speak(remaining, 0)] if remaining else []

    def _speak(self, count: int, fade: int) -> np.ndarray:
        """Decodes the next `count` units and, for the fade, the first samples after them."""
        rate, start = self._network.samples_per_unit, self._next - self._first
        seen = self._units[: start + count + self._look_ahead]
        wanted = start * rate, (start + count) * rate + fade - 1
        made = self._company.speak(Window(seen, self._voice, wanted))  # [count * rate + fade]
        overlap = len(self._tail)
        if overlap:
            rising = (np.arange(overlap, dtype=np.float32) + 1) / (overlap + 1)
            made[:overlap] = self._tail + (made[:overlap] - self._tail) * rising
        self._next += count
        forget = max(0, self._next - self._first - self._left)
        del self._units[:forget]
        self._first += forget
        self._tail = made[count * rate :].copy()
        return made[: count * rate]
