"""placement.py and inspection.py: which GPU holds what, and whether it fits, by arithmetic alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omni_server.inspection import cache_bytes_per_token, fitting
from omni_server.placement import Placement, place, share_of_gpu

# The 8B as converted: backbone in bfloat16; encoders and picture decoder in float32, with what they work in.
BACKBONE, SEES, DRAWS, CACHE = 17_180_467_200, 9_700_000_000, 9_900_000_000, 147_456


@pytest.mark.parametrize(
    ("gpus", "expected", "shares"),
    [
        (0, Placement(0, "cpu", "cpu"), False),
        (1, Placement(1, "cuda:0", "cuda:0"), True),
        (2, Placement(1, "cuda:1", "cuda:1"), False),
        (3, Placement(2, "cuda:2", "cuda:2"), False),
        (4, Placement(2, "cuda:2", "cuda:3"), False),
        (8, Placement(4, "cuda:6", "cuda:7"), False),
    ],
)
def test_where_things_lie(gpus: int, expected: Placement, shares: bool) -> None:
    """Would catch an encoder on the engine's GPU, which fills it, and a split that no head count divides by."""
    assert place(gpus) == expected and expected.shares is shares


def test_a_deployment_may_say_otherwise() -> None:
    """Would catch a setting that is read and not followed."""
    assert place(2, processes=2, encoders="cpu", decoders="cuda:1") == Placement(2, "cpu", "cuda:1")
    assert place(2, processes=2, decoders="cuda:1").shares


@pytest.mark.parametrize(("count", "gigabytes"), [(1, 80), (2, 40), (4, 24)])
def test_the_8b_fits(count: int, gigabytes: int) -> None:
    """Would catch a default placement that does not fit the machines it is made for."""
    told = fitting(BACKBONE, SEES, DRAWS, CACHE, count, gigabytes * 10**9)
    assert "for the cache" in told


def test_what_does_not_fit_is_told() -> None:
    """Would catch arithmetic that always says yes."""
    assert fitting(BACKBONE, SEES, DRAWS, CACHE, 1, 24 * 10**9) == "does not fit"


def test_the_engine_takes_what_is_left() -> None:
    """Would catch an engine that asks for more than there is and does not start."""
    assert share_of_gpu(free=60 << 30, total=80 << 30) == pytest.approx(58 / 80, abs=1e-3)


def test_a_draft_has_a_cache_of_its_own(tmp_path: Path) -> None:
    """Would catch a cache that is reckoned too small beside a draft, or twice as large as it is."""
    sizes = {"num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}
    (tmp_path / "config.json").write_text(json.dumps(sizes), encoding="utf-8")
    assert cache_bytes_per_token(tmp_path, drafts=False) == CACHE
    assert cache_bytes_per_token(tmp_path, drafts=True) == CACHE * 37 // 36
