"""Step 5. A bias on tokens beside a draft, inside vLLM: 0.32 refuses `logit_bias` wherever tokens are drafted.

Its reason is that a bias is laid on one row of logits a request, and there are several where tokens are judged. The one
processor that vLLM keeps beside a draft counts those rows already (for the least number of tokens), so this one counts with it.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor.builtin import LogitBiasLogitsProcessor, MinTokensLogitsProcessor


class BiasBesideDraft(MinTokensLogitsProcessor):
    """What vLLM keeps beside a draft, and the bias."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        self.bias = LogitBiasLogitsProcessor(vllm_config, device, is_pin_memory)

    def update_state(self, batch_update: Any) -> None:
        super().update_state(batch_update)
        self.bias.update_state(batch_update)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """One row a request: the token after the last drafted one, or a step without a draft."""
        return self.bias.apply(super().apply(logits))

    def apply_with_spec_decode(self, logits: torch.Tensor, num_draft_tokens: list[int]) -> torch.Tensor:
        """A row for each drafted token, request after request."""
        logits = super().apply_with_spec_decode(logits, num_draft_tokens)
        starts = [0, *accumulate(num_draft_tokens)]
        for request, biases in self.bias.biases.items():
            ids = torch.tensor(list(biases), device=logits.device)
            logits[starts[request] : starts[request + 1], ids] += torch.tensor(list(biases.values()), device=logits.device)
        return logits


class BiasedSampling(SamplingParams):
    """Sampling parameters with a bias, which an engine with the processor above can follow."""

    def _validate_spec_decode(self, speculative_config: Any) -> None:
        """Nothing is refused."""
