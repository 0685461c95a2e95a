"""The client half of bench/overload.py, in a process of its own: clients come at random, and come back when they are told to.

Reads one JSON job from standard input, writes one JSON result to standard output.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import Any

import httpx

TRIES = 4


async def one(http: httpx.AsyncClient, url: str, body: dict[str, Any], deadline: float | None) -> dict[str, Any]:
    """One client: the status and the seconds of each of its tries, and what it was told in between."""
    headers = {"x-request-timeout-ms": str(round(deadline * 1000))} if deadline is not None else {}
    tries: list[tuple[int, float]] = []
    told: list[float] = []
    while True:
        start = time.perf_counter()
        reply = await http.post(f"{url}/v1/chat/completions", json=body, headers=headers)
        tries.append((reply.status_code, time.perf_counter() - start))
        if reply.status_code != 503 or len(tries) == TRIES:
            return {"tries": tries, "told": told, "ended": time.perf_counter()}
        told.append(int(reply.headers["retry-after-ms"]) / 1000)
        await asyncio.sleep(told[-1])


async def run(job: dict[str, Any]) -> dict[str, Any]:
    """`rate`: clients a second, at random; without one, `concurrency` of them at any time."""
    chance = random.Random(job["seed"])
    gate = asyncio.Semaphore(job.get("concurrency", 1 << 20))
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(timeout=600, limits=limits) as http:
        start = time.perf_counter()

        async def come(body: dict[str, Any]) -> dict[str, Any]:
            async with gate:
                return await one(http, job["url"], body, job.get("deadline"))

        tasks = []
        for body in job["bodies"]:
            tasks.append(asyncio.create_task(come(body)))
            if "rate" in job:
                await asyncio.sleep(chance.expovariate(job["rate"]))
        clients = await asyncio.gather(*tasks)
        return {"clients": clients, "seconds": max(client["ended"] for client in clients) - start}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(json.load(sys.stdin)))))
