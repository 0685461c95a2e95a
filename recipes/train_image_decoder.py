"""Training step: the flow from picture codes to latents, then flow and pixel decoder together, from codes to pixels.

Condition and target always come from the same picture. Mostly the pictures of the domain; some others, and now and then
a wrong code, keep it from falling apart on codes it was not shown.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from decoders.image.token_diffusion import TokenDiffusionPipeline, grid_positions, spread
from decoders.image.transformer import VisionTokenEmbedder, VisionTransformer
from omni_server.encoders.vision import ImageCodebook
from recipes.domain import cache_folder
from recipes.image_latents import (
    CELL,
    LATENT_CHANNELS,
    PIXELS,
    VAE_CONFIG,
    PatchEncoder,
    PixelDecoder,
    at_size,
    crispness_loss,
    decoder_pictures,
    picture_loss,
    save_part,
    sharpness,
    with_margin,
)
from recipes.pictures import load_pictures
from recipes.precision import mixed
from recipes.training_run import TrainingRun, set_rate

TRANSFORMER = {
    "in_channels": LATENT_CHANNELS,
    "hidden_size": 256,
    "num_heads": 4,
    "mlp_ratio": 3.0,
    "depth_single_blocks": 6,
    "axes_dim": [16, 24, 24],
}
STEPS = 4
TIMES, TIME_WEIGHTS = (1.0, 0.75, 0.5, 0.25), (0.55, 0.15, 0.15, 0.15)  # of those steps; the first must say most
DOMAIN_SHARE = 0.97
WRONG_CODES = 0.03  # share of condition codes replaced, in a fifth of the pictures
EARLY_SHARE = 0.9  # of the training times, close to pure noise
SIDE = PIXELS // CELL
NEARNESS = 0.05


class Flow:
    """The transformer, its running average, and the codebook as it sees it."""

    def __init__(self, codebook: ImageCodebook) -> None:
        with torch.no_grad():
            directions = codebook.network.bottleneck.regularizer.directions()
        width = directions.shape[1]
        self.embedder = VisionTokenEmbedder(len(directions), width, math.prod(codebook.grid))
        self.embedder.vocab_embeddings.copy_(directions * math.sqrt(width))  # about unit variance
        self.embedder.uncond_embedding.copy_(self.embedder.vocab_embeddings.mean(dim=0))
        sizes = {"vec_in_dim": width, "context_in_dim": width, **TRANSFORMER}
        self.transformer = VisionTransformer(**sizes)
        for block in self.transformer.single_blocks:  # open gates: in a short run, blocks that begin closed lose time
            nn.init.zeros_(block.modulation.lin.weight)
            nn.init.zeros_(block.modulation.lin.bias)
            nn.init.ones_(block.modulation.lin.bias[2 * sizes["hidden_size"] :])
        nn.init.zeros_(self.transformer.final_layer.linear.weight)
        nn.init.zeros_(self.transformer.final_layer.linear.bias)
        self.average = VisionTransformer(**sizes).requires_grad_(False)
        self.average.load_state_dict(self.transformer.state_dict())

    @torch.no_grad()
    def follow(self, step: int) -> None:
        keep = min(0.995, (step + 1) / (step + 10))
        for slow, fast in zip(self.average.parameters(), self.transformer.parameters(), strict=True):
            slow.lerp_(fast, 1 - keep)

    def pipeline(self, decoder: PixelDecoder) -> TokenDiffusionPipeline:
        """What serving runs, from live weights."""
        scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
        return TokenDiffusionPipeline(self.average, _as_vae(decoder), self.embedder, scheduler)


def _as_vae(decoder: PixelDecoder) -> nn.Module:
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        vae = AutoencoderKL.from_config(VAE_CONFIG)
    vae.encoder, vae.quant_conv = None, None
    vae.decoder, vae.post_quant_conv = decoder.decoder, decoder.post_quant_conv
    return vae


def train(
    flow: Flow, inside: tuple[Tensor, Tensor], outside: tuple[Tensor, Tensor], pictures: Tensor, run: TrainingRun, batch: int
) -> None:
    """Each of `inside` and `outside`: codes [pictures, 36], latents [pictures, channels, 8, 8]."""
    random = torch.Generator().manual_seed(run.step)
    optimizer, going, average = run.state["optimizer"], run.share < 1, 0.0
    positions = grid_positions((SIDE, SIDE)).expand(batch, -1, -1)
    weights = channel_weights(pictures, inside[1])
    while going:
        set_rate(optimizer, run.rate(2e-3))
        mine = round(batch * DOMAIN_SHARE)
        picked = [
            torch.randint(len(part[0]), (size,), generator=random) for part, size in ((inside, mine), (outside, batch - mine))
        ]
        codes = torch.cat([inside[0][picked[0]], outside[0][picked[1]]])
        latents = torch.cat([inside[1][picked[0]], outside[1][picked[1]]]).flatten(2).transpose(1, 2)
        wrong = (torch.rand(codes.shape, generator=random) < WRONG_CODES) & (torch.rand(batch, 1, generator=random) < 0.2)
        codes = torch.where(wrong, torch.randint(flow.embedder.config.vocab_size, codes.shape, generator=random), codes)
        time = draw_times(batch, random)
        noise = torch.randn(latents.shape, generator=random)
        noisy = latents + time[:, None, None] * (noise - latents)
        embedded, pooled = flow.embedder(codes)
        seen = torch.cat([noisy, spread(embedded, (SIDE, SIDE))], dim=-1)
        with mixed():
            made = flow.transformer(seen, positions, time, pooled).float()
        loss = ((made - (noise - latents)).square() * weights).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(flow.transformer.parameters(), 1.0)
        optimizer.step()
        flow.follow(run.step)
        going = run.advance()
        average = loss.item() if average == 0 else average + (loss.item() - average) * 0.03
        if run.step % 50 == 0 or not going:
            print(f"step {run.step} {run.spent:.0f} s loss {average:.4f}", flush=True)


def channel_weights(pictures: Tensor, latents: Tensor) -> Tensor:
    """How much each latent channel says about pixels, [channels], 1 on average.

    All channels have unit variance; without weights the fine ones, many and hard to foresee, would crowd out the coarse.
    """
    cells = functional.unfold(pictures.float(), CELL, stride=CELL).transpose(1, 2).flatten(0, 1)  # [cells, pixels]
    values = latents.flatten(2).transpose(1, 2).flatten(0, 1)  # [cells, channels]
    shared = (cells - cells.mean(dim=0)).T @ values / len(cells)
    strength = shared.norm(dim=0)
    return strength / strength.mean()


def draw_times(size: int, random: torch.Generator) -> Tensor:
    """[size] in 0..1, mostly near pure noise: there alone must the codes say everything, and they nearly do."""
    early = torch.rand(size, generator=random) < EARLY_SHARE
    time = torch.rand(size, generator=random)
    return torch.where(early, 1 - 0.04 * time, time)


def finish(flow: Flow, decoder: PixelDecoder, domain: tuple[Tensor, Tensor, Tensor], run: TrainingRun, batch: int) -> None:
    """Trains both networks end to end on the domain's codes, pictures and latents: from each of the times that serving
    steps through, the picture that the flow points at must be the one wanted."""
    codes, pictures, latents = domain
    random = torch.Generator().manual_seed(run.step)
    optimizer, going, average = run.state["optimizer"], run.share < 1, 0.0
    positions = grid_positions((SIDE, SIDE)).expand(batch, -1, -1)
    weights, times = torch.tensor(TIME_WEIGHTS), torch.tensor(TIMES)
    flow.transformer.requires_grad_(True)
    while going:
        set_rate(optimizer, run.rate(1e-3))
        picked = torch.randint(len(codes), (batch,), generator=random)
        noise = torch.randn(batch, SIDE * SIDE, LATENT_CHANNELS, generator=random)
        time = times[torch.multinomial(weights, batch, replacement=True, generator=random)]
        clean = latents[picked].flatten(2).transpose(1, 2)
        noisy = clean + time[:, None, None] * (noise - clean)
        embedded, pooled = flow.embedder(codes[picked])
        seen = torch.cat([noisy, spread(embedded, (SIDE, SIDE))], dim=-1)
        with mixed():
            aimed = noisy - time[:, None, None] * flow.transformer(seen, positions, time, pooled).float()
            made = decoder(aimed.transpose(1, 2).unflatten(-1, (SIDE, SIDE))).float()
        wanted = pictures[picked].float()
        # The latents of record stay what the flow starts from, so that later steps find what earlier ones left them.
        near = (aimed - clean).square().mean()
        loss = picture_loss(made, wanted) + crispness_loss(made, wanted) + NEARNESS * near
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        nn.utils.clip_grad_norm_(flow.transformer.parameters(), 1.0)
        optimizer.step()
        flow.follow(run.step)
        going = run.advance()
        average = loss.item() if average == 0 else average + (loss.item() - average) * 0.03
        if run.step % 50 == 0 or not going:
            print(f"finish step {run.step} {run.spent:.0f} s loss {average:.4f} near {near:.4f}", flush=True)


@torch.inference_mode()
def draw_latents(flow: Flow, codes: Tensor, seed: int) -> Tensor:
    """[pictures, codes] -> [pictures, channels, 8, 8], as serving would before its pixel decoder."""
    parts = []
    pipeline = flow.pipeline(PixelDecoder())
    pipeline.decode = lambda latents: latents
    random = torch.Generator().manual_seed(seed)
    for part in codes.split(52):
        parts.append(pipeline(part, PIXELS, PIXELS, STEPS, generator=random))
    return torch.cat(parts).clone()


def export(flow: Flow, decoder: PixelDecoder, folder: Path) -> None:
    """A diffusers folder, in half floats, with the sizes that serving adds."""
    average = flow.average
    config = {"_class_name": "VisionTransformer", **{k: v for k, v in average.config.items() if not k.startswith("_")}}
    save_part(folder / "transformer", config, average.state_dict())
    save_part(folder / "vae", VAE_CONFIG, decoder.state_dict())
    embedder = {name: flow.embedder.config[name] for name in ("vocab_size", "embedding_dim", "token_length")}
    save_part(folder / "token_embedder", {"_class_name": "VisionTokenEmbedder", **embedder}, flow.embedder.state_dict())
    FlowMatchEulerDiscreteScheduler(shift=1.0).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "TokenDiffusionPipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "token_embedder": ["decoders.image.transformer", "VisionTokenEmbedder"],
        "transformer": ["decoders.image.transformer", "VisionTransformer"],
        "transformer2": [None, None],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    sizes = {"pixels": PIXELS * PIXELS, "multiple": CELL, "steps": STEPS, "guidance": 0.0}
    (folder / "decoder.json").write_text(json.dumps(sizes, indent=1) + "\n", encoding="utf-8")


@torch.inference_mode()
def report(flow: Flow, decoder: PixelDecoder, codes: Tensor, pictures: Tensor, sheet: Path) -> None:
    """Likeness and crispness of pictures drawn from the domain's codes, and a sheet of them to look at."""
    chosen = torch.arange(0, len(codes), 7)
    made = decoder(draw_latents(flow, codes[chosen], seed=1)).clamp(-1, 1)
    wanted = pictures[chosen].float()
    error = (made - wanted).square().mean(dim=(1, 2, 3))
    crisp = sharpness(made).mean() / sharpness(wanted).mean()
    print(f"drawn: {10 * torch.log10(4 / error).mean():.2f} dB, sharpness {crisp:.3f} of the source", flush=True)
    rows = torch.cat(
        [
            torch.cat(list(part), dim=2)
            for pair in zip(wanted.split(15), made.split(15), strict=True)
            for part in pair
            if len(part) == 15
        ],
        dim=1,
    )
    Image.fromarray(((rows / 2 + 0.5) * 255).byte().permute(1, 2, 0).numpy()).save(sheet)


