"""Training step: fills an empty cache from the checkpoint that ships, so that training goes on from it on a new machine.

`python -m recipes.restore [component ...]` brings back what is named (all of them if nothing is): the frozen components as
they are, and a state of the training of the others, with fresh moments. A deeper language model than the stored one keeps its
function: the layers between are born silent. What is already in the cache is never overwritten.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from recipes.backbone_model import EMBEDDED, TOKENIZER_FILES, load_tokenizer
from recipes.domain import cache_folder
from recipes.tokenizer import AUDIO_CODES

FROZEN = ("image_codebook", "audio_codebook", "image_encoder", "audio_encoder")
EVERY = (*FROZEN, "backbone", "image_decoder", "audio_decoder")
PROJECTORS = {"image": "mm_projector.", "audio": "audio_projector."}
SILENT = ("self_attn.o_proj.weight", "mlp.down_proj.weight")


def grown(state: dict[str, Tensor], old: int, new: int) -> dict[str, Tensor]:
    """Spreads `old` layers over `new`; a layer in between copies the one before it and writes nothing yet."""
    places = [round(layer * (new - 1) / max(1, old - 1)) for layer in range(old)]
    prefix = "model.layers."
    grown_state = {name: value for name, value in state.items() if not name.startswith(prefix)}
    for place in range(new):
        source = max(layer for layer in range(old) if places[layer] <= place)
        for name, value in state.items():
            if name.startswith(f"{prefix}{source}."):
                rest = name.removeprefix(f"{prefix}{source}.")
                silent = place not in places and rest in SILENT
                grown_state[f"{prefix}{place}.{rest}"] = torch.zeros_like(value) if silent else value.clone()
    return grown_state


def backbone_state(embedded: Path, forget_speech: bool) -> dict[str, Any]:
    """What `recipes.train_backbone` goes on from. `forget_speech` draws the rows of the speech codes anew, for a retrained
    speech tokenizer whose codes mean other sounds."""
    from recipes.train_backbone import Omni

    tokenizer = load_tokenizer()
    torch.manual_seed(1)
    model = Omni(tokenizer)
    fresh = model.language_model.state_dict()
    stored = _widened(embedded / "backbone" / "model.safetensors")
    old = len({name.split(".")[2] for name in stored if name.startswith("model.layers.")})
    state = grown(stored, old, model.language_model.config.num_hidden_layers)
    if forget_speech:
        first = tokenizer.convert_tokens_to_ids("<|audio000|>")
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            state[name][first : first + AUDIO_CODES] = fresh[name][first : first + AUDIO_CODES]
    tensors = {f"language_model.{name}": value for name, value in state.items()}
    for kind, prefix in PROJECTORS.items():
        weights = load_file(embedded / f"{kind}_encoder" / "model.safetensors")
        if kind == "audio" and forget_speech:
            continue
        for name, value in weights.items():
            if name.startswith(prefix):
                tensors[f"projectors.{kind}.{name.removeprefix(prefix)}"] = value.float()
    return {"step": 0, "model": tensors, "average": {name: value.clone() for name, value in tensors.items()}, "moments": {}}


def restore_image_decoder(cache: Path) -> None:
    """What the end of `recipes.train_image_decoder` goes on from; the way from codes to latents stands."""
    from decoders.image.transformer import VisionTransformer
    from recipes.image_latents import PixelDecoder
    from recipes.train_image_decoder import TRANSFORMER

    folder = EMBEDDED / "image_decoder"
    config = json.loads((folder / "transformer" / "config.json").read_text(encoding="utf-8"))
    sizes = {name: config[name] for name in ("vec_in_dim", "context_in_dim")}
    transformer = VisionTransformer(**sizes, **TRANSFORMER)
    transformer.load_state_dict(_widened(folder / "transformer" / "diffusion_pytorch_model.safetensors"))
    decoder = PixelDecoder()
    decoder.load_state_dict(_widened(folder / "vae" / "diffusion_pytorch_model.safetensors"))
    torch.save({"decoder": decoder.state_dict(), "transformer": transformer.state_dict()}, cache / "image_vae.pt")


def restore_audio_decoder(cache: Path) -> None:
    """What `recipes.train_vocoder` goes on from; its critics and its first stage's reader begin anew."""
    from recipes.train_vocoder import Trainer, source_of

    trainer = Trainer(cache)
    state = _widened(EMBEDDED / "audio_decoder" / "model.safetensors")
    trainer.network.load_state_dict(state)
    trainer.average.load_state_dict(state)
    trainer.units_from = source_of(EMBEDDED / "audio_codebook")  # whose units it has learnt
    trainer.save()


def _widened(path: Path) -> dict[str, Tensor]:
    return {name: value.float() for name, value in load_file(path).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("components", nargs="*", default=EVERY, help=f"of {', '.join(EVERY)}")
    parser.add_argument("--forget-speech", action="store_true", help="for a backbone that gets new speech codes")
    arguments = parser.parse_args()
    cache = cache_folder()
    for component in FROZEN:
        if component in arguments.components and not (cache / component).exists():
            shutil.copytree(EMBEDDED / component, cache / component)
            print(f"{component}: as it ships")
    if "image_codebook" in arguments.components and not (cache / "image_codes.npz").exists():
        from omni_server.encoders.vision import ImageCodebook
        from recipes.picture_batches import PictureSource
        from recipes.train_image_codebook import report

        report(PictureSource(cache, seed=1), ImageCodebook.from_pretrained(cache / "image_codebook"), cache)
    training = cache / "backbone" / "training.pt"
    if "backbone" in arguments.components and not training.exists():
        (cache / "backbone" / "tokenizer").mkdir(parents=True, exist_ok=True)
        for name in TOKENIZER_FILES:
            if (EMBEDDED / "backbone" / name).exists():
                shutil.copy(EMBEDDED / "backbone" / name, cache / "backbone" / "tokenizer" / name)
        torch.save(backbone_state(EMBEDDED, arguments.forget_speech), training)
        print("backbone: as it ships, with fresh moments")
    if "image_decoder" in arguments.components and not (cache / "image_vae.pt").exists():
        restore_image_decoder(cache)
        print("image_decoder: as it ships, with fresh moments")
    if "audio_decoder" in arguments.components and not (cache / "vocoder" / "checkpoint.pt").exists():
        restore_audio_decoder(cache)
        print("audio_decoder: as it ships, with fresh moments and critics")


if __name__ == "__main__":
    main()
