"""Streams of units: the sound does not depend on the cuts, starts early, and bad input is told."""

import json
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import save_file

from decoders.audio.audio import AudioDecoder, DecodeOptions, UnitError, VoiceError
from decoders.audio.vocoder import Precision, Window, open_vocoder
from tests.decoders.audio.precisions import PRECISIONS
from tests.decoders.audio.tiny_vocoder import SETTINGS, SPEAKERS, tiny_decoder, tiny_network

EXACT, QUICK = DecodeOptions(look_ahead="exact"), DecodeOptions(look_ahead="low_latency")


def some_units(count: int) -> list[int]:
    return torch.randint(0, 20, (count,), generator=torch.Generator().manual_seed(count)).tolist()


def one_shot(decoder: AudioDecoder, units: list[int], speaker: int = 1) -> np.ndarray:
    with torch.inference_mode():
        voice = decoder.network.spk_emb(torch.tensor([speaker]))
        return decoder.network(torch.tensor([units]), voice)[0, 0].numpy()


def streamed(decoder: AudioDecoder, options: DecodeOptions, pieces: list[list[int]]) -> np.ndarray:
    stream = decoder.open(options)
    made = [chunk for piece in pieces for chunk in stream.feed(piece)] + stream.finish()
    return np.concatenate([np.zeros(0, np.float32), *made])


def cut(units: list[int], cuts: list[int]) -> list[list[int]]:
    edges = [0, *sorted(min(place, len(units)) for place in cuts), len(units)]
    return [units[start:stop] for start, stop in pairwise(edges)]


@settings(max_examples=12, deadline=None)
@given(count=st.integers(1, 90), cuts=st.lists(st.integers(0, 90), max_size=12))
def test_exact_streaming_is_the_one_shot_waveform(count: int, cuts: list[int]) -> None:
    """Catches samples lost, doubled or made with too little context at any chunk border."""
    decoder, units = tiny_decoder(), some_units(count)
    sound = streamed(decoder, EXACT, cut(units, cuts))
    np.testing.assert_allclose(sound, one_shot(decoder, units), atol=1e-5, rtol=0)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_exact_streaming_is_exact_to_the_bit(precision: Precision) -> None:
    """Catches a kernel whose sums depend on where a window begins: a hundred utterances, each cut at random."""
    decoder, chance = tiny_decoder(precision), random.Random(2)
    voice = decoder.network.spk_emb(torch.tensor([1]))
    for _ in range(100):
        units = [chance.randrange(20) for _ in range(chance.randint(1, 90))]
        whole = Window(units, voice, (0, len(units) * decoder.network.samples_per_unit - 1))
        (expected,) = open_vocoder(decoder.network, precision).speak([whole])
        pieces = cut(units, [chance.randint(0, 90) for _ in range(chance.randint(0, 12))])
        np.testing.assert_array_equal(streamed(decoder, EXACT, pieces), expected)


@settings(max_examples=12, deadline=None)
@given(count=st.integers(1, 90), cuts=st.lists(st.integers(0, 90), max_size=12))
def test_low_latency_does_not_depend_on_the_cuts(count: int, cuts: list[int]) -> None:
    """Catches chunk borders that move with the network's weather."""
    decoder, units = tiny_decoder(), some_units(count)
    whole = streamed(decoder, QUICK, [units])
    assert len(whole) == count * decoder.network.samples_per_unit
    np.testing.assert_allclose(streamed(decoder, QUICK, cut(units, cuts)), whole, atol=1e-6, rtol=0)


def test_the_choice_of_look_ahead_is_the_decoders_where_a_stream_makes_none() -> None:
    """Catches a deployment's setting that is read and then forgotten."""
    own = tiny_decoder()
    made = AudioDecoder(own.network, own.sample_rate, SPEAKERS, "kumo", own.streaming, "float32", look_ahead="exact")
    units = some_units(60)
    np.testing.assert_array_equal(streamed(made, DecodeOptions(), [units]), streamed(own, EXACT, [units]))
    np.testing.assert_array_equal(streamed(own, DecodeOptions(), [units]), streamed(own, QUICK, [units]))
    assert np.abs(streamed(own, QUICK, [units]) - streamed(own, EXACT, [units])).max() > 1e-3


