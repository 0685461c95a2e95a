"""Speech-out step: trains the Unit-BigVGAN that speaks the embedded checkpoint's units in its two voices.

python -m recipes.train_vocoder --seconds 6000       trains; goes on from the last checkpoint
python -m recipes.train_vocoder --export FOLDER      writes the component from the newest checkpoint
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import random
import time
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from decoders.audio.audio import AudioDecoder
from decoders.audio.look_ahead import random_utterances, recommended
from decoders.audio.unit_bigvgan import UnitBigVGAN, VocoderConfig
from recipes.domain import cache_folder
from recipes.precision import mixed
from recipes.vocoder_clips import (
    HELD_OUT,
    SAMPLE_RATE,
    SAMPLES_PER_UNIT,
    SPEAKERS,
    SpokenClip,
    as_written,
    codebook_units,
    kept_in_step,
    load_clips,
    stand_in_units,
)
from recipes.vocoder_critics import Critics
from recipes.vocoder_front import FrontBatches, FrontLoss, FrontTarget
from recipes.vocoder_kernels import quicken
from recipes.vocoder_losses import SpectralLoss

CONFIG = VocoderConfig(
    num_units=729,
    unit_emb_dim=128,
    spk_emb_dim=64,
    upsample_initial_channel=256,
    upsample_rates=(8, 6, 5, 4),
    upsample_kernel_sizes=(16, 12, 11, 8),
    resblock_kernel_sizes=(3, 7),
    resblock_dilation_sizes=((1, 3), (1, 3)),
    use_bias_at_final=False,
    use_tanh_at_final=False,
    causal=False,
    finetune=True,
    num_spk=len(SPEAKERS),
)
LOW_WEIGHT = 0.5  # of the waveform below 1.2 kHz; 1 until it was learnt
FRONT_CLIPS = 3  # to each step, one of them by all stages; 8 while the first stages learnt alone
CRITIC_UNITS = 24  # the critics hear this much of a clip
PEAK_RATE, FINAL_RATE, WARM_STEPS = 1.2e-3, 3e-5, 200
CRITIC_RATE, CRITIC_WEIGHT, LIKENESS_WEIGHT = 4e-4, 0.1, 0.3
FRESH_UNITS_BOOST, FRESH_UNITS_STEPS = 5.0, 600  # a new codebook's embedding learns faster at first
AVERAGE_DECAY = 0.998
SAVE_EVERY, REPORT_EVERY = 180.0, 100
PARTS = ("network", "average", "front", "critics", "optimizer", "front_optimizer", "critic_optimizer")


class Losses(NamedTuple):
    """Of one update, as figures to report."""

    front: float  # log-mels that the first stage's reader reads
    harmonics: float  # the waveform below 1.2 kHz, by the second stage's reader
    mel: float  # of the whole vocoder
    low: float  # below 1.2 kHz, of the whole vocoder


class Trainer:
    """The network, a running average of its weights (what is exported) and the optimizer; all of it resumable."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(11)
        self.path = folder / "vocoder" / "checkpoint.pt"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.network = UnitBigVGAN(CONFIG)
        torch.nn.init.normal_(self.network.unit_emb.weight)
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.front = FrontLoss(self.network)
        self.optimizer = torch.optim.AdamW(self._groups(), PEAK_RATE, betas=(0.8, 0.99), weight_decay=1e-3, fused=True)
        self.front_optimizer = torch.optim.AdamW(self.front.parameters(), PEAK_RATE, fused=True)
        self.critics = Critics()
        self.critic_optimizer = torch.optim.AdamW(self.critics.parameters(), CRITIC_RATE, betas=(0.8, 0.99), fused=True)
        self.step, self.fresh_since, self.units_from = 0, 0, "nothing"
        if self.path.exists():
            saved = torch.load(self.path, weights_only=True)
            for name in PARTS:
                getattr(self, name).load_state_dict(saved[name])
            self.step, self.fresh_since, self.units_from = saved["step"], saved["fresh_since"], saved["units_from"]
        quicken(self.network)
        self.loss = SpectralLoss()

    def _groups(self) -> list[dict[str, object]]:
        rest = [value for name, value in self.network.named_parameters() if name != "unit_emb.weight"]
        return [{"params": rest}, {"params": [self.network.unit_emb.weight]}]

    def use_units(self, source: str) -> None:
        """Units of another codebook mean other sounds: forget the embedding, keep the voices."""
        if source != self.units_from:
            print(f"units from {source}, before from {self.units_from}: new embedding", flush=True)
            torch.nn.init.normal_(self.network.unit_emb.weight)
            self.average.unit_emb.load_state_dict(self.network.unit_emb.state_dict())
            self.optimizer.state.pop(self.network.unit_emb.weight, None)
            self.fresh_since, self.units_from = self.step, source

    def set_rates(self, share: float) -> None:
        rate = PEAK_RATE * (FINAL_RATE / PEAK_RATE) ** share * min(1.0, (self.step + 1) / WARM_STEPS)
        fresh = self.step - self.fresh_since < FRESH_UNITS_STEPS
        self.optimizer.param_groups[0]["lr"] = self.front_optimizer.param_groups[0]["lr"] = rate
        self.optimizer.param_groups[1]["lr"] = rate * (FRESH_UNITS_BOOST if fresh else 1.0)

    def speak(self, network: UnitBigVGAN, clip: SpokenClip) -> Tensor:  # -> [1, samples]
        with mixed():
            voice = network.spk_emb(torch.tensor([clip.speaker]))
            return network(clip.units[None], voice)[0].float()

    def learn(self, clips: list[SpokenClip], targets: list[FrontTarget], whole: bool, judged: bool) -> Losses:
        """One update: of the first stages from all clips and, if `whole`, of all stages from the first of them; with critics if
        `judged`."""
        self.optimizer.zero_grad(set_to_none=True)
        self.front_optimizer.zero_grad(set_to_none=True)
        with mixed():
            front, harmonics = self.front(self.network, clips, targets)
        (front + LOW_WEIGHT * harmonics).backward()
        mel = low = torch.zeros(())
        if whole:
            made, recorded = self.speak(self.network, clips[0]), clips[0].waveform[None]
            loss, mel = self.loss(made, recorded)
            low = self.front.low_band.distance(self.front.low_band(made), targets[0].low[None])
            loss = loss + LOW_WEIGHT * low
            if judged:
                loss = loss + self.judged_loss(made, recorded)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.front_optimizer.step()
        self.step += 1
        keep = min(AVERAGE_DECAY, self.step / (self.step + 20))
        values = [value.detach() for value in self.network.parameters()]
        torch._foreach_lerp_(list(self.average.parameters()), values, 1 - keep)
        return Losses(front.item(), harmonics.item(), mel.item(), low.item())

    def judged_loss(self, made: Tensor, recorded: Tensor) -> Tensor:
        """The critics learn from a stretch of both waveforms, then the vocoder from them."""
        length = CRITIC_UNITS * SAMPLES_PER_UNIT
        start = int(torch.randint(max(1, made.shape[1] - length + 1), ()))
        made, recorded = made[:, start : start + length], recorded[:, start : start + length]
        self.critic_optimizer.zero_grad(set_to_none=True)
        self.critics.judge(recorded, made).backward()
        self.critic_optimizer.step()
        self.critics.requires_grad_(False)
        short, unlike = self.critics.teach(recorded, made)
        self.critics.requires_grad_(True)
        return CRITIC_WEIGHT * short + LIKENESS_WEIGHT * unlike

    @torch.inference_mode()
    def validate(self, clips: list[SpokenClip]) -> float:
        """Mel distance of the averaged network on whole clips it has not trained on."""
        network = quicken(copy.deepcopy(self.average))
        losses = [self.loss(self.speak(network, clip), clip.waveform[None])[1] for clip in clips]
        return float(torch.stack(losses).mean())

    def save(self) -> None:
        unfinished = self.path.with_suffix(".part")
        parts = {name: getattr(self, name).state_dict() for name in PARTS}
        torch.save({**parts, "step": self.step, "fresh_since": self.fresh_since, "units_from": self.units_from}, unfinished)
        unfinished.rename(self.path)


