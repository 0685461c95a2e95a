"""Which GPU holds what. A rule over counts; knows no models and touches no GPU.

The engine takes GPUs from the first on and splits layers over a power of two of them, for attention heads must divide. What
is no backbone lies behind: on the one GPU there is, on the last one, or, from four on, encoders and decoders on one each.
"""

from __future__ import annotations

from dataclasses import dataclass

CPU = "cpu"
SPARE_BYTES = 2 << 30  # of a GPU, for its driver and for what the models beside the backbone compute with


@dataclass(frozen=True, slots=True)
class Placement:
    """`backbone` is on how many GPUs the backbone lies; `shares` whether others lie on one of them."""

    backbone: int
    encoders: str
    decoders: str

    @property
    def shares(self) -> bool:
        taken = {f"cuda:{number}" for number in range(self.backbone)}
        return bool(taken & {self.encoders, self.decoders})


def place(gpus: int, processes: int | None = None, encoders: str = "auto", decoders: str = "auto") -> Placement:
    """`processes`, `encoders` and `decoders` are what the deployment asks for, where it does."""
    if gpus == 0:
        return Placement(0, CPU if encoders == "auto" else encoders, CPU if decoders == "auto" else decoders)
    behind = 2 if gpus >= 4 else min(gpus - 1, 1)
    backbone = processes or _power_of_two(max(1, gpus - behind))
    last, before = f"cuda:{gpus - 1}", f"cuda:{gpus - 2}" if behind == 2 else f"cuda:{gpus - 1}"
    return Placement(backbone, before if encoders == "auto" else encoders, last if decoders == "auto" else decoders)


def share_of_gpu(free: int, total: int) -> float:
    """How much of a GPU the engine may take where others lie on it already: what is free, but for some to work with."""
    return max(0.05, round((free - SPARE_BYTES) / total, 3))


def _power_of_two(most: int) -> int:
    return 1 << (most.bit_length() - 1)