def test_more_look_ahead_is_nearer_and_all_of_it_is_exact() -> None:
    """Catches a look-ahead that is counted but not used."""
    units = some_units(80)
    right = tiny_decoder().network.context()[1]
    errors = []
    for look_ahead in (1, right // 2, right):
        decoder = tiny_decoder(look_ahead_units=look_ahead)
        errors.append(float(np.abs(streamed(decoder, QUICK, [units]) - one_shot(decoder, units)).max()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-5


def test_seams_are_faded() -> None:
    """Catches clicks: where chunks meet, sound must pass from what the first made of it to what the second does."""
    decoder, units = tiny_decoder(look_ahead_units=1, cross_fade_samples=12), some_units(40)
    stream = decoder.open(QUICK)
    sizes = [len(piece) for piece in stream.feed(units)]
    border, rate = sizes[0], decoder.network.samples_per_unit
    first = one_shot(decoder, units[: sizes[0] // rate + 1])[border : border + 12]
    second = one_shot(decoder, units[: (sizes[0] + sizes[1]) // rate + 1])[border : border + 12]
    expected = first + (second - first) * np.arange(1, 13) / 13
    sound = streamed(decoder, QUICK, [units])[border : border + 12]
    np.testing.assert_allclose(sound, expected, atol=1e-5, rtol=0)
    assert np.abs(first - second).max() > 1e-3


def test_the_first_piece_comes_early_and_later_ones_are_larger() -> None:
    """Catches a decoder that waits for a second of units before the first sound."""
    stream, sizes, came_at = tiny_decoder().open(QUICK), [], []
    for count, unit in enumerate(some_units(60), start=1):
        for piece in stream.feed([unit]):
            sizes.append(len(piece))
            came_at.append(count)
    assert came_at[0] == 3 + 2  # first chunk and look-ahead
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1] == 9 * 12


def test_nothing_in_nothing_out() -> None:
    """Catches an empty span that ends in an error or in a piece without samples."""
    stream = tiny_decoder().open(QUICK)
    assert stream.feed([]) == [] and stream.finish() == []


def test_pieces_are_float32_mono() -> None:
    """Catches a piece that another step would read as bytes of another type."""
    (piece,) = tiny_decoder().open(QUICK).feed(some_units(5))
    assert piece.dtype == np.float32 and piece.ndim == 1


@pytest.mark.parametrize("unit", [-1, 20])
def test_unit_outside_the_vocabulary(unit: int) -> None:
    """Catches an index error deep in the network, and a stream that keeps half of a refused piece."""
    decoder = tiny_decoder()
    stream = decoder.open(EXACT)
    with pytest.raises(UnitError, match=rf"0\.\.19, got `{unit}`"):
        stream.feed([3, unit])
    made = stream.feed([4, 5]) + stream.finish()
    np.testing.assert_allclose(np.concatenate(made), one_shot(decoder, [4, 5]), atol=1e-5, rtol=0)


def test_voices() -> None:
    """Catches a default that is not the configured one, and an unknown voice that is spoken in some other."""
    decoder, units = tiny_decoder(), some_units(20)
    heart = streamed(decoder, DecodeOptions("heart", look_ahead="exact"), [units])
    np.testing.assert_allclose(heart, one_shot(decoder, units, speaker=0), atol=1e-5, rtol=0)
    assert np.abs(heart - streamed(decoder, EXACT, [units])).max() > 1e-3
    with pytest.raises(VoiceError, match="heart, kumo; got `alloy`"):
        decoder.open(DecodeOptions("alloy"))


def test_zero_shot_needs_a_reference_and_follows_it() -> None:
    """Catches a cloned voice that does not depend on whom it clones, or an unclear error where there is nobody."""
    network = tiny_network(finetune=False, num_mels=20, spk_hidden_dim=16)
    decoder = AudioDecoder(network, 24_000, streaming=tiny_decoder().streaming, precision="float32")
    noise = np.random.default_rng(0).normal(0, 0.1, 24_000).astype(np.float32)
    tone = (0.3 * np.sin(np.arange(24_000) / 20)).astype(np.float32)
    sounds = [streamed(decoder, DecodeOptions(reference=reference), [some_units(20)]) for reference in (noise, tone)]
    assert np.abs(sounds[0] - sounds[1]).max() > 1e-4
    with pytest.raises(VoiceError, match="got the name `heart`"):
        decoder.open(DecodeOptions("heart"))
    for useless, named in ((np.zeros(24_000, np.float32), "silent"), (tone[:100], r"\(100,\)")):
        with pytest.raises(ValueError, match=named):
            decoder.open(DecodeOptions(reference=useless))


def write_folder(folder: Path, **changes: object) -> Path:
    own = {"sample_rate": 300, "units_per_second": 25, "speakers": SPEAKERS, "cross_fade_samples": 12}
    config = {**SETTINGS, **own, **changes}
    (folder / "config.json").write_text(json.dumps(config))
    state = {name: value.half() for name, value in tiny_network().state_dict().items()}
    save_file(state, folder / "model.safetensors")
    return folder


def test_from_pretrained(tmp_path: Path) -> None:
    """Catches half floats that are not widened, and streaming numbers that are not read from the checkpoint."""
    decoder = AudioDecoder.from_pretrained(write_folder(tmp_path, first_chunk_units=6))
    assert decoder.sample_rate == 300 and decoder.speakers == SPEAKERS and decoder.default_speaker == "heart"
    assert decoder.streaming.first_chunk_units == 6
    assert all(value.dtype == torch.float32 for value in decoder.network.parameters())
    assert len(streamed(decoder, QUICK, [some_units(7)])) == 7 * 12


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sample_rate": 24000}, "`24000`"),
        ({"speakers": ["one"]}, "`1`"),
        ({"default_speaker": "alloy"}, "`alloy`"),
        ({"cross_fade_samples": 13}, "`13`"),
    ],
)
def test_a_folder_that_contradicts_itself(tmp_path: Path, change: dict[str, object], named: str) -> None:
    """Catches a wrong checkpoint at start, not in the first request."""
    with pytest.raises(ValueError, match=named):
        AudioDecoder.from_pretrained(write_folder(tmp_path, **change))
