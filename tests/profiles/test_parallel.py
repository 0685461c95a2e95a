"""A model in several processes, by vLLM's own settings: it says what `transformers` says in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import serving
from tests.profiles import folders
from tests.profiles.test_profiles import PROMPTS, expected, prompt_ids, said, settings

pytestmark = pytest.mark.profiles


@pytest.mark.parametrize(
    "split",
    [
        {"tensor_parallel_size": 2},
        {"pipeline_parallel_size": 2},
        {"data_parallel_size": 2},
        {"tensor_parallel_size": 2, "enable_expert_parallel": True},
    ],
    ids=["tensor", "pipeline", "data", "expert"],
)
async def test_parallel(tmp_path: Path, split: dict[str, Any]) -> None:
    """Would catch a setting that does not reach vLLM, weights that are cut at the wrong place, and noise of a seed that differs
    from one process to the other."""
    make = folders.expert_folder if "enable_expert_parallel" in split else folders.text_folder
    model = make(tmp_path / "model")
    async with serving(settings(tmp_path / "model", **split)) as server:
        config = server.pipeline.backbone.living._engine.vllm_config.parallel_config  # type: ignore[attr-defined]
        assert all(getattr(config, name) == value for name, value in split.items())
        for prompt in PROMPTS:
            assert await said(server, prompt) == expected(model, prompt_ids(prompt))
        hot = {"temperature": 1.0, "seed": 4}
        assert await said(server, PROMPTS[0], **hot) == await said(server, PROMPTS[0], **hot)
