"""Training step: in which numbers products are computed. Knows nothing about what is trained."""

from contextlib import AbstractContextManager

import torch


def mixed() -> AbstractContextManager[object]:
    """bfloat16 products in forward and so in backward where the CPU multiplies them faster (matrix unit: eight times, AVX-512:
    twice), float32 elsewhere; weights, sums, norms and losses stay float32 either way."""
    found = torch.cpu.get_capabilities()
    return torch.autocast("cpu", torch.bfloat16, enabled=bool(found.get("amx_bf16") or found.get("avx512_bf16")))
