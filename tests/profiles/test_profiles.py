"""Published kinds of models, in miniature, straight from a Hugging Face folder: REST says what `transformers` says."""

from __future__ import annotations

import base64
import warnings
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import PIL.Image
import pytest
import torch

from omni_server.config import Settings
from omni_server.conversion.convert import convert
from omni_server.video import read_frames
from tests.conftest import RealServer, serving
from tests.conversion.miniature import write_published
from tests.conversion.test_convert import OPTIONS, quiet
from tests.media_samples import mp4_of, png_of
from tests.profiles import folders

pytestmark = pytest.mark.profiles
PROMPTS = ("w1 w2 w3", "w9 w8 w7 w6 w5 w4 w3 w2 w1 w9 w8 w7 w6 w5", "w100", "w50 w51 w52 w53")
TOKENS = 32


async def said(server: RealServer, content: Any, **more: Any) -> list[int]:
    """Ids of a greedy reply: each token of these miniatures is one word of its own."""
    body = {
        "model": server.pipeline.checkpoint.name,
        "temperature": 0,
        "max_completion_tokens": TOKENS,
        "messages": [{"role": "user", "content": content}],
    }
    async with httpx.AsyncClient() as http:
        reply = await http.post(server.url + "/v1/chat/completions", json=body | more, timeout=120)
    assert reply.status_code == 200, reply.text
    return [folders.ID_OF[word] for word in reply.json()["choices"][0]["message"]["content"].split()]


def expected(model: Any, ids: list[int], **inputs: Any) -> list[int]:
    """Ids that `transformers` generates greedily, without the end of the turn."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        out = model.generate(input_ids=torch.tensor([ids]), max_new_tokens=TOKENS, do_sample=False, use_cache=True, **inputs)
    return [token for token in out[0, len(ids) :].tolist() if token != folders.ID_OF["<|im_end|>"]]


def prompt_ids(text: str) -> list[int]:
    start, end = folders.WORDS, folders.WORDS + 1
    return [start, *(int(word[1:]) for word in text.split()), end, start]


def settings(folder: Path, **more: Any) -> Settings:
    return Settings(port=0, threads=1, checkpoint=folder, max_num_seqs=4, **more)


async def test_text_model(tmp_path: Path) -> None:
    """Would catch a multiplier that is lost or applied twice, a grammar that forbids what the model wants to say, and an
    adapter that is not asked, or that stays."""
    model = folders.text_folder(tmp_path / "text")
    merged = folders.adapter_folder(tmp_path / "adapter", model)
    adapted = settings(tmp_path / "text", lora_modules={"fine": str(tmp_path / "adapter")})
    async with serving(adapted) as server:
        for prompt in PROMPTS:
            assert await said(server, prompt, model="fine") == expected(merged, prompt_ids(prompt))
            assert await said(server, prompt) == expected(model, prompt_ids(prompt))
        await check_absent_modalities(server)


async def check_absent_modalities(server: RealServer) -> None:
    picture = "data:image/png;base64," + base64.b64encode(png_of(PIL.Image.new("RGB", (64, 64)))).decode()
    content = [{"type": "image_url", "image_url": {"url": picture}}]
    base: dict[str, Any] = {"model": server.pipeline.checkpoint.name, "messages": [{"role": "user", "content": "w1"}]}
    async with httpx.AsyncClient() as http:
        for change, words in (
            ({"messages": [{"role": "user", "content": content}]}, "cannot take `image`"),
            ({"modalities": ["text", "image"]}, "`image` cannot be made"),
            ({"modalities": ["text", "audio"], "audio": {"format": "wav"}}, "`audio` cannot be made"),
            ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "has not learned to call tools"),
        ):
            reply = await http.post(server.url + "/v1/chat/completions", json=base | change, timeout=60)
            assert reply.status_code == 400 and words in reply.json()["error"]["message"]


async def test_experts_with_and_without_a_draft(tmp_path: Path) -> None:
    """Would catch experts in the wrong order, and a draft that changes a token, greedy or sampled."""
    model = folders.expert_folder(tmp_path / "experts")
    wanted = [expected(model, prompt_ids(prompt)) for prompt in PROMPTS]
    hot = {"temperature": 0.9, "seed": 5}
    async with serving(settings(tmp_path / "experts")) as server:
        assert [await said(server, prompt) for prompt in PROMPTS] == wanted
        sampled = [await said(server, prompt, **hot) for prompt in PROMPTS]
        assert sampled != wanted
    drafted = settings(tmp_path / "experts", speculative_config={"method": "mtp", "num_speculative_tokens": 1})
    async with serving(drafted) as server:
        assert server.pipeline.backbone.living._engine.vllm_config.speculative_config.method == "mtp"  # type: ignore[attr-defined]
        assert [await said(server, prompt) for prompt in PROMPTS] == wanted
        assert [await said(server, prompt, **hot) for prompt in PROMPTS] == sampled


async def test_vision_language_model(tmp_path: Path) -> None:
    """Would catch a picture that is cut, scaled or placed otherwise, and a projector that is not the folder's."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    model = folders.vision_folder(tmp_path / "vision")
    noise = np.random.default_rng(0).integers(0, 255, (90, 130, 3), dtype=np.uint8)
    picture = PIL.Image.fromarray(noise)
    processor = Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=28 * 28 * 64)
    seen = processor(images=[picture], return_tensors="pt")
    count = int(seen["image_grid_thw"].prod()) // 4
    start, end, begin, finish, pad = (folders.WORDS + place for place in range(5))
    ids = [start, begin, *[pad] * count, finish, 1, 2, 3, end, start]
    url = "data:image/png;base64," + base64.b64encode(png_of(picture)).decode()
    async with serving(settings(tmp_path / "vision")) as server:
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "w1 w2 w3"}]
        assert await said(server, content) == expected(model, ids, **seen)
        for prompt in PROMPTS[:2]:
            assert await said(server, prompt) == expected(model, prompt_ids(prompt))
        await check_a_film(server, model)


