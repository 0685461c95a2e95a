"""The compiled network: the same function, whoever else is in the call, and calls that many threads share."""

import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from decoders.audio import lines
from decoders.audio.audio import DecodeOptions
from decoders.audio.compiled import CompiledVocoder
from decoders.audio.look_ahead import costs, random_utterances, recommended
from decoders.audio.unit_bigvgan import UnitBigVGAN
from decoders.audio.vocoder import Company, PlainVocoder, Precision, Window, open_vocoder
from tests.decoders.audio.precisions import PRECISIONS
from tests.decoders.audio.test_unit_bigvgan import load_golden
from tests.decoders.audio.tiny_vocoder import tiny_decoder, tiny_network

LEAST_DECIBELS = {"float32": 80.0, "bfloat16": 20.0}  # of sound over error; loud random weights are harder than trained ones


def decibels(sound: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(np.square(sound).mean() / (np.square(sound - other).mean() + 1e-30)))


def some_windows(network: UnitBigVGAN, chance: random.Random, count: int) -> list[Window]:
    rate, windows = network.samples_per_unit, []
    for _ in range(count):
        units = [chance.randrange(20) for _ in range(chance.randint(1, 60))]
        first, last = sorted(chance.choices(range(len(units) * rate), k=2))
        windows.append(Window(units, network.spk_emb(torch.tensor([chance.randrange(2)])), (first, last)))
    return windows


@pytest.mark.parametrize(("kind", "speaker"), [("speaker_table", "speaker_id"), ("zero_shot", "reference_mel")])
@torch.inference_mode()
def test_reproduces_the_published_network(kind: str, speaker: str) -> None:
    """Catches a kernel that differs from the layer it stands for, in any layer of the published structure."""
    network, expected = load_golden(kind)
    units, waveform = expected["units"][0].tolist(), expected["waveform"][0, 0].numpy()
    whole = Window(units, network.spk_emb(expected[speaker]), (0, len(waveform) - 1))
    (made,) = CompiledVocoder(network, "float32", threads=2).speak([whole])
    np.testing.assert_allclose(made, waveform, atol=1e-4, rtol=0)
    if "bfloat16" in PRECISIONS:
        (made,) = CompiledVocoder(network, "bfloat16", threads=2).speak([whole])
        assert decibels(waveform, made) > LEAST_DECIBELS["bfloat16"]


