"""Step 7, picture codes to pixels: a diffusers pipeline of transformer, token embedder, scheduler and VAE.

Knows grids of codes, latents and pixels; knows nothing of spans, ratio names or requests.
"""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from decoders.image.transformer import VisionTokenEmbedder, VisionTransformer

Folder = str | os.PathLike[str]
Progress = Callable[[int, int], None]  # step just done, steps in all
ENCODER_PREFIXES = ("encoder.", "quant_conv.")


class TokenDiffusionPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Codes of a square grid to a picture of any size, by flow matching; `transformer2` is the weak model of autoguidance."""

    _optional_components = ["transformer2"]

    def __init__(
        self,
        transformer: VisionTransformer,
        vae: AutoencoderKL,
        token_embedder: VisionTokenEmbedder,
        scheduler: FlowMatchEulerDiscreteScheduler,
        transformer2: VisionTransformer | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            transformer=transformer,
            vae=vae,
            token_embedder=token_embedder,
            scheduler=scheduler,
            transformer2=transformer2,
        )
        self.scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)

    @classmethod
    def from_folder(cls, folder: Folder, precision: torch.dtype = torch.float32) -> Self:
        """Reads a diffusers folder by sub-folder, whatever module names its model_index.json has. The transformers' weights
        become `precision`, the others float32."""
        root = Path(folder)

        def load(network: type[Any], name: str, dtype: torch.dtype = precision) -> Any:
            # Loading straight into place needs a further package; without asking for it there is no warning.
            return network.from_pretrained(root / name, torch_dtype=dtype, low_cpu_mem_usage=False).eval()

        return cls(
            transformer=load(VisionTransformer, "transformer"),
            vae=_load_vae(root / "vae"),
            token_embedder=load(VisionTokenEmbedder, "token_embedder", torch.float32),
            scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(root / "scheduler"),
            transformer2=load(VisionTransformer, "transformer2") if (root / "transformer2").exists() else None,
        )

    @torch.inference_mode()
    def __call__(
        self,
        codes: Tensor,
        height: int,
        width: int,
        steps: int,
        guidance_scale: float = 0.0,
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """codes [batch, side * side] -> pictures [batch, 3, height, width]; black is -1, white is 1, overshoot is kept."""
        # 1) where the flow starts: noise, unless latents are given
        size = (height // self.scale_factor, width // self.scale_factor)
        dtype, device = self.weights.dtype, self.weights.device
        if latents is None:
            latents = self.noise(len(codes), size, generator).to(device)

        # 2) what it is steered by: the codes spread over the latent grid, and their mean
        condition, pooled = self.steer_by(codes.to(device), size)
        positions = grid_positions(size, device).expand(len(codes), -1, -1)

        # 3) from noise to latents
        scheduler = self.new_scheduler(steps)
        times = self.network_times(scheduler.timesteps)
        flow = latents.to(dtype).flatten(2).transpose(1, 2)  # [batch, positions, channels]
        for number, (timestep, time) in enumerate(zip(scheduler.timesteps, times, strict=True), start=1):
            time = time.expand(len(codes))
            seen = torch.cat([flow, condition], dim=-1)
            velocity = self.transformer(seen, positions, time, pooled)
            if guidance_scale and self.transformer2 is not None:
                weak = self.transformer2(seen, positions, time, pooled)
                velocity = velocity + guidance_scale * (velocity - weak)
            flow = scheduler.step(velocity, timestep, flow, return_dict=False)[0]
            if progress is not None:
                progress(number, steps)

        # 4) from latents to pixels
        return self.decode(flow.transpose(1, 2).unflatten(-1, size))

    @property
    def weights(self) -> Tensor:
        """Some weights of the transformer, for their precision and device: a model's own `dtype` searches all its modules."""
        weights: Tensor = self.transformer.img_in.weight
        return weights

    def noise(self, count: int, size: tuple[int, int], generator: torch.Generator | None) -> Tensor:
        """[count, channels, rows, columns] in float32, so that a seed means the same picture at any precision."""
        channels = self.transformer.config.out_channels or self.transformer.config.in_channels
        return torch.randn((count, channels, *size), generator=generator)

    def steer_by(self, codes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """codes [batch, side * side] -> condition [batch, positions, width] and pooled [batch, width]."""
        embedded, pooled = self.token_embedder(codes)
        return spread(embedded, size).to(self.weights.dtype), pooled.to(self.weights.dtype)

    def new_scheduler(self, steps: int) -> FlowMatchEulerDiscreteScheduler:
        """A scheduler counts its steps, so each picture has its own."""
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.scheduler.config)
        scheduler.set_timesteps(steps, device=self.weights.device)
        return scheduler

    def network_times(self, timesteps: Tensor) -> Tensor:
        """The network was trained with whole time steps."""
        return (timesteps.long() / self.scheduler.config.num_train_timesteps).to(self.weights.dtype)

    def decode(self, latents: Tensor) -> Tensor:
        """[batch, channels, rows, columns] -> [batch, 3, height, width], nominally in -1..1."""
        config = self.vae.config
        scaled = latents.to(next(self.vae.parameters()).dtype) / (config.scaling_factor or 1.0) + (config.shift_factor or 0.0)
        pixels: Tensor = self.vae.decode(scaled, return_dict=False)[0]
        return pixels


def spread(embedded: Tensor, size: tuple[int, int]) -> Tensor:
    """Code embeddings of a square grid, on the latent grid: [batch, codes, width] -> [batch, rows * columns, width]."""
    side = math.isqrt(embedded.shape[1])
    grid = embedded.transpose(1, 2).unflatten(-1, (side, side))  # [batch, width, side, side]
    return functional.interpolate(grid, size, mode="bilinear").flatten(2).transpose(1, 2)


def grid_positions(size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """[1, rows * columns, 3]: frame 0, row, column."""
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).flatten(0, 1)[None].float().to(device)


def vae_of(config: dict[str, Any]) -> AutoencoderKL:
    """Both halves, without weights."""
    return AutoencoderKL.from_config(config)


def _load_vae(folder: Path) -> AutoencoderKL:
    """The decoding half: the encoder is never run here, so it is neither expected on disk nor kept in memory."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        vae = vae_of(config)
    vae.encoder, vae.quant_conv = None, None
    stored = load_file(folder / "diffusion_pytorch_model.safetensors")
    needed = {name: tensor.float() for name, tensor in stored.items() if not name.startswith(ENCODER_PREFIXES)}
    vae.load_state_dict(needed, assign=True)
    return vae.eval()
