"""The client half of bench/serving.py, in a process of its own: the same prompts over REST, and what came back.

Reads one JSON job from standard input, writes one JSON result to standard output.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import httpx


async def one(http: httpx.AsyncClient, url: str, body: dict[str, Any], gate: asyncio.Semaphore) -> dict[str, float]:
    """One streamed reply: seconds to its first audio and to its end, and its completion tokens."""
    async with gate:
        start = time.perf_counter()
        first_audio, tokens = 0.0, 0
        async with http.stream("POST", f"{url}/v1/chat/completions", json=body) as reply:
            async for line in reply.aiter_lines():
                if not first_audio and '"audio"' in line and '"data"' in line:
                    first_audio = time.perf_counter() - start
                if line.startswith("data: {") and '"usage"' in line:
                    usage = json.loads(line[6:]).get("usage") or {}
                    tokens = usage.get("completion_tokens", tokens)
        return {"first_audio": first_audio, "total": time.perf_counter() - start, "tokens": tokens}


async def run(job: dict[str, Any]) -> dict[str, Any]:
    gate = asyncio.Semaphore(job["concurrency"])
    async with httpx.AsyncClient(timeout=600) as http:
        start = time.perf_counter()
        replies = await asyncio.gather(*(one(http, job["url"], body, gate) for body in job["bodies"]))
        return {"seconds": time.perf_counter() - start, "replies": replies}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(json.load(sys.stdin)))))
