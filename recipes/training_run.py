"""Training step: one resumable run with a time budget. Knows nothing about what is trained."""

import math
import time
from pathlib import Path
from typing import Any

import torch

from recipes.processes import agreed, rank

SAVE_EVERY_SECONDS = 180


class TrainingRun:
    """Keeps step, elapsed seconds and state on disk, so that a run cut anywhere goes on from its last save."""

    def __init__(self, path: Path, budget_seconds: float, state: dict[str, Any]) -> None:
        """`state` maps names to things with `state_dict` and `load_state_dict`."""
        self.path, self.budget, self.state = path, budget_seconds, state
        self.step, self.spent = 0, 0.0
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            saved = torch.load(path, weights_only=True)
            self.step, self.spent = saved["step"], saved["spent"]
            for name, part in state.items():
                part.load_state_dict(saved[name])
            print(f"resumed at step {self.step}, {self.spent:.0f} s", flush=True)
        self._resumed, self._started, self._saved = self.spent, time.monotonic(), time.monotonic()

    @property
    def share(self) -> float:
        """The part of the budget that is spent, 0..1."""
        return min(1.0, self.spent / self.budget) if self.budget > 0 else 1.0

    def advance(self) -> bool:
        """Counts a step and saves now and then; false when the budget is spent."""
        self.step += 1
        self.spent = agreed(self._resumed + time.monotonic() - self._started)
        if time.monotonic() - self._saved > SAVE_EVERY_SECONDS or self.share >= 1:
            self.save()
        return self.share < 1

    def save(self) -> None:
        if rank():
            return
        unfinished = self.path.with_suffix(".part")
        parts = {name: part.state_dict() for name, part in self.state.items()}
        torch.save({"step": self.step, "spent": self.spent, **parts}, unfinished)
        unfinished.rename(self.path)
        self._saved = time.monotonic()

    def rate(self, peak: float, warm: float = 0.03) -> float:
        """A learning rate: linear warm-up, then a cosine to a fiftieth of the peak, by time spent."""
        if self.share < warm:
            return peak * (0.02 + 0.98 * self.share / warm)
        along = (self.share - warm) / (1 - warm)
        return peak * (0.02 + 0.49 * (1 + math.cos(math.pi * along)))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)
