"""Speech-in step: trains the Qwen2-Audio encoder to be readable (CTC). Knows nothing of the backbone."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import Qwen2AudioEncoderConfig
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

from omni_server.encoders.audio import AudioCodebook, Projector
from recipes.audio_augmentation import Strength
from recipes.audio_batches import AudioBatch, AudioBatches
from recipes.audio_clips import Clip, ClipStore
from recipes.audio_heads import NamingHead, RecognitionHead, error_rate, right_names
from recipes.domain import cache_folder
from recipes.precision import mixed
from recipes.processes import join, share_gradients
from recipes.training_run import TrainingRun, set_rate

MEL_BINS = 80
CONFIG: dict[str, Any] = {
    "audio_config": {
        "num_mel_bins": MEL_BINS,
        "d_model": 128,
        "encoder_layers": 6,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 512,
        "max_source_positions": 250,
    },
    "projector_hidden_size": 256,
    "hidden_size": 256,
}
DROPOUT = 0.0
SEED = 11
BATCH_SECONDS = 32.0
OUTPUT_SHARE = 0.08
NAMING_WEIGHT = 1.0
IMITATION_WEIGHT = 3.0  # a dense lesson while CTC has not found its alignment; fades
PEAK_RATE = 1e-3
POSITION_SCALE, CONVOLUTION_GAIN = 0.3, 4.0
# Hard cases from the first step on would keep CTC on its plateau; easy ones at the end let it settle.
STRENGTHS = (
    (0.25, Strength(chance=0.4, dirt=0.2, speed=0.06, tempo=0.06, vocal_tract=0.06, masks=1)),
    (0.9, Strength(chance=0.6, dirt=0.3, speed=0.1, tempo=0.1, vocal_tract=0.1, masks=1)),
    (1.0, Strength(chance=0.4, dirt=0.2, speed=0.08, tempo=0.08, vocal_tract=0.08, masks=1)),
)
REFRESH_STEPS = 1000


def sinusoids(positions: int, width: int) -> Tensor:
    """The fixed position table of Whisper-type encoders: [positions, width], sines before cosines."""
    frequencies = 10_000 ** (-torch.arange(width // 2) / (width // 2 - 1))
    angles = torch.arange(positions)[:, None] * frequencies[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def positions_of(tower: Qwen2AudioEncoder, log_mel: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """What the tower's layers compute for whole chunks, at the batch's own length.

    log_mel [batch, mels, frames], valid frames [batch] -> [batch, positions, width], 50 a second, and how many are valid.
    """
    log_mel = functional.pad(log_mel, (0, -log_mel.shape[-1] % 4), mode="replicate")
    x = functional.gelu(tower.conv2(functional.gelu(tower.conv1(log_mel)))).transpose(1, 2)  # [batch, positions, width]
    positions = x.shape[1]
    counts = (frames - 1) // 2 + 1
    mask = torch.zeros(len(x), 1, positions, positions)
    mask.masked_fill_((torch.arange(positions) >= counts[:, None])[:, None, None], float("-inf"))
    x = functional.dropout(x + tower.embed_positions.weight[:positions], tower.dropout, tower.training)
    for layer in tower.layers:
        x = layer(x, mask)
    return x, counts


def units_of(tower: Qwen2AudioEncoder, positions: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The tower's output: pairs of positions, averaged -> [batch, units, width], 25 a second, and how many are valid."""
    units: Tensor = tower.layer_norm(tower.avg_pooler(positions.transpose(1, 2)).transpose(1, 2))
    return units, (counts - 2) // 2 + 1


