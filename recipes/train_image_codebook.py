"""Training step: the TA-Tok tokenizer of the embedded checkpoint, by redrawing pictures and by naming them.

The codes are semantic (they name the concept and the style) and still draw a small picture. Two small heads, dropped
at export, ask for that; the codebook starts from the cluster centres of the features of a short run without it.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from omni_server.encoders.ta_tok import TaTok, TaTokConfig
from omni_server.encoders.vision import ImageCodebook
from recipes.domain import cache_folder
from recipes.picture_batches import Batch, PictureSource, Strength
from recipes.training_run import TrainingRun, set_rate

CONFIG = TaTokConfig(
    image_size=96,
    patch_size=16,
    hidden_size=160,
    intermediate_size=512,
    num_hidden_layers=5,
    num_attention_heads=5,
    select_layer=-1,
    bottleneck_dim=32,
    codebook_size=512,
)
STRENGTH = Strength(jpeg=0.15)
DRAWN_PIXELS = 8  # a cell is drawn at half size: 6 x 6 cells of 8 x 8 pixels
CONTINUOUS_SHARE = 0.12  # of the budget, before the codebook exists
REVIVE_UNTIL = 0.6  # of the budget; later the codebook must settle


class Heads(nn.Module):
    """Draws the picture and names it from quantised cells; needed in training only."""

    def __init__(self, config: TaTokConfig, concepts: int, styles: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.inward = nn.Linear(config.bottleneck_dim, width)
        self.positions = nn.Parameter(torch.randn(config.side**2, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, 5, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.mixing = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.drawing = nn.Linear(width, 3 * DRAWN_PIXELS**2)
        self.naming = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, concepts + styles))
        self.side = config.side

    def forward(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, cells, bottleneck] -> picture [batch, 3, 48, 48], logits [batch, concepts + styles]."""
        hidden = self.mixing(self.inward(cells) + self.positions)
        drawn = self.drawing(hidden).transpose(1, 2).unflatten(-1, (self.side, self.side))
        return functional.pixel_shuffle(drawn, DRAWN_PIXELS), self.naming(hidden.mean(dim=1))


