"""A real Unit-BigVGAN of a few thousand random weights, loud enough that far context shows."""

import functools

import torch

from decoders.audio.audio import AudioDecoder, Streaming
from decoders.audio.unit_bigvgan import UnitBigVGAN, VocoderConfig
from decoders.audio.vocoder import Precision

SETTINGS = {
    "num_units": 20,
    "unit_emb_dim": 6,
    "spk_emb_dim": 4,
    "upsample_initial_channel": 16,
    "upsample_rates": [3, 2, 2],
    "upsample_kernel_sizes": [6, 5, 4],
    "resblock_kernel_sizes": [3, 5],
    "resblock_dilation_sizes": [[1, 2], [1, 3]],
    "use_bias_at_final": False,
    "use_tanh_at_final": False,
    "causal": False,
    "finetune": True,
    "num_spk": 2,
}
SPEAKERS = ("heart", "kumo")


def tiny_network(**changes: object) -> UnitBigVGAN:
    torch.manual_seed(5)
    network = UnitBigVGAN(VocoderConfig.from_mapping({**SETTINGS, **changes})).eval()
    with torch.no_grad():
        for block in network.resblocks:
            for layer in [*block.convs1, *block.convs2]:
                layer.conv.weight.mul_(3.0)
        units, voice = torch.arange(20)[None], torch.zeros(1, network.config.spk_emb_dim)
        for _ in range(3):  # keeps the waveform off the clamp, which would hide differences
            network.conv_post.conv.weight.mul_(0.3 / network(units, voice).abs().max())
    return network


@functools.cache
def tiny_decoder(precision: Precision = "float32", **streaming: int) -> AudioDecoder:
    usual = {"look_ahead_units": 2, "first_chunk_units": 3, "largest_chunk_units": 9, "cross_fade_samples": 5}
    network = tiny_network()
    wished = Streaming(**{**usual, **streaming})
    return AudioDecoder(network, 25 * network.samples_per_unit, SPEAKERS, "kumo", wished, precision)
