"""Training step: several processes of one run, one a core, that share their gradients (`torchrun`). Knows no network."""

import os
from collections.abc import Iterable

import torch
from torch import Tensor, distributed


def join() -> int:
    """This process's number; joins the others where `torchrun` has started it."""
    if "WORLD_SIZE" in os.environ:
        distributed.init_process_group("gloo")
    return rank()


def rank() -> int:
    """0 where there is one process only."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def agreed(number: float) -> float:
    """That of the first process, for all of them."""
    if not distributed.is_initialized():
        return number
    shared = torch.tensor(number, dtype=torch.float64)
    distributed.broadcast(shared, src=0)
    return float(shared)


def share_gradients(parameters: Iterable[Tensor]) -> None:
    """Each process goes on with the mean of all; what one of them had no lesson for counts as nothing."""
    if not distributed.is_initialized():
        return
    values = list(parameters)
    flat = torch.cat([(value.grad if value.grad is not None else torch.zeros_like(value)).flatten() for value in values])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for value, gradient in zip(values, flat.split([value.numel() for value in values]), strict=True):
        value.grad = gradient.view_as(value)