def load_training_clips(cache: Path) -> tuple[list[SpokenClip], str]:
    """All clips with units, and where the units are from."""
    clips = load_clips(cache)
    codebook = cache / "audio_codebook"
    if (codebook / "model.safetensors").exists():
        codebook_units(clips, codebook)
        return clips, source_of(codebook)
    stand_in_units(clips, CONFIG.num_units)
    return clips, "log-mel clusters"


def source_of(codebook: Path) -> str:
    """Names a codebook by its weights."""
    return f"codebook {hashlib.sha256((codebook / 'model.safetensors').read_bytes()).hexdigest()[:12]}"


def train(seconds: float, start_share: float, whole_from: float, critics_from: float) -> None:
    """`start_share` of the falling rate is where it begins; after `whole_from` of the time all stages learn, not the first two
    alone, and after `critics_from` the critics listen too."""
    cache = cache_folder()
    trainer = Trainer(cache)
    clips, source = load_training_clips(cache)
    trainer.use_units(source)
    clips = [kept_in_step(clip) for clip in as_written(clips)]
    held, kept = clips[:HELD_OUT], clips[HELD_OUT:]
    print(f"{len(kept)} clips, {sum(len(clip.units) for clip in kept) / 25:.0f} s, units from {source}", flush=True)
    chance = random.Random(trainer.step)
    started = saved = time.monotonic()
    batches = FrontBatches(trainer.front, kept)
    recent: list[Losses] = []
    while (spent := time.monotonic() - started) < seconds:
        share = spent / seconds
        trainer.set_rates(start_share + (1 - start_share) * share)
        drawn = batches.draw(FRONT_CLIPS, chance)
        recent.append(trainer.learn(*drawn, whole=share >= whole_from, judged=share >= critics_from))
        if trainer.step % REPORT_EVERY == 0:
            means = torch.tensor(recent).mean(dim=0).tolist()
            figures = ", ".join(f"{name} {mean:.3f}" for name, mean in zip(Losses._fields, means, strict=True))
            print(f"{spent:.0f} s, step {trainer.step}: {figures}", flush=True)
            recent.clear()
        if time.monotonic() - saved > SAVE_EVERY:
            trainer.save()
            print(f"saved; held-out mel {trainer.validate(held):.3f}", flush=True)
            saved = time.monotonic()
    trainer.save()
    print(f"done; held-out mel {trainer.validate(held):.3f}", flush=True)


