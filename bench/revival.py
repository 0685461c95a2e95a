"""The engine's process killed under load: how soon every open request is told, and the time back to serving over a cold start.

    python -m bench.revival

The server is a process of its own, started by its command line, so that its cold start is what a user waits for.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import psutil

OPEN = 8
LONG: dict[str, Any] = {
    "model": "omni-tiny",
    "messages": [{"role": "user", "content": "say everything"}],
    "temperature": 2.0,
    "top_p": 1.0,
    "max_completion_tokens": 600,
}


@dataclass(frozen=True, slots=True)
class Started:
    """A server, its addresses, and the seconds until it said that it is ready."""

    process: asyncio.subprocess.Process
    url: str
    rpc: str
    seconds: float


async def start() -> Started:
    began = time.perf_counter()
    command = (sys.executable, "-m", "omni_server", "serve", "--port", "0")
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    server = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=null)
    assert server.stdout is not None
    rpc = ""
    async for line in server.stdout:
        address = line.decode().split()[-1]
        if b"answers gRPC on" in line:
            rpc = address
        if b"is ready on" in line:
            return Started(server, address, rpc, time.perf_counter() - began)
    raise RuntimeError("the server did not start")


async def told(http: httpx.AsyncClient, begun: asyncio.Semaphore) -> tuple[str, float]:
    """How one open request ended, and when."""
    ending = "cut off"
    with suppress(httpx.HTTPError):
        async with http.stream("POST", "/v1/chat/completions", json=LONG | {"stream": True}) as reply:
            async for line in reply.aiter_lines():
                begun.release()
                if '"error"' in line:
                    ending = "typed error"
                elif "[DONE]" in line:
                    ending = "done"
    return ending, time.perf_counter()


async def answered(http: httpx.AsyncClient) -> bool:
    return (await http.post("/v1/chat/completions", json=LONG | {"max_completion_tokens": 4})).status_code == 200


async def measure(server: Started, http: httpx.AsyncClient) -> None:
    await answered(http)
    begun = asyncio.Semaphore(0)
    tasks = [asyncio.create_task(told(http, begun)) for _ in range(OPEN)]
    for _ in range(5 * OPEN):
        await begun.acquire()
    (engine,) = [child for child in psutil.Process(server.process.pid).children() if "EngineCore" in child.name()]
    killed = time.perf_counter()
    engine.send_signal(signal.SIGKILL)
    endings = await asyncio.gather(*tasks)
    last = max(moment for _, moment in endings) - killed
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(kind for kind, _ in endings).items())
    print(f"engine killed under {OPEN} open requests: {kinds}; the last was told after {last:.2f} s")
    while not await answered(http):
        await asyncio.sleep(0.1)
    back = time.perf_counter() - killed
    print(f"SIGKILL to serving again over a cold start: {back / server.seconds:.2f} ({back:.1f} s over {server.seconds:.1f} s)")


async def main() -> None:
    server = await start()
    try:
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as http:
            await measure(server, http)
    finally:
        server.process.terminate()
        await server.process.wait()


if __name__ == "__main__":
    asyncio.run(main())