def short_features(tower: Qwen2AudioEncoder, log_mel: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Both: log_mel [batch, mels, frames], valid frames [batch] -> [batch, units, width], valid units [batch]."""
    return units_of(tower, *positions_of(tower, log_mel, frames))


def resume(tower: Qwen2AudioEncoder, weights: dict[str, Tensor]) -> None:
    """Goes on from a tower of as many layers or fewer; a layer that it had not begins by adding nothing."""
    known = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("layers."))
    for layer in tower.layers[known:]:
        for last in (layer.self_attn.out_proj, layer.fc2):
            torch.nn.init.zeros_(last.weight)
            torch.nn.init.zeros_(last.bias)
    tower.load_state_dict({**tower.state_dict(), **weights})


class EncoderTrainer:
    """The tower with its throw-away heads."""

    def __init__(self, kinds: list[str]) -> None:
        torch.manual_seed(SEED)
        self.tower = Qwen2AudioEncoder(Qwen2AudioEncoderConfig(**CONFIG["audio_config"], dropout=DROPOUT))
        for module in self.tower.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv1d):
                module.reset_parameters()
        # At their usual size positions drown what the convolutions hear; these then grow, and the layers drown in turn.
        table = self.tower.embed_positions.weight
        table.data = POSITION_SCALE * sinusoids(*table.shape)
        convolutions = [self.tower.conv1, self.tower.conv2]
        for convolution in convolutions:
            convolution.weight.data *= CONVOLUTION_GAIN
        earlier = cache_folder() / "audio_encoder" / "model.safetensors"
        if earlier.exists():
            tensors = {name: tensor.float() for name, tensor in load_file(earlier).items()}
            prefix = "audio_model."
            resume(
                self.tower, {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            )
        self.recognition = RecognitionHead(table.shape[1], guesses=1)
        self.unit_recognition = RecognitionHead(table.shape[1])  # of what the backbone is given: half as many vectors
        self.naming = NamingHead(table.shape[1], kinds)
        self.imitation = torch.nn.Linear(table.shape[1], table.shape[1])
        self.teacher = AudioCodebook.from_pretrained(cache_folder() / "audio_codebook").network
        self.parts = {
            "tower": self.tower,
            "recognition": self.recognition,
            "unit_recognition": self.unit_recognition,
            "naming": self.naming,
            "imitation": self.imitation,
        }
        slow = [p for convolution in convolutions for p in convolution.parameters()]
        excluded = {id(parameter) for parameter in [table, *slow]}
        others = [p for part in self.parts.values() for p in part.parameters() if id(p) not in excluded]
        groups = [{"params": slow, "scale": 0.3}, {"params": others}]
        self.optimizer = torch.optim.AdamW(groups, PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)

    def imitation_loss(self, units: Tensor, counts: Tensor, batch: AudioBatch) -> Tensor:
        """How far the units are from what the trained tokenizer makes of the same sound just before its codes."""
        with torch.inference_mode():
            hidden, _ = self.teacher.encoder(batch.log_mel, batch.frames)
            hidden = functional.layer_norm(hidden, hidden.shape[-1:])[:, : units.shape[1]]
        hidden = hidden.clone()
        present = (torch.arange(hidden.shape[1]) < counts[:, None])[..., None]
        error = (self.imitation(units[:, : hidden.shape[1]]) - hidden) * present
        return error.square().sum() / (present.sum() * hidden.shape[-1])

    def step(self, batch: AudioBatch, run: TrainingRun) -> tuple[float, float, float]:
        """One update; returns the recognition, the naming and the imitation loss."""
        rate = run.rate(PEAK_RATE)
        set_rate(self.optimizer, rate)
        with mixed():
            positions, position_counts = positions_of(self.tower, batch.log_mel, batch.frames)
            recognition = self.recognition.loss(self.tower.layer_norm(positions), position_counts, batch)
            units, counts = units_of(self.tower, positions, position_counts)
            recognition = (recognition + self.unit_recognition.loss(units, counts, batch)) / 2
            naming = self.naming.loss(units, counts, batch.clips)
            imitation = self.imitation_loss(units, counts, batch)
        self.optimizer.zero_grad()
        (recognition + NAMING_WEIGHT * naming + IMITATION_WEIGHT * (1 - run.share) * imitation).backward()
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        share_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step()
        return recognition.item(), naming.item(), imitation.item()

    @torch.inference_mode()
    def read(self, batches: AudioBatches, clips: list[Clip]) -> list[list[int]]:
        """Greedy readings of clips as they are, from what the backbone is given."""
        self.tower.eval()
        readings: list[list[int]] = []
        for start in range(0, len(clips), 16):
            batch = batches.plain(clips[start : start + 16])
            readings += self.unit_recognition.read(*short_features(self.tower, batch.log_mel, batch.frames))
        self.tower.train()
        return readings


def train(minutes: float) -> None:
    """Trains for so many minutes in all, resuming, then exports."""
    number = join()
    store = ClipStore()
    trainer = EncoderTrainer(sorted({clip.kind for clip in store.clips}))
    batches = AudioBatches(store, MEL_BINS, BATCH_SECONDS, SEED + 1000 * number, OUTPUT_SHARE, quick=True)
    folder = cache_folder() / "audio_encoder"
    run = TrainingRun(folder / "run.pt", minutes * 60, {**trainer.parts, "optimizer": trainer.optimizer})
    trainer.tower.train()
    smooth = torch.zeros(3)
    while True:
        strength = next(strength for until, strength in STRENGTHS if run.share <= until)
        losses = trainer.step(batches.draw(run.step, strength), run)
        smooth += (torch.tensor(losses) - smooth) * max(0.02, 1 / (run.step + 1))
        if run.step % 50 == 0 and not number:
            recognition, naming, imitation = smooth.tolist()
            print(
                f"{run.step} {run.spent:.0f} s ctc {recognition:.3f} naming {naming:.3f} imitation {imitation:.3f}", flush=True
            )
        if run.step % REFRESH_STEPS == REFRESH_STEPS - 1:
            store.refresh()
            batches.refresh()
            if not number:
                report(trainer, batches, store, 60)
        if not run.advance():
            break
    if not number:
        export(trainer, folder)
        report(trainer, batches, store, 400)


def export(trainer: EncoderTrainer, folder: Path) -> None:
    """Writes the component in half floats; `audio_projector.*` is random, for the backbone's training to overwrite."""
    torch.manual_seed(SEED)
    projector = Projector(CONFIG["audio_config"]["d_model"], CONFIG["projector_hidden_size"], CONFIG["hidden_size"])
    tensors = {f"audio_model.{name}": tensor for name, tensor in trainer.tower.state_dict().items()}
    tensors |= {f"audio_projector.{name}": tensor for name, tensor in projector.state_dict().items()}
    save_file({name: tensor.half().contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")


def report(trainer: EncoderTrainer, batches: AudioBatches, store: ClipStore, most: int) -> None:
    """Prints right names and symbol errors, by how the voice was held out, engine and language."""
    groups: dict[str, list[Clip]] = {}
    for clip in store.clips:
        if clip.concept is not None and not clip.is_training:
            groups.setdefault(f"unheard {clip.held_out} {clip.engine} {clip.language}", []).append(clip)
    for name, clips in sorted(groups.items()):
        chosen = clips[:: max(1, len(clips) // most)][:most]
        readings = trainer.read(batches, chosen)
        right = right_names(chosen, readings)
        errors = error_rate(chosen, readings)
        print(
            f"  {name}: {len(chosen)} clips, right names {sum(right) / len(right):.3f}, symbol errors {errors:.3f}",
            flush=True,
        )