def export(folder: Path) -> None:
    """The averaged weights in half precision (the loader widens them), and what the server must know of them."""
    trainer = Trainer(cache_folder())
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.half() for name, value in trainer.average.state_dict().items()}
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors")
    (folder / "model.safetensors").chmod(0o644)
    trained = UnitBigVGAN(CONFIG)
    trained.load_state_dict(trainer.average.state_dict())
    decoder = AudioDecoder(trained, SAMPLE_RATE, SPEAKERS, precision="float32")
    look_ahead = recommended(decoder, random_utterances(CONFIG.num_units))
    config = {
        **asdict(CONFIG),
        "sample_rate": SAMPLE_RATE,
        "units_per_second": SAMPLE_RATE // SAMPLES_PER_UNIT,
        "speakers": list(SPEAKERS),
        "default_speaker": SPEAKERS[0],
        "look_ahead_units": look_ahead,
        "first_chunk_units": 4,
        "largest_chunk_units": 24,
        "cross_fade_samples": 240,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    print(f"step {trainer.step}, units from {trainer.units_from}: {folder}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6000.0, help="time to train; the rate falls over this time")
    parser.add_argument("--start-share", type=float, default=0.0, help="where on the falling rate to begin, 0..1")
    parser.add_argument("--whole-from", type=float, default=0.0, help="share of the time after which all stages learn, 0..1")
    parser.add_argument("--critics-from", type=float, default=0.6, help="share of the time after which critics listen, 0..1")
    parser.add_argument("--export", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # they would slow the kernels down
    if arguments.export:
        export(arguments.export)
    else:
        train(arguments.seconds, arguments.start_share, arguments.whole_from, arguments.critics_from)


if __name__ == "__main__":
    main()
