"""Mixed work for minutes: the memory, file handles, threads and tasks that the server and its engine hold, before and after.

    python -m bench.soak --minutes 20

Clients write, draw, speak, listen, talk live over gRPC and a WebSocket, leave midway and ask for what is wrong, all at once.
The server is a process of its own. What it holds is looked at in pauses, when nothing is asked; the first tenth of the time is
for caches to fill. Ends with 1 where something grew, or where an answer failed that should not have.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import soundfile
import websockets

from bench.revival import start
from omni_client import APIStatusError, AsyncOmniClient, Audio, OmniError, TurnComplete

MEDIA = Path(__file__).parent.parent / "clients" / "examples" / "media"
CLIENTS = 6
LOOKS = 10  # in the whole time, the first of them after a tenth
QUIET_SECONDS = 5.0  # without work before each look
MOST_GROWTH = {"memory": 1.05, "engine memory": 1.05, "handles": 1.05, "threads": 1.05, "tasks": 1.05}
SLACK = {"memory": 0.0, "engine memory": 0.0, "handles": 8.0, "threads": 8.0, "tasks": 8.0}


@dataclass(frozen=True, slots=True)
class Target:
    client: AsyncOmniClient
    http: httpx.AsyncClient
    random: random.Random


async def write(at: Target) -> None:
    await at.client.generate(f"say {at.random.randrange(1000)}", max_tokens=60, temperature=1.0)


async def draw(at: Target) -> None:
    await at.client.draw(at.random.choice(["a fox", "a banana", "a tractor"]), seed=at.random.randrange(1000))


async def speak(at: Target) -> None:
    await at.client.speak(at.random.choice(["fox", "banana", "tractor"]), format=at.random.choice(["wav", "mp3", "opus"]))


async def listen(at: Target) -> None:
    await at.client.transcribe(MEDIA / "en-name.flac")


async def look(at: Target) -> None:
    await at.client.generate([MEDIA / at.random.choice(["fox.png", "banana.png"]), "what is this?"], max_tokens=40)


async def leave(at: Target) -> None:
    async with at.client.stream("draw a fox and say it", modalities=["text", "image", "audio"]) as stream:
        async for _ in stream:
            if at.random.random() < 0.3:
                return


async def talk(at: Target) -> None:
    samples, rate = soundfile.read(MEDIA / "en-question.flac", dtype="float32")
    async with at.client.converse(Audio.from_waveform(samples, rate)) as call:
        async for event in call:
            if isinstance(event, TurnComplete):
                return


async def ring(at: Target) -> None:
    """Speaks over /v1/realtime and hangs up: at the first sound, or when the answer is whole."""
    last = at.random.choice(["response.output_audio.delta", "response.done"])
    sound, rate = soundfile.read(MEDIA / "en-question.flac", dtype="int16")
    sound = np.concatenate([sound, np.zeros(rate, np.int16)])  # after which the turn is over
    async with websockets.connect(f"ws{str(at.http.base_url)[4:].rstrip('/')}/v1/realtime", max_size=None) as call:
        form = {"format": {"type": "audio/pcm", "rate": rate}}
        await call.send(json.dumps({"type": "session.update", "session": {"type": "realtime", "audio": {"input": form}}}))
        for piece in np.array_split(sound, 20):
            audio = base64.b64encode(piece.tobytes()).decode()
            await call.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        async with asyncio.timeout(300):
            while (event := json.loads(await call.recv()))["type"] not in (last, "response.done"):
                if event["type"] == "error":
                    raise RuntimeError(event["error"]["message"])


async def be_wrong(at: Target) -> None:
    wrong: Any = at.random.choice([{"messages": []}, {"messages": [{"role": "user", "content": "hi"}], "top_p": 7}])
    reply = await at.http.post("/v1/chat/completions", json={"model": "omni-tiny"} | wrong)
    if reply.status_code != 400:
        raise RuntimeError(f"a wrong request got {reply.status_code}")


KINDS: tuple[Callable[[Target], Awaitable[None]], ...] = (write, draw, speak, listen, look, leave, talk, ring, be_wrong)


async def work(at: Target, until: float, ended: Counter[str]) -> None:
    while time.monotonic() < until:
        kind = at.random.choice(KINDS)
        try:
            await kind(at)
        except APIStatusError as error:
            refused = error.status_code in (429, 503)
            said = "refused" if refused else "declined" if error.status_code < 500 else f"failed: {error}"
            ended[f"{kind.__name__} {said}"] += 1
        except (OmniError, RuntimeError, TimeoutError, httpx.HTTPError, websockets.WebSocketException) as error:
            ended[f"{kind.__name__} failed: {type(error).__name__} {error}"] += 1
        else:
            ended[kind.__name__] += 1


async def held(server: psutil.Process, http: httpx.AsyncClient) -> dict[str, float]:
    metrics = (await http.get("/metrics")).text
    (tasks,) = re.findall(r"^omni_tasks (\S+)", metrics, re.MULTILINE)
    engine = [child.memory_info().rss for child in server.children(recursive=True)]
    return {
        "memory": server.memory_info().rss / 1e6,
        "engine memory": sum(engine) / 1e6,
        "handles": server.num_fds(),
        "threads": server.num_threads(),
        "tasks": float(tasks),
    }


def grown(first: dict[str, float], last: dict[str, float]) -> list[str]:
    return [name for name, value in last.items() if value > first[name] * MOST_GROWTH[name] + SLACK[name]]


async def soak(server: psutil.Process, at: Target, minutes: float) -> bool:
    ended: Counter[str] = Counter()
    looks = []
    for number in range(LOOKS):
        until = time.monotonic() + 60 * minutes / LOOKS
        await asyncio.gather(*(work(at, until, ended) for _ in range(CLIENTS)))
        await asyncio.sleep(QUIET_SECONDS)
        looks.append(await held(server, at.http))
        told = ", ".join(f"{name} {value:.0f}" for name, value in looks[-1].items())
        print(f"after {(number + 1) * minutes / LOOKS:.1f} minutes of work: {told}", flush=True)
    for name, first in looks[0].items():
        last = looks[-1][name]
        print(f"{name}: {last / max(first, 1.0):.3f} of what it was after a tenth of the time ({first:.0f}, then {last:.0f})")
    whole = {name: count for name, count in sorted(ended.items())}
    print("ended: " + ", ".join(f"{count} {name}" for name, count in whole.items()))
    failed, more = [name for name in whole if "failed" in name], grown(looks[0], looks[-1])
    print(f"grown: {', '.join(more) or 'nothing'}; failed: {', '.join(failed) or 'nothing'}")
    return not more and not failed


async def main(minutes: float) -> bool:
    server = await start()
    try:
        async with (
            httpx.AsyncClient(base_url=server.url, timeout=300) as http,
            AsyncOmniClient(server.url, timeout=300, max_retries=0, grpc_target=server.rpc) as client,
        ):
            return await soak(psutil.Process(server.process.pid), Target(client, http, random.Random(0)), minutes)
    finally:
        server.process.terminate()
        await server.process.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    sys.exit(not asyncio.run(main(parser.parse_args().minutes)))
