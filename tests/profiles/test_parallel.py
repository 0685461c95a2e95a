"""A model in several processes, by vLLM's own settings: it says what `transformers` says in one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import serving
from tests.profiles import folders
from tests.profiles.test_profiles import PROMPTS, expected, prompt_ids, said, settings

pytestmark = pytest.mark.profiles


async def test_layers_in_slices(tmp_path: Path) -> None:
    """Would catch a setting that does not reach vLLM, weights that are cut at the wrong place, and noise of a seed that differs
    from one process to the other."""
    model = folders.text_folder(tmp_path / "model")
    async with serving(settings(tmp_path / "model", tensor_parallel_size=2)) as server:
        config = server.pipeline.backbone.living._engine.vllm_config.parallel_config  # type: ignore[attr-defined]
        assert config.tensor_parallel_size == 2
        for prompt in PROMPTS:
            assert await said(server, prompt) == expected(model, prompt_ids(prompt))
        hot = {"temperature": 1.0, "seed": 4}
        assert await said(server, PROMPTS[0], **hot) == await said(server, PROMPTS[0], **hot)
