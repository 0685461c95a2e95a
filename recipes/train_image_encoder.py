"""Training step: the continuous picture encoder of the embedded checkpoint, by naming strongly augmented pictures.

The tower goes on from the encoder in the cache, where there is one, else from the trained picture tokenizer: its layers are
rewritten for RMS norm and gated feed-forward, which is exact but for the learned positions, and saves most of the training.
The projector is left as it is; it is trained with the language model.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from omni_server.encoders.ta_tok import Layer, TaTok
from omni_server.encoders.vision import CLIP_DEVIATION, CLIP_MEAN, ImageCodebook, ImageEncoder, cut_patches, square_pixels
from recipes.domain import cache_folder
from recipes.picture_batches import PictureSource, Strength
from recipes.pictures import load_pictures, on_white
from recipes.precision import mixed
from recipes.training_run import TrainingRun, set_rate

CONFIG = {
    "hidden_size": 256,
    "min_pixels": 96 * 96,
    "max_pixels": 96 * 128,
    "vision_config": {
        "depth": 5,
        "hidden_size": 160,
        "num_heads": 5,
        "intermediate_size": 512,
        "in_channels": 3,
        "patch_size": 16,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "window_size": 96,
        "fullatt_block_indexes": [1, 3, 4],
        "out_hidden_size": 256,
    },
}
FULL = Strength(zoom=(0.55, 1.2), stretch=0.05, turn=0.05, colour=0.25, background=0.5, jpeg=0.15, soften=0.2)
SHAPES = [(96, 96)] * 8 + [(96, 128), (128, 96)]
DOMAIN_SHARE = 0.97
RAMP = 0.4  # of the budget; by then augmentation is at full strength
QUICK_GELU = 1.702  # gelu(x) is about x * sigmoid(1.702 x), which a gated SiLU can express


def strength_at(share: float) -> Strength:
    """Easy pictures first."""
    amount = min(1.0, 0.3 + 0.7 * share / RAMP)
    return Strength(
        zoom=(1 - (1 - FULL.zoom[0]) * amount, 1 + (FULL.zoom[1] - 1) * amount),
        stretch=FULL.stretch * amount,
        turn=FULL.turn * amount,
        colour=FULL.colour * amount,
        background=FULL.background * amount,
        jpeg=FULL.jpeg * amount,
        soften=FULL.soften * amount,
    )


@torch.no_grad()
def warm_start(tower: nn.Module, tokenizer: TaTok) -> None:
    """Rewrites the tokenizer's tower in the encoder's terms.

    What is written to the residual stream is centred, so that layer norm becomes RMS norm; the norms' biases go into
    the layers behind them; tanh-GELU becomes a gated SiLU with a constant gate.
    """
    kernel = tokenizer.encoder.embeddings.patch_embedding.weight  # [width, 3, patch, patch], for pixels in -1..1
    scale = torch.tensor(CLIP_DEVIATION)[:, None, None] / 0.5
    frames = (kernel * scale)[:, :, None].expand(-1, -1, 2, -1, -1) / 2
    tower.patch_embed.proj.weight.copy_(frames - frames.mean(dim=0))
    for block, layer in zip(tower.blocks, tokenizer.encoder.encoder.layers, strict=True):
        _rewrite(block, layer)


def _rewrite(block: nn.Module, layer: Layer) -> None:
    attention, feed = layer.self_attn, layer.mlp
    inward = [attention.q_proj, attention.k_proj, attention.v_proj]
    weight = torch.cat([part.weight for part in inward])
    block.norm1.weight.copy_(layer.layer_norm1.weight)
    block.attn.qkv.weight.copy_(weight)
    block.attn.qkv.bias.copy_(torch.cat([part.bias for part in inward]) + weight @ layer.layer_norm1.bias)
    _copy_centred(block.attn.proj, attention.out_proj)
    block.norm2.weight.copy_(layer.layer_norm2.weight)
    block.mlp.gate_proj.weight.copy_(QUICK_GELU * feed.fc1.weight)
    block.mlp.gate_proj.bias.copy_(QUICK_GELU * (feed.fc1.bias + feed.fc1.weight @ layer.layer_norm2.bias))
    nn.init.normal_(block.mlp.up_proj.weight, std=0.005)
    nn.init.constant_(block.mlp.up_proj.bias, 1 / QUICK_GELU)
    _copy_centred(block.mlp.down_proj, feed.fc2)


def _copy_centred(target: nn.Linear, source: nn.Linear) -> None:
    target.weight.copy_(source.weight - source.weight.mean(dim=0))
    target.bias.copy_(source.bias - source.bias.mean())


def features(encoder: ImageEncoder, pixels: Tensor) -> Tensor:
    """[batch, 3, height, width] in 0..1 -> [batch, n, out_hidden]."""
    config = encoder.vision_config
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_DEVIATION))
    patches = cut_patches((pixels - mean) / deviation, config.patch_size, config.spatial_merge_size, config.temporal_patch_size)
    grid = [1, pixels.shape[2] // config.patch_size, pixels.shape[3] // config.patch_size]
    merged: Tensor = encoder.tower(patches, grid_thw=torch.tensor([grid] * len(pixels))).pooler_output
    return merged.unflatten(0, (len(pixels), -1))


def embed_patches(tower: nn.Module, patches: Tensor) -> Tensor:
    """[patches, values] -> [patches, width]: the tower's own convolution, which sees each patch once, as the product it is: its
    backward pass is far quicker than that of a convolution in three dimensions."""
    weight: Tensor = tower.patch_embed.proj.weight
    return functional.linear(patches, weight.flatten(1))


def train(source: PictureSource, encoder: ImageEncoder, head: nn.Module, run: TrainingRun, batch_size: int) -> None:
    optimizer = run.state["optimizer"]
    going, right = run.share < 1, 0.0
    while going:
        set_rate(optimizer, run.rate(8e-4))
        shape = SHAPES[int(torch.randint(len(SHAPES), (), generator=source.random))]
        batch = source.batch(batch_size, shape, strength_at(run.share), DOMAIN_SHARE)
        with mixed():
            logits = head(features(encoder, batch.seen).mean(dim=1)).float()
        by_name, by_style = logits.split([source.concepts, source.styles], dim=1)
        loss = functional.cross_entropy(by_name, batch.concept, label_smoothing=0.1)
        loss = loss + 0.3 * functional.cross_entropy(by_style, batch.style)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(encoder.tower.parameters(), 1.0)
        optimizer.step()
        going = run.advance()
        right += (float((by_name.argmax(1) == batch.concept).float().mean()) - right) * 0.05
        if run.step % 50 == 0 or not going:
            print(f"step {run.step} {run.spent:.0f} s loss {loss.item():.3f} named {right:.3f}", flush=True)


def export(encoder: ImageEncoder, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1) + "\n", encoding="utf-8")
    parts = {"vision_model.": encoder.tower, "mm_projector.": encoder.projector}
    tensors = {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.state_dict().items()}
    save_file({name: tensor.half().contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")


@torch.inference_mode()
def report(cache: Path, encoder: ImageEncoder, head: nn.Module) -> None:
    """Names domain concepts among each other: unseen augmentations at full strength, and the style never trained on."""
    unseen = PictureSource(cache, seed=10_007)
    rank = {int(row): index for index, row in enumerate(unseen.domain)}

    def named(pixels: Tensor) -> Tensor:
        logits = head(features(encoder, pixels).mean(dim=1))[:, : unseen.concepts]
        return logits[:, unseen.domain].argmax(dim=1)

    right = []
    for _ in range(8):
        batch = unseen.batch(64, (96, 96), FULL, 1.0)
        right.append(named(batch.seen) == torch.tensor([rank[int(row)] for row in batch.concept]))
    pictures = on_white(load_pictures(cache, "openmoji"))[:, 0]
    shown = torch.stack([square_pixels(Image.fromarray(picture), 96) for picture in pictures])
    other = (named(shown) == torch.arange(len(shown))).float().mean()
    print(f"named: unseen augmentations {torch.cat(right).float().mean():.3f}, style never trained on {other:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=2)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)
    cache = cache_folder()
    source = PictureSource(cache, arguments.seed)
    source.look_at_more(cache)
    if (cache / "image_encoder").exists():
        encoder = ImageEncoder.from_pretrained(cache / "image_encoder")
    else:
        encoder = ImageEncoder(CONFIG)
        warm_start(encoder.tower, ImageCodebook.from_pretrained(cache / "image_codebook").network)
    head = nn.Sequential(nn.LayerNorm(256), nn.Linear(256, source.concepts + source.styles))
    parameters = [*encoder.tower.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=8e-4, betas=(0.9, 0.98), weight_decay=0.05)
    parts = {"tower": encoder.tower, "projector": encoder.projector, "head": head, "optimizer": optimizer}
    run = TrainingRun(cache / "runs" / "image_encoder.pt", arguments.seconds, parts)
    encoder.tower.train()
    encoder.tower.patch_embed.forward = partial(embed_patches, encoder.tower)
    train(source, encoder, head, run, arguments.batch)
    encoder.tower.eval()
    export(encoder, cache / "image_encoder")
    report(cache, encoder, head)


if __name__ == "__main__":
    main()
