"""A server at twice its capacity: how soon it refuses, whether those let in are served in time, whether its times come true.

All ratios are of one run, goodput among them.

    python -m bench.overload --clients 200

Capacity is what the same requests reach when as many as there are places are always under way. The clients are a process of
their own on the same machine, so what they cost is in all of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

import uvicorn

from bench import revival
from bench.serving import MODEL
from omni_server.app import open_pipeline
from omni_server.config import read_settings
from omni_server.rest import create_app

PLACES = 8
QUEUE_SECONDS = 3
LOAD = 2.0  # times capacity
DEADLINE = 4.0  # times the median service
TOKENS = (200, 400)  # of a reply, which is not allowed to end sooner


async def crowd(url: str, ends: Sequence[int], numbers: range, **how: Any) -> dict[str, Any]:
    bodies = [
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": f"say {number}"}],
            **{"temperature": 1.0, "seed": number, "logit_bias": {str(end): -100 for end in ends}},
            "max_completion_tokens": random.Random(number).randint(*TOKENS),
        }
        for number in numbers
    ]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.crowd", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    job = {"url": url, "bodies": bodies, "seed": numbers.start, **how}
    out, _ = await process.communicate(json.dumps(job).encode())
    result: dict[str, Any] = json.loads(out)
    return result


async def closed(url: str, ends: Sequence[int], first: int) -> tuple[float, float]:
    """Median service in seconds, and replies a second, with all places in use at any time."""
    result = await crowd(url, ends, range(first, first + 8 * PLACES), concurrency=PLACES)
    service = median(client["tries"][-1][1] for client in result["clients"])
    return service, len(result["clients"]) / result["seconds"]


def tell(name: str, result: dict[str, Any], service: float, capacity: float) -> None:
    clients = result["clients"]
    refusals = [seconds for client in clients for status, seconds in client["tries"] if status == 503]
    admitted = [client["tries"][-1] for client in clients if client["tries"][-1][0] in (200, 504)]
    # A request that is refused with 504 at once was not let in.
    admitted = [(status, seconds) for status, seconds in admitted if status == 200 or seconds > service / 4]
    met = sum(status == 200 for status, _ in admitted)
    came_back = [client["tries"][1][0] for client in clients if len(client["tries"]) > 1]
    others = {status for client in clients for status, _ in client["tries"]} - {200, 503, 504}
    if refusals:
        late = quantiles(refusals, n=100)[98] if len(refusals) > 1 else refusals[0]
        print(
            f"{name}: rejection latency over median service time: {median(refusals) / service:.4f} "
            f"(p99 {late / service:.4f}; {median(refusals) * 1000:.1f} ms over {service:.2f} s; {len(refusals)} rejections)"
        )
    print(f"{name}: admitted requests that met their deadline: {met / max(1, len(admitted)):.3f} of {len(admitted)}")
    if came_back:
        kept = sum(status == 200 for status in came_back) / len(came_back)
        longest = max(seconds for client in clients for seconds in client["told"])
        print(f"{name}: truth of Retry-After: {kept:.3f} of {len(came_back)} who came back (longest told {longest:.1f} s)")
    print(f"{name}: goodput over capacity: {met / result['seconds'] / capacity:.2f} ({result['seconds']:.0f} s in all)")
    print(f"{name}: answers that were neither a reply nor a refusal: {len(others)} kinds {sorted(others)}")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    count = parser.parse_args().clients
    wishes = {"port": "0", "max_num_seqs": str(PLACES), "max_queue_seconds": str(QUEUE_SECONDS)}
    settings = read_settings(wishes, os.environ)
    async with open_pipeline(settings) as pipeline:
        config = uvicorn.Config(create_app(pipeline, settings), host="127.0.0.1", port=0, log_level="warning")
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        ends = pipeline._end_of_turn
        await crowd(url, ends, range(PLACES), concurrency=PLACES)  # warm
        before = await closed(url, ends, 1000)
        for number, deadline in enumerate((None, DEADLINE), start=1):
            service, capacity = before
            wish = {} if deadline is None else {"deadline": deadline * service}
            crowded = await crowd(url, ends, range(10_000 * number, 10_000 * number + count), rate=LOAD * capacity, **wish)
            after = await closed(url, ends, 1000 * (number + 1))
            # Both sides of it, so that a busy moment of the machine hits the capacity too.
            service, capacity = ((first + second) / 2 for first, second in zip(before, after, strict=True))
            name = "without deadlines" if deadline is None else f"deadline {deadline:.0f} services"
            print(f"{name}: capacity {before[1]:.2f} before and {after[1]:.2f} after, in replies a second, {PLACES} at once")
            tell(name, crowded, service, capacity)
            before = after
        server.should_exit = True
        await task
    await revival.main()


if __name__ == "__main__":
    asyncio.run(main())
