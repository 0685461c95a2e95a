"""The server's own cost, as ratios of one run: REST over the bare engine, first audio over the whole reply, encoder cache.

    python -m bench.serving

One engine serves both sides of each ratio; the REST client is a process of its own, as real clients are.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from statistics import median
from typing import Any

import numpy as np
import PIL.Image
import uvicorn

from omni_server.app import open_pipeline
from omni_server.config import read_settings
from omni_server.pipeline import Pipeline
from omni_server.rest import create_app
from omni_server.types import Message, Modality, Sampling, TextPart

MODEL = "omni-tiny"
TOKENS = 200  # of each reply of text, for which its end is ruled out, so that the wire and not the prompt is measured
UNITS = 100  # of an utterance of four seconds, for which its end is ruled out
NEVER = -100.0


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Pipeline, str]]:
    settings = read_settings({"port": "0"}, os.environ)
    async with open_pipeline(settings) as pipeline:
        config = uvicorn.Config(create_app(pipeline, settings), host="127.0.0.1", port=0, log_level="warning")
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        yield pipeline, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        server.should_exit = True
        await task


async def load(url: str, bodies: list[dict[str, Any]], concurrency: int) -> dict[str, Any]:
    """Runs bench.load on `bodies` and returns what it measured."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.load", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    job = {"url": url, "bodies": bodies, "concurrency": concurrency}
    out, _ = await process.communicate(json.dumps(job).encode())
    result: dict[str, Any] = json.loads(out)
    return result


def body(text: str, **more: Any) -> dict[str, Any]:
    asked = {"model": MODEL, "messages": [{"role": "user", "content": text}], "stream": True}
    return asked | {"stream_options": {"include_usage": True}} | more


def never(tokens: Sequence[int]) -> dict[str, float]:
    """A `logit_bias` that rules these tokens out."""
    return {str(token): NEVER for token in tokens}


async def bare(pipeline: Pipeline, count: int, concurrency: int) -> float:
    """Tokens per second of AsyncLLM alone, for the same prompts, seeds and limits as `rest`."""
    gate = asyncio.Semaphore(concurrency)

    async def one(number: int) -> int:
        prompt = pipeline._prompter.build([Message("user", (TextPart(f"say {number}"),))], [])
        bias = tuple((token, NEVER) for token in pipeline._end_of_turn)
        sampling = Sampling(temperature=1.0, max_tokens=TOKENS, seed=number, logit_bias=bias)
        tokens = 0
        async with gate:
            stream = pipeline.backbone.stream(f"bare-{concurrency}-{number}", prompt, sampling, frozenset({Modality.TEXT}))
            async with aclosing(stream) as chunks:
                async for chunk in chunks:
                    tokens += len(chunk.token_ids)
        return tokens

    start = time.perf_counter()
    total = sum(await asyncio.gather(*(one(number) for number in range(count))))
    return total / (time.perf_counter() - start)


async def rest(pipeline: Pipeline, url: str, count: int, concurrency: int) -> float:
    long = {"temperature": 1.0, "max_completion_tokens": TOKENS, "logit_bias": never(pipeline._end_of_turn)}
    result = await load(url, [body(f"say {number}", seed=number, **long) for number in range(count)], concurrency)
    return float(sum(reply["tokens"] for reply in result["replies"]) / result["seconds"])


async def throughput(pipeline: Pipeline, url: str) -> None:
    for concurrency, count in ((1, 4), (16, 32)):
        await bare(pipeline, concurrency, concurrency)  # warm
        ratios = []
        for _ in range(3):  # side by side, so that a busy moment hits both
            engine = await bare(pipeline, count, concurrency)
            ratios.append((await rest(pipeline, url, count, concurrency) / engine, engine))
        ratio, engine = sorted(ratios)[1]
        print(f"REST over bare AsyncLLM, tokens/s, {concurrency:2} concurrent: {ratio:.2f} (bare {engine:.0f} tokens/s)")


async def first_audio(pipeline: Pipeline, url: str) -> None:
    asked = body("say 'fox'", modalities=["text", "audio"], audio={"voice": "heart", "format": "pcm16"}, seed=1)
    close = pipeline.checkpoint.bands[Modality.AUDIO].close
    hot = asked | {"temperature": 1.0, "max_completion_tokens": UNITS + 10, "logit_bias": never([close])}
    for name, wish in (("a spoken word", asked), ("a 4-second utterance", hot)):
        await load(url, [wish], 1)
        result = await load(url, [wish | {"seed": seed} for seed in range(5)], 1)
        heard = [reply for reply in result["replies"] if reply["first_audio"]]
        fractions = [reply["first_audio"] / reply["total"] for reply in heard]
        print(
            f"first-audio fraction, {name}: {median(fractions):.2f} "
            f"(first audio after {median(r['first_audio'] for r in heard) * 1000:.0f} ms, "
            f"reply {median(r['total'] for r in heard):.2f} s, {len(heard)} replies)"
        )


async def encoder_cache(url: str) -> None:
    gains = []
    for number in range(5):
        noise = np.random.default_rng(number).integers(0, 255, (256, 256, 3), dtype=np.uint8)
        out = io.BytesIO()
        PIL.Image.fromarray(noise).save(out, "PNG")
        picture = "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
        content: Any = [
            {"type": "image_url", "image_url": {"url": picture}},
            {"type": "text", "text": "what is this?"},
        ]
        wish = body("", max_completion_tokens=1) | {"messages": [{"role": "user", "content": content}]}
        first, second = [(await load(url, [wish], 1))["replies"][0]["total"] for _ in range(2)]
        gains.append(first / second)
    print(f"encoder-cache gain, first over second request with the same picture, one token: {median(gains):.2f}")


async def main() -> None:
    async with serving() as (pipeline, url):
        await throughput(pipeline, url)
        await first_audio(pipeline, url)
        await encoder_cache(url)


if __name__ == "__main__":
    asyncio.run(main())
