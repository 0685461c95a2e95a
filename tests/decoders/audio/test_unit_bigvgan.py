"""The network: published numbers, both stored forms of weight norm, and the context it says it needs."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from decoders.audio.unit_bigvgan import UnitBigVGAN, VocoderConfig, fold_weight_norm
from tests.decoders.audio.tiny_vocoder import SETTINGS, tiny_network

GOLDEN = Path(__file__).parents[2] / "golden"


def load_golden(kind: str) -> tuple[UnitBigVGAN, dict[str, torch.Tensor]]:
    path = GOLDEN / f"vocoder_{kind}.safetensors"
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
    tensors = load_file(path)
    network = UnitBigVGAN(VocoderConfig.from_mapping(config)).eval()
    weights = {name.removeprefix("weights."): value for name, value in tensors.items() if name.startswith("weights.")}
    network.load_state_dict(fold_weight_norm(weights))
    return network, {name.removeprefix("io."): value for name, value in tensors.items() if name.startswith("io.")}


@pytest.mark.parametrize(("kind", "speaker"), [("speaker_table", "speaker_id"), ("zero_shot", "reference_mel")])
@torch.inference_mode()
def test_reproduces_the_published_network(kind: str, speaker: str) -> None:
    """Catches any layer, padding or name that differs from the checkpoints this must load."""
    network, expected = load_golden(kind)
    voice = network.spk_emb(expected[speaker])
    torch.testing.assert_close(voice, expected["speaker_embedding"], atol=1e-4, rtol=0)
    waveform = network(expected["units"], voice)
    torch.testing.assert_close(waveform, expected["waveform"], atol=1e-4, rtol=0)


def test_context_of_the_published_shape() -> None:
    """Catches a receptive field computed wrong: 28 units before and 29 after, measured on the published network."""
    network, _ = load_golden("speaker_table")
    assert network.context() == (28, 29)


def test_folded_weights_load_too() -> None:
    """Catches a loader that takes only one of the two stored forms."""
    network = tiny_network()
    state = network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in fold_weight_norm(state).items())


@pytest.mark.parametrize("causal", [False, True])
@torch.inference_mode()
def test_context_is_exactly_what_the_layers_reach(causal: bool) -> None:
    """Catches a context one unit too small or too large: not-a-number at a unit shows wherever that unit is heard."""
    network = tiny_network(causal=causal, upsample_kernel_sizes=[6, 4, 4])
    left, right = network.context()
    count, rate = left + right + 9, network.samples_per_unit
    heard_at = right + 4  # the place of the unit spoilt, far from both ends
    network.unit_emb.weight[7] = float("nan")
    units = torch.zeros(1, count, dtype=torch.long)
    units[0, heard_at] = 7
    spoilt = network(units, network.spk_emb(torch.tensor([0])))[0, 0].isnan().view(count, rate).any(dim=1)
    heard = spoilt.nonzero().flatten()
    assert (heard.min().item(), heard.max().item()) == (heard_at - right, heard_at + left)


@torch.inference_mode()
def test_a_window_with_its_context_is_the_whole() -> None:
    """Catches trimming between stages that cuts off something needed, and a context larger than needed.

    The farthest units are heard through the last tap of every layer: hence float64, few layers, flat filters.
    """
    blocks = {"resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1]]}
    network = tiny_network(upsample_rates=[2, 2], upsample_kernel_sizes=[4, 4], **blocks).double()
    for taps in network.buffers():
        taps.fill_(1 / 12)
    (left, right), rate = network.context(), network.samples_per_unit
    units = torch.randint(0, 20, (1, left + right + 30), generator=torch.Generator().manual_seed(1))
    voice = network.spk_emb(torch.tensor([1]))
    whole, first, last = network(units, voice), left + 5, left + 11

    def error(before: int, after: int) -> float:
        wanted = before * rate, (before + last - first + 1) * rate - 1
        part = network(units[:, first - before : last + 1 + after], voice, wanted)
        return float((part - whole[..., first * rate : (last + 1) * rate]).abs().max())

    assert error(left, right) < 1e-14
    assert error(left - 1, right) > 1e-12
    assert error(left, right - 1) > 1e-12


@pytest.mark.parametrize(
    ("change", "named"),
    [({"resblock": "2"}, "`2`"), ({"activation": "relu"}, "`relu`"), ({"causal": True}, r"`\(6, 5, 4\)`")],
)
def test_refuses_what_it_cannot_build(change: dict[str, object], named: str) -> None:
    """Catches a config of another network that would load and sound wrong."""
    with pytest.raises(ValueError, match=named):
        VocoderConfig.from_mapping({**SETTINGS, **change})


def test_names_what_a_config_lacks() -> None:
    """Catches a KeyError reaching whoever converts a checkpoint."""
    with pytest.raises(ValueError, match="`num_units`"):
        VocoderConfig.from_mapping({name: value for name, value in SETTINGS.items() if name != "num_units"})