def quantise(projected: Tensor, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Unit cells with straight-through gradient, their codes, and the loss that pulls cells and codes together."""
    codes = (projected @ directions.T).argmax(dim=-1)  # [batch, cells]
    chosen = directions[codes]
    loss = functional.mse_loss(chosen, projected.detach()) + 0.5 * functional.mse_loss(projected, chosen.detach())
    return projected + (chosen - projected).detach(), codes, loss * directions.shape[1]


class Trainer:
    """Network, heads, optimiser and how often each code was used lately."""

    def __init__(self, source: PictureSource, run_path: Path, budget: float) -> None:
        self.source = source
        self.network = TaTok(CONFIG)
        self.heads = Heads(CONFIG, source.concepts, source.styles)
        for module in self.network.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        simvq = self.network.bottleneck.regularizer
        nn.init.eye_(simvq.embedding_proj.weight)
        nn.init.zeros_(simvq.embedding_proj.bias)
        parameters = [*self.network.parameters(), *self.heads.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.02)
        self.use = nn.ParameterDict({"share": nn.Parameter(torch.full((CONFIG.codebook_size,), -1.0), False)})
        parts = {"network": self.network, "heads": self.heads, "optimizer": self.optimizer, "use": self.use}
        self.run = TrainingRun(run_path, budget, parts)

    @property
    def discrete(self) -> bool:
        """Whether the codebook exists: its use has been counted."""
        return bool(self.use["share"][0] >= 0)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, float]:
        """Loss, unit cells, codes, and the share of pictures named rightly."""
        projected = functional.normalize(self.network.project(batch.seen), dim=-1)
        cells, codes, fit = quantise(projected, self.network.bottleneck.regularizer.directions())
        drawn, logits = self.heads(cells if self.discrete else projected)
        by_name, by_style = logits.split([self.source.concepts, self.source.styles], dim=1)
        target = functional.avg_pool2d(batch.clean, 2)
        redraw = functional.l1_loss(drawn, target) + 2 * functional.mse_loss(drawn, target)
        name = functional.cross_entropy(by_name, batch.concept, label_smoothing=0.05)
        loss = 4 * redraw + 0.5 * name + 0.3 * functional.cross_entropy(by_style, batch.style)
        right = float((by_name.argmax(1) == batch.concept).float().mean())
        return loss + fit if self.discrete else loss, projected, codes, right

    @torch.no_grad()
    def found_codebook(self) -> None:
        """Cluster centres of the cells of many pictures become the codebook."""
        batches = [self.source.batch(64, (96, 96), STRENGTH, 0.8).seen for _ in range(12)]
        cells = torch.cat([functional.normalize(self.network.project(seen), dim=-1).flatten(0, 1) for seen in batches])
        order = torch.randperm(len(cells), generator=self.source.random)
        centres = cells[order[: CONFIG.codebook_size]].clone()
        for _ in range(15):
            nearest = (cells @ centres.T).argmax(dim=1)
            sums = torch.zeros_like(centres).index_add_(0, nearest, cells)
            filled = sums.norm(dim=1) > 0
            centres[filled] = functional.normalize(sums[filled], dim=1)
        self.network.bottleneck.regularizer.embedding.weight.copy_(centres)
        self.use["share"].fill_(1 / CONFIG.codebook_size)

    @torch.no_grad()
    def count_use(self, projected: Tensor, codes: Tensor) -> None:
        """Follows the use of each code; until late in the run, unused ones move to where cells are."""
        counts = torch.bincount(codes.flatten(), minlength=CONFIG.codebook_size) / codes.numel()
        self.use["share"].mul_(0.98).add_(0.02 * counts)
        dead = (self.use["share"] < 0.05 / CONFIG.codebook_size).nonzero().flatten()
        if self.run.step % 50 == 0 and len(dead) and self.run.share < REVIVE_UNTIL:
            cells = projected.detach().flatten(0, 1)
            picked = cells[torch.randint(len(cells), (len(dead),), generator=self.source.random)]
            simvq = self.network.bottleneck.regularizer
            inverse = torch.linalg.inv(simvq.embedding_proj.weight)
            simvq.embedding.weight[dead] = (picked - simvq.embedding_proj.bias) @ inverse.T
            self.use["share"][dead] = 1 / CONFIG.codebook_size

    def train(self, batch_size: int) -> None:
        going, right = self.run.share < 1, 0.0
        while going:
            if not self.discrete and self.run.share > CONTINUOUS_SHARE:
                self.found_codebook()
            set_rate(self.optimizer, self.run.rate(1.2e-3))
            batch = self.source.batch(batch_size, (96, 96), STRENGTH, 0.8)
            loss, projected, codes, named = self.loss(batch)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimizer.step()
            if self.discrete:
                self.count_use(projected, codes)
            going = self.run.advance()
            right += (named - right) * 0.05
            if self.run.step % 50 == 0 or not going:
                used = int((self.use["share"] > 0.1 / CONFIG.codebook_size).sum())
                print(
                    f"step {self.run.step} {self.run.spent:.0f} s loss {loss.item():.3f} named {right:.3f} used {used}",
                    flush=True,
                )


def export(network: TaTok, folder: Path) -> None:
    """Half floats; the codes of record are those of the widened export, so nothing drifts."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(asdict(network.config), indent=1) + "\n", encoding="utf-8")
    save_file({name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}, folder / "model.safetensors")


def report(source: PictureSource, codebook: ImageCodebook, cache: Path) -> None:
    """Saves the canonical codes and prints how distinct and how stable codes are."""
    pixels = source.clean_pixels(CONFIG.image_size)  # [concepts, styles, 3, size, size]
    codes = np.array([[codebook.encode_pixels(picture) for picture in row] for row in pixels])
    np.savez(cache / "image_codes.npz", codes=codes)
    rows = codes.reshape(-1, codes.shape[-1])
    print(f"codes {codes.shape}, {len(np.unique(rows, axis=0))} distinct of {len(rows)}, {len(np.unique(rows))} codes used")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=720)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)
    cache = cache_folder()
    source = PictureSource(cache, arguments.seed)
    trainer = Trainer(source, cache / "runs" / "image_codebook.pt", arguments.seconds)
    trainer.train(arguments.batch)
    export(trainer.network, cache / "image_codebook")
    report(source, ImageCodebook.from_pretrained(cache / "image_codebook"), cache)


if __name__ == "__main__":
    main()
