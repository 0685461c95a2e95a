"""Stands in for vLLM's model runner where its samplers are tried alone: a batch of requests, each with a seed and a place."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import torch
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.sampler import Sampler

from omni_server.vllm_plugin import SEED

DRAFTING = {"rejection_sample_method": "standard", "method": "mtp", "draft_sample_method": "greedy"}


@dataclass
class Batch:
    """What `vllm_sampling.py` reads of a runner. Request k has the input rows from `starts[k]` on, at `positions`."""

    seeds: list[int]
    starts: torch.Tensor
    positions: torch.Tensor
    sampler: Sampler = field(default_factory=Sampler)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    speculative_config: Any = field(default_factory=lambda: SimpleNamespace(**DRAFTING))
    rejection_sampler: Any = None
    drafter: Any = field(default_factory=SimpleNamespace)

    @property
    def max_num_reqs(self) -> int:
        return len(self.seeds)

    @property
    def query_start_loc(self) -> SimpleNamespace:
        return SimpleNamespace(gpu=self.starts)

    @property
    def input_batch(self) -> SimpleNamespace:
        return SimpleNamespace(req_ids=[str(number) for number in range(len(self.seeds))])

    @cached_property
    def requests(self) -> dict[str, Any]:
        told = (SamplingParams(extra_args={SEED: seed}) for seed in self.seeds)
        return {str(number): SimpleNamespace(sampling_params=parameters) for number, parameters in enumerate(told)}
