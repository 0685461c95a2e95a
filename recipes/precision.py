"""Training step: in which numbers products are computed. Knows nothing about what is trained."""

from contextlib import AbstractContextManager

import torch


def mixed() -> AbstractContextManager[object]:
    """bfloat16 products in forward and so in backward where the CPU has a unit for them (eight times faster there), float32
    elsewhere; weights, sums, norms and losses stay float32 either way."""
    fast = torch.cpu.get_capabilities().get("amx_bf16", False)
    return torch.autocast("cpu", torch.bfloat16, enabled=bool(fast))
