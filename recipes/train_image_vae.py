"""Training step: latents of pictures and the pixel decoder of the embedded checkpoint.

First on crops, which are cheap, then on whole pictures, whose statistics differ. At the end the latents are scaled to
unit variance in every channel and the scale goes into the decoder, so that the flow starts from plain noise.
"""

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional

from recipes.domain import cache_folder
from recipes.image_latents import (
    CELL,
    MARGIN,
    PIXELS,
    PatchEncoder,
    PixelDecoder,
    decoder_pictures,
    picture_loss,
    sharpness,
    with_margin,
)
from recipes.precision import mixed
from recipes.training_run import TrainingRun, set_rate

CROP = 64
DOMAIN_SHARE = 0.85
WHOLE_FROM = 0.8  # of the budget; from then on whole pictures
NOISE = 0.05  # on latents, so that the decoder forgives the flow's errors


def draw_crops(inside: Tensor, outside: Tensor, size: int, crop: int, random: torch.Generator) -> Tensor:
    """[size, 3, crop + margins, crop + margins]."""
    room = PIXELS - crop
    crops = []
    for _ in range(size):
        pictures = inside if torch.rand((), generator=random) < DOMAIN_SHARE else outside
        picture = with_margin(pictures[int(torch.randint(len(pictures), (), generator=random))].float())
        top, left = (torch.randint(room + 1, (2,), generator=random)).tolist()
        crops.append(picture[:, top : top + crop + 2 * MARGIN, left : left + crop + 2 * MARGIN])
    return torch.stack(crops)


def train(pictures: tuple[Tensor, Tensor], encoder: PatchEncoder, decoder: PixelDecoder, run: TrainingRun, batch: int) -> None:
    random = torch.Generator().manual_seed(run.step)
    optimizer, going, average = run.state["optimizer"], run.share < 1, 0.0
    while going:
        set_rate(optimizer, run.rate(2e-3))
        whole = run.share > WHOLE_FROM
        crop, size = (PIXELS, batch // 4) if whole else (CROP, batch)
        seen = draw_crops(*pictures, size, crop, random)
        latents = encoder(seen)
        # A channel's own scale is free otherwise; this keeps the noise meaningful and the channels alike.
        spread = (latents.var(dim=(0, 2, 3)) - 1).abs().mean()
        with mixed():
            made = decoder(latents + NOISE * torch.randn(latents.shape, generator=random)).float()
        loss = picture_loss(made, seen[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]) + 0.01 * spread
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        going = run.advance()
        average += (loss.item() - average) * (0.02 if run.step > 50 else 0.2)
        if run.step % 50 == 0 or not going:
            print(f"step {run.step} {run.spent:.0f} s loss {average:.4f}", flush=True)


@torch.no_grad()
def settle(encoder: PatchEncoder, decoder: PixelDecoder, inside: Tensor) -> None:
    """Unit variance and zero mean in every latent channel, at no change of the pictures."""
    latents = torch.cat([encoder(with_margin(part.float())) for part in inside.split(64)])
    mean, deviation = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    encoder.map.weight.div_(deviation.view(-1, 1, 1, 1))
    encoder.map.bias.sub_(mean).div_(deviation)
    inner = decoder.post_quant_conv
    inner.bias.add_(inner.weight[:, :, 0, 0] @ mean)
    inner.weight.mul_(deviation.view(1, -1, 1, 1))


@torch.no_grad()
def report(encoder: PatchEncoder, decoder: PixelDecoder, inside: Tensor) -> None:
    pictures = inside[::3].float()
    made = decoder(encoder(with_margin(pictures)))
    error = functional.mse_loss(made.clamp(-1, 1), pictures)
    crisp = sharpness(made).mean() / sharpness(pictures).mean()
    print(f"pictures: {10 * torch.log10(4 / error):.2f} dB, sharpness {crisp:.3f} of the source, cell {CELL}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=3)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)
    cache = cache_folder()
    pictures = decoder_pictures(cache)
    encoder, decoder = PatchEncoder(), PixelDecoder().to(memory_format=torch.channels_last)
    encoder.start_from(pictures[0].float())
    optimizer = torch.optim.AdamW(
        [{"params": encoder.parameters(), "scale": 0.1}, {"params": decoder.parameters()}], lr=2e-3, weight_decay=0.0
    )
    parts = {"encoder": encoder, "decoder": decoder, "optimizer": optimizer}
    run = TrainingRun(cache / "runs" / "image_vae.pt", arguments.seconds, parts)
    train(pictures, encoder, decoder, run, arguments.batch)
    settle(encoder, decoder, pictures[0])
    torch.save({"encoder": encoder.state_dict(), "decoder": decoder.state_dict()}, cache / "image_vae.pt")
    report(encoder, decoder, pictures[0])


if __name__ == "__main__":
    main()