def domain(cache: Path) -> tuple[Tensor, Tensor]:
    """Codes [pictures, 36] and pictures [pictures, 3, 128, 128] of the domain."""
    codes = torch.from_numpy(np.load(cache / "image_codes.npz")["codes"]).flatten(0, 1)
    return codes, at_size(load_pictures(cache, "domain"))


@torch.inference_mode()
def latents_of(encoder: PatchEncoder, pictures: Tensor) -> Tensor:
    return torch.cat([encoder(with_margin(part.float())) for part in pictures.split(64)]).clone()


@torch.inference_mode()
def codes_of(codebook: ImageCodebook, pictures: Tensor) -> Tensor:
    size = codebook.network.config.image_size
    directions = codebook.network.bottleneck.regularizer.directions()
    small = [
        functional.interpolate(part.float() / 2 + 0.5, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
        for part in pictures.split(64)
    ]
    return torch.cat([codebook.network.codes(part, directions) for part in small]).clone()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--finish-seconds", type=float, default=2400)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=4)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)
    cache = cache_folder()
    stored = torch.load(cache / "image_vae.pt", weights_only=True)
    decoder = PixelDecoder().to(memory_format=torch.channels_last)
    decoder.load_state_dict(stored["decoder"])
    codebook = ImageCodebook.from_pretrained(cache / "image_codebook")
    codes, pictures = domain(cache)
    flow = Flow(codebook)
    if "encoder" in stored:
        encoder = PatchEncoder()
        encoder.load_state_dict(stored["encoder"])
        latents = latents_of(encoder, pictures)
        optimizer = torch.optim.AdamW(flow.transformer.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.0)
        parts = {"transformer": flow.transformer, "average": flow.average, "optimizer": optimizer}
        run = TrainingRun(cache / "runs" / "image_flow.pt", arguments.seconds, parts)
        if run.share < 1:
            others = decoder_pictures(cache)[1]
            outside = (codes_of(codebook, others), latents_of(encoder, others))
            train(flow, (codes, latents), outside, pictures, run, arguments.batch)
            report(flow, decoder, codes, pictures, cache / "image_flow.png")
            export(flow, decoder, cache / "image_decoder")
    else:  # restored from what ships, where there is no encoder: the latents are those that its flow makes
        flow.transformer.load_state_dict(stored["transformer"])
        flow.average.load_state_dict(stored["transformer"])
        latents = draw_latents(flow, codes, seed=1)

    polish = torch.optim.AdamW(
        [{"params": decoder.parameters()}, {"params": flow.transformer.parameters(), "scale": 0.5}], lr=1e-3, weight_decay=0.0
    )
    parts = {"decoder": decoder, "transformer": flow.transformer, "average": flow.average, "optimizer": polish}
    run = TrainingRun(cache / "runs" / "image_finish.pt", arguments.finish_seconds, parts)
    finish(flow, decoder, (codes, pictures, latents), run, batch=8)
    report(flow, decoder, codes, pictures, cache / "image_finish.png")
    export(flow, decoder, cache / "image_decoder")


if __name__ == "__main__":
    main()