async def check_a_film(server: RealServer, model: Any) -> None:
    """Frames of a size that the tower takes as it is: how each side scales is its own affair."""
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    noise = np.random.default_rng(1).integers(0, 255, (12, 12, 3), dtype=np.uint8)
    film = mp4_of(3.0, sound=False, picture=noise.repeat(28, axis=0).repeat(28, axis=1))
    frames = read_frames(film, "film", 2.0, 128, Settings().media_limits).frames
    processor = Qwen2VLVideoProcessor(do_resize=False, do_sample_frames=False)
    seen = processor(videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)], return_tensors="pt")
    count = int(seen["video_grid_thw"].prod()) // 4
    assert count == len(frames) // 2 * 12 * 12
    start, end, begin, finish, _, pad = (folders.WORDS + place for place in range(6))
    ids = [start, begin, *[pad] * count, finish, 1, 2, 3, end, start]
    url = "data:video/mp4;base64," + base64.b64encode(film).decode()
    content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": "w1 w2 w3"}]
    assert await said(server, content) == expected(model, ids, **seen)


async def test_an_omni_checkpoint_with_a_draft(tmp_path: Path) -> None:
    """Would catch a draft that cannot stand beside media in the prompt or the span grammar, or that changes a token."""
    convert(write_published(tmp_path / "seed"), tmp_path / "omni", OPTIONS, quiet)
    folders.draft_beside(tmp_path / "omni")
    picture = png_of(PIL.Image.radial_gradient("L").resize((112, 56)).convert("RGB"))
    seen = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(picture).decode()}}
    async with serving(settings(tmp_path / "omni")) as server:
        assert server.pipeline.backbone.living._engine.vllm_config.speculative_config.method == "mtp"  # type: ignore[attr-defined]
        body = {"model": "omni-miniature", "temperature": 0, "messages": [{"role": "user", "content": [seen]}]}
        async with httpx.AsyncClient() as http:
            reply = (await http.post(server.url + "/v1/chat/completions", json=body, timeout=120)).json()
            assert reply["choices"][0]["message"]["content"] == "ok"
            body |= {"modalities": ["text", "audio"], "audio": {"format": "pcm16"}}
            reply = (await http.post(server.url + "/v1/chat/completions", json=body, timeout=120)).json()
            assert reply["usage"]["completion_tokens_details"]["audio_tokens"] == 31
