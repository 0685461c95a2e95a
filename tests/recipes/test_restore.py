"""A deeper model that goes on from a shallower one begins as the same function."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from recipes.restore import grown


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
