"""vllm_bias.py: a bias reaches each row that a drafted token is judged by, and no other request's."""

from __future__ import annotations

import torch
from vllm.sampling_params import SamplingParams
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.sample.logits_processor import BatchUpdate
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

from omni_server.vllm_bias import BiasBesideDraft, BiasedSampling


def processor(*biases: dict[int, float] | None) -> BiasBesideDraft:
    made = BiasBesideDraft(None, torch.device("cpu"), False)
    added = [(row, SamplingParams(logit_bias=bias), [1], []) for row, bias in enumerate(biases)]
    made.update_state(BatchUpdate(batch_size=len(biases), removed=[], added=added, moved=[]))
    return made


def test_a_row_for_each_request() -> None:
    """Would catch a bias that is lost where nothing was drafted, and behind the last drafted token."""
    logits = processor(None, {3: 2.0, 5: -100.0}).apply(torch.zeros(2, 8))
    assert logits[0].tolist() == [0.0] * 8
    assert logits[1].tolist() == [0, 0, 0, 2, 0, -100, 0, 0]


def test_a_row_for_each_drafted_token() -> None:
    """Would catch a bias that is laid on the first token of a draft only, or on that of the request beside it."""
    logits = processor({1: 1.0}, None, {2: 3.0}).apply_with_spec_decode(torch.zeros(6, 4), [2, 3, 1])
    assert logits.tolist() == [[0, 1, 0, 0], [0, 1, 0, 0], *[[0, 0, 0, 0]] * 3, [0, 0, 3, 0]]


def test_a_request_that_drafted_nothing() -> None:
    """Would catch rows that are miscounted where the grammar has left nothing of a draft."""
    logits = processor({1: 1.0}, {2: 3.0}).apply_with_spec_decode(torch.zeros(2, 4), [0, 2])
    assert logits.tolist() == [[0, 0, 3, 0], [0, 0, 3, 0]]


def test_parameters_reach_the_engine() -> None:
    """Would catch parameters that the engine's process reads otherwise than vLLM's own."""
    told = EngineCoreRequest("one", [1], None, BiasedSampling(logit_bias={3: 1.5}, seed=7), None, 0.0, None, None, None)
    read = MsgpackDecoder(EngineCoreRequest).decode(MsgpackEncoder().encode(told))
    assert read.sampling_params.logit_bias == {3: 1.5} and read.sampling_params.seed == 7