@pytest.mark.skipif(not lines.pairs_available(), reason="this CPU does not multiply pairs of bfloat16")
@pytest.mark.parametrize(("inputs", "outputs", "taps", "dilation"), [(24, 40, 7, 1), (21, 16, 3, 5), (7, 1, 5, 1)])
def test_pairs_of_bfloat16_convolve(inputs: int, outputs: int, taps: int, dilation: int) -> None:
    """Catches a pair that straddles two rows, and a kernel that is only chosen where there are no matrix tiles."""
    x, weight = torch.randn(1, inputs, 300).bfloat16().float(), torch.randn(outputs, inputs, taps).bfloat16().float()
    reach = (taps - 1) * dilation
    expected = torch.nn.functional.conv1d(x, weight, dilation=dilation)[0].T.numpy()
    rows = torch.nn.functional.pad(x[0].T, (0, 0, 0, 64)).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    packed, looks = lines.pack_pairs(weight, dilation, 0)
    out, bias = np.zeros((300, outputs), np.float32), np.zeros(len(packed) * 16, np.float32)
    whole = np.array([[0, 0, 300 - reach]], np.int64)
    lines.convolve(rows, packed, looks, bias, out, np.zeros((0, 1), np.float32), False, whole, 1, 0, (0, 1), (0, len(packed)))
    np.testing.assert_allclose(out[: 300 - reach], expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"causal": True, "upsample_kernel_sizes": [6, 4, 4]},
        {"upsample_initial_channel": 150, "use_bias_at_final": True, "use_tanh_at_final": True},
        {"upsample_initial_channel": 640, "upsample_rates": [2], "upsample_kernel_sizes": [5], "snake_logscale": False},
        {"resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[5, 2, 1]]},
    ],
)
def test_every_shape_is_the_plain_network(precision: Precision, changes: dict[str, object]) -> None:
    """Catches widths that are no multiple of a register, causal edges, and ends of utterances."""
    network = tiny_network(**changes).requires_grad_(False)
    windows = some_windows(network, random.Random(3), 12)
    made, expected = CompiledVocoder(network, precision, threads=2).speak(windows), PlainVocoder(network).speak(windows)
    assert [each.shape for each in made] == [each.shape for each in expected]
    if precision == "float32":
        np.testing.assert_allclose(np.concatenate(made), np.concatenate(expected), atol=1e-4, rtol=0)
    assert decibels(np.concatenate(expected), np.concatenate(made)) > LEAST_DECIBELS[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_company_changes_nothing(precision: Precision) -> None:
    """Catches sums that depend on who else is in the call: two hundred mixes of lengths and voices, to the bit."""
    network, chance = tiny_network().requires_grad_(False), random.Random(4)
    vocoder, threaded = CompiledVocoder(network, precision, threads=1), CompiledVocoder(network, precision, threads=3)
    windows = some_windows(network, chance, 40)
    alone = [vocoder.speak([window])[0] for window in windows]
    for _ in range(200):
        chosen = chance.choices(range(len(windows)), k=chance.randint(2, 6))
        mixed = chance.choice([vocoder, threaded]).speak([windows[index] for index in chosen])
        for index, made in zip(chosen, mixed, strict=True):
            np.testing.assert_array_equal(made, alone[index])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_window_too_small_is_heard(precision: Precision) -> None:
    """Catches exactness tests that could not fail: a unit less on either side must change samples, all of it none."""
    blocks = {"resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1]]}
    network = tiny_network(upsample_rates=[2, 2], upsample_kernel_sizes=[4, 4], **blocks).requires_grad_(False)
    for taps in network.buffers():
        taps.fill_(1 / 12)
    network.unit_emb.weight[7] = 1e7  # a unit so loud that it is heard as far as the layers reach
    (left, right), rate = network.context(), network.samples_per_unit
    vocoder, chance = CompiledVocoder(network, precision, threads=1), random.Random(6)
    voice, smaller = network.spk_emb(torch.tensor([1])), [0, 0]
    for _ in range(20):
        units, first, last = [chance.randrange(7) for _ in range(left + right + 30)], left + 5, left + 11
        units[first - left] = units[last + right] = 7
        (whole,) = vocoder.speak([Window(units, voice, (0, len(units) * rate - 1))])
        differs = []
        for before, after in ((left, right), (left - 1, right), (left, right - 1)):
            wanted = before * rate, (before + last - first + 1) * rate - 1
            (part,) = vocoder.speak([Window(units[first - before : last + 1 + after], voice, wanted)])
            differs.append(bool((part != whole[first * rate : (last + 1) * rate]).any()))
        assert not differs[0]
        smaller[0] += differs[1]
        smaller[1] += differs[2]
    assert min(smaller) > 0


class Watched:
    """A vocoder that notes the size of each call, holds the first until it may go on, and fails where it is told to."""

    precision = "float32"

    def __init__(self, held: threading.Event) -> None:
        self.held, self.began, self.calls = held, threading.Event(), []

    def speak(self, windows: list[Window]) -> list[np.ndarray]:
        self.calls.append(len(windows))
        self.began.set()
        assert self.held.wait(10)
        if any(not window.units for window in windows):
            raise RuntimeError("no units")
        return [np.full(1, window.units[0], np.float32) for window in windows]


def test_those_who_wait_share_the_next_call() -> None:
    """Catches a lane that makes each voice wait for all before it, and results that go to the wrong voice."""
    vocoder = Watched(threading.Event())
    company = Company(vocoder)
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(company.speak, Window([0], torch.zeros(1), (0, 0)))]
        assert vocoder.began.wait(10)
        asked += [threads.submit(company.speak, Window([unit], torch.zeros(1), (0, 0))) for unit in range(1, 8)]
        while len(company._waiting) < 7:
            time.sleep(0.001)
        vocoder.held.set()
        assert [future.result(10)[0] for future in asked] == list(range(8))
    assert vocoder.calls == [1, 7]


def test_one_bad_window_harms_no_other() -> None:
    """Catches a failure that reaches everyone in the call, or one that leaves callers waiting for ever."""
    vocoder = Watched(threading.Event())
    company = Company(vocoder)
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(company.speak, Window([0], torch.zeros(1), (0, 0)))]
        assert vocoder.began.wait(10)
        asked += [threads.submit(company.speak, Window(units, torch.zeros(1), (0, 0))) for units in ([1], [], [3])]
        while len(company._waiting) < 3:
            time.sleep(0.001)
        vocoder.held.set()
        with pytest.raises(RuntimeError, match="no units"):
            asked[2].result(10)
        assert [asked[index].result(10)[0] for index in (0, 1, 3)] == [0, 1, 3]
    assert company.speak(Window([5], torch.zeros(1), (0, 0)))[0] == 5


def test_streams_in_many_threads_are_the_streams_alone() -> None:
    """Catches state that streams share by mistake."""
    decoder, utterances = tiny_decoder(), random_utterances(20)

    def spoken(units: list[int]) -> np.ndarray:
        stream = decoder.open(DecodeOptions("heart", look_ahead="exact"))
        return np.concatenate([piece for unit in units for piece in stream.feed([unit])] + stream.finish())

    expected = [spoken(units) for units in utterances]
    with ThreadPoolExecutor(len(utterances)) as threads:
        for made, alone in zip(threads.map(spoken, utterances), expected, strict=True):
            np.testing.assert_array_equal(made, alone)


def test_without_numba_the_network_speaks_plainly() -> None:
    """Catches a decoder that cannot be used where only torch is installed, and numba imported before it is needed."""
    code = """
import sys
import decoders.audio.audio
assert "numba" not in sys.modules
sys.modules["numba"] = None
from decoders.audio.vocoder import PlainVocoder, open_vocoder
from tests.decoders.audio.tiny_vocoder import tiny_network
assert isinstance(open_vocoder(tiny_network()), PlainVocoder)
try:
    open_vocoder(tiny_network(), "bfloat16")
except ValueError as error:
    assert "numba" in str(error)
else:
    raise AssertionError("accepted")
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_auto_takes_what_the_machine_has() -> None:
    """Catches a fast path that is never taken."""
    assert open_vocoder(tiny_network().requires_grad_(False)).precision == PRECISIONS[-1]


def test_the_recommended_look_ahead_is_the_least_within_the_bound() -> None:
    """Catches a tool that recommends what it has not measured."""
    decoder, utterances = tiny_decoder(), [units[:40] for units in random_utterances(20)[:2]]
    every = costs(decoder, utterances, bound=25.0)
    assert every[-1].worst <= -25.0 < every[-2].worst
    assert recommended(decoder, utterances, bound=25.0) == every[-1].look_ahead == len(every) - 1
