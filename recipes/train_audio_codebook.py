"""Speech-in step: trains the speech tokenizer to be readable (CTC) and audible (mel). Knows no user of its codes."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from omni_server.encoders.s3_tokenizer import TANH_SCALE, S3Config, S3Tokenizer, digits_to_codes
from recipes.audio_augmentation import Strength
from recipes.audio_batches import AudioBatch, AudioBatches
from recipes.audio_clips import Clip, ClipStore
from recipes.audio_heads import MelDecoder, RecognitionHead, error_rate, right_names
from recipes.domain import cache_folder
from recipes.precision import mixed
from recipes.training_run import TrainingRun, set_rate

CONFIG = S3Config(n_mels=80, n_audio_state=128, n_audio_head=2, n_audio_layer=3, n_codebook_size=729)
SEED = 7
BATCH_SECONDS = 32.0
OUTPUT_SHARE = 0.5
PEAK_RATE = 1.5e-3
RECONSTRUCTION_WEIGHT = 6.0
EVENNESS_WEIGHT = 1.0
STRENGTH = Strength(chance=0.5, dirt=0.2, speed=0.08, tempo=0.1, vocal_tract=0.08)
REFRESH_STEPS = 300
ROUNDED_FROM = 0.2  # of the budget


def unevenness(projected: Tensor) -> Tensor:
    """Of [units, digits] before the tanh: how far each is from mean 0 and deviation 1, and each pair from independence.
    Without this three of six digits went to one end of the tanh and stayed there: 27 codes of 729 were used."""
    mean, centred = projected.mean(dim=0), projected - projected.mean(dim=0)
    covariance = centred.T @ centred / len(projected)
    return mean.square().mean() + (covariance - torch.eye(len(mean))).square().mean()


class CodebookTrainer:
    """The tokenizer with its two throw-away heads."""

    def __init__(self) -> None:
        torch.manual_seed(SEED)
        self.tokenizer = S3Tokenizer(CONFIG)
        earlier = cache_folder() / "audio_codebook" / "model.safetensors"
        if earlier.exists():
            self.tokenizer.load_state_dict({name: tensor.float() for name, tensor in load_file(earlier).items()})
        self.recognition = RecognitionHead(CONFIG.digits)
        self.decoder = MelDecoder(CONFIG.digits, CONFIG.n_mels)
        self.early_recognition = RecognitionHead(CONFIG.n_audio_state)
        self.parts = {
            "tokenizer": self.tokenizer,
            "recognition": self.recognition,
            "early_recognition": self.early_recognition,
            "decoder": self.decoder,
        }
        parameters = [parameter for part in self.parts.values() for parameter in part.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)

    def digits(self, batch: AudioBatch, rounded_share: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Digits [batch, units, digits] of which so many rows are rounded, gradients passing straight through; the hidden
        states [batch, units, width], unit counts [batch], and how far the digits are from being used evenly."""
        hidden, valid = self.tokenizer.encoder(batch.log_mel, batch.frames)
        assert valid is not None
        projected = self.tokenizer.quantizer._codebook.project_down(hidden).float()
        soft = projected.tanh() * TANH_SCALE
        rounded = torch.rand(len(soft), 1, 1) < rounded_share
        digits = soft + ((soft.round() - soft) * rounded).detach()
        return digits, hidden, valid.sum(dim=1), unevenness(projected[valid])

    def step(self, batch: AudioBatch, run: TrainingRun) -> tuple[float, float]:
        """One update; returns the recognition and the reconstruction loss."""
        set_rate(self.optimizer, run.rate(PEAK_RATE))
        # Rounding from the first step on starves the encoder of gradient, so it comes in by and by.
        with mixed():
            digits, hidden, counts, uneven = self.digits(batch, rounded_share=run.share / ROUNDED_FROM)
            recognition = self.recognition.loss(digits, counts, batch)
            early = self.early_recognition.loss(hidden, counts, batch)
            reconstruction = self.decoder.loss(digits, batch)
        self.optimizer.zero_grad()
        (recognition + 0.5 * early + RECONSTRUCTION_WEIGHT * reconstruction + EVENNESS_WEIGHT * uneven).backward()
        torch.nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], 1.0)
        self.optimizer.step()
        return recognition.item(), reconstruction.item()

    @torch.inference_mode()
    def evaluate(self, batches: AudioBatches, clips: list[Clip]) -> dict[str, float]:
        """Recognition from the codes alone, the mel error, and how the codes are used."""
        readings: list[list[int]] = []
        used: Counter[int] = Counter()
        losses = []
        for start in range(0, len(clips), 16):
            batch = batches.plain(clips[start : start + 16])
            digits, _, counts, _ = self.digits(batch)
            readings += self.recognition.read(digits, counts)
            losses.append(self.decoder.loss(digits, batch).item())
            for row, count in zip(digits_to_codes(digits), counts.tolist(), strict=True):
                used.update(row[:count].tolist())
        shares = torch.tensor(list(used.values())) / used.total()
        named = [(clip, reading) for clip, reading in zip(clips, readings, strict=True) if clip.concept is not None]
        right = right_names([clip for clip, _ in named], [reading for _, reading in named])
        return {
            "clips": len(clips),
            "symbol_errors": round(error_rate(clips, readings), 3),
            "right_names": round(sum(right) / max(1, len(right)), 3),
            "mel_error": round(sum(losses) / len(losses), 4),
            "codes_used": len(used),
            "perplexity": round(float((-(shares * shares.log()).sum()).exp()), 1),
        }


def train(minutes: float) -> None:
    """Trains for so many minutes in all, resuming, then exports."""
    trainer, store = CodebookTrainer(), ClipStore()
    batches = AudioBatches(store, CONFIG.n_mels, BATCH_SECONDS, SEED, OUTPUT_SHARE)
    folder = cache_folder() / "audio_codebook"
    run = TrainingRun(folder / "run.pt", minutes * 60, {**trainer.parts, "optimizer": trainer.optimizer})
    recognition = reconstruction = 0.0
    while True:
        strength = STRENGTH if run.share < 0.85 else Strength(chance=0.25, dirt=0.1, speed=0.05, tempo=0.05, vocal_tract=0.05)
        losses = trainer.step(batches.draw(run.step, strength, dropped_bands=False), run)
        recognition += (losses[0] - recognition) * 0.02
        reconstruction += (losses[1] - reconstruction) * 0.02
        if run.step % 50 == 0:
            print(f"{run.step} {run.spent:.0f} s ctc {recognition:.3f} mel {reconstruction:.4f}", flush=True)
        if run.step % REFRESH_STEPS == REFRESH_STEPS - 1 and store.refresh():
            batches.refresh()
        if not run.advance():
            break
    export(trainer, folder)
    report(trainer, batches, store)


def export(trainer: CodebookTrainer, folder: Path) -> None:
    """Writes the component; half floats, so whoever computes codes must read them back from here."""
    tensors = {name: tensor.half().contiguous() for name, tensor in trainer.tokenizer.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(asdict(CONFIG), indent=2) + "\n", encoding="utf-8")


def report(trainer: CodebookTrainer, batches: AudioBatches, store: ClipStore) -> None:
    """Prints the figures for the server's own voices and for voices never trained on."""
    groups = {
        "output": [clip for clip in store.clips if clip.is_output_voice],
        "unheard speakers": [clip for clip in store.clips if clip.held_out == "speaker"],
        "unheard engines": [clip for clip in store.clips if clip.held_out == "engine"],
    }
    for name, clips in groups.items():
        if clips:
            print(name, trainer.evaluate(batches, clips[:400]), flush=True)
