"""Training goes on from the checkpoint that ships, and a deeper model begins as the same function as the shallower one."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from recipes.backbone_model import EMBEDDED
from recipes.restore import grown, restore_audio_decoder, restore_image_decoder
from recipes.train_vocoder import Trainer, source_of


def tiny(layers: int) -> LlamaForCausalLM:
    torch.manual_seed(layers)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=2, head_dim=16
    )
    return LlamaForCausalLM(config).eval()


@torch.inference_mode()
def test_a_grown_model_says_the_same() -> None:
    """Catches a layer put in the wrong place, or a new one that already speaks."""
    small, large = tiny(3), tiny(5)
    large.load_state_dict(grown(small.state_dict(), 3, 5))
    ids = torch.arange(12)[None]
    assert (small(ids).logits - large(ids).logits).abs().max() < 1e-5


def test_new_layers_can_learn() -> None:
    """Catches silence that lasts: a new layer whose gradient is zero everywhere."""
    large = tiny(5)
    large.load_state_dict(grown(tiny(3).state_dict(), 3, 5))
    large(torch.arange(12)[None]).logits.square().mean().backward()
    silent = [layer for layer in large.model.layers if not layer.mlp.down_proj.weight.any()]
    assert len(silent) == 2
    assert all(layer.mlp.down_proj.weight.grad.abs().max() > 0 for layer in silent)


def test_image_decoder_goes_on_as_it_ships(tmp_path: Path) -> None:
    """Catches a size of the trainer's networks that is no longer that of what ships, or weights that are not brought back."""
    restore_image_decoder(tmp_path)
    stored = torch.load(tmp_path / "image_vae.pt", weights_only=True)
    for part, folder in (("transformer", "transformer"), ("decoder", "vae")):
        shipped = load_file(EMBEDDED / "image_decoder" / folder / "diffusion_pytorch_model.safetensors")
        assert stored[part].keys() == shipped.keys()
        assert all(torch.equal(stored[part][name], value.float()) for name, value in shipped.items())


def test_audio_decoder_goes_on_as_it_ships(tmp_path: Path) -> None:
    """Catches a restored vocoder that forgets what the units mean, because it believes that they come from elsewhere."""
    restore_audio_decoder(tmp_path)
    trainer = Trainer(tmp_path)
    trainer.use_units(source_of(EMBEDDED / "audio_codebook"))
    shipped = load_file(EMBEDDED / "audio_decoder" / "model.safetensors")
    for network in (trainer.network, trainer.average):
        state = network.state_dict()
        assert all(torch.equal(state[name], value.float()) for name, value in shipped.items())
