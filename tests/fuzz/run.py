"""Attacks a server on every wire beside good traffic, and measures whether anybody noticed.

python -m tests.fuzz.run --requests 10000             # a server of its own, with the checkpoint inside and a real engine
python -m tests.fuzz.run --requests 10000 --scripted  # over a scripted model, which also makes voices of recordings
python -m tests.fuzz.run --rest URL --grpc HOST:PORT  # one that is there
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx

from tests.fuzz.attacks import SECONDS, RestAttack, RpcAttack, SocketAttack
from tests.fuzz.friends import good_call, good_chat, good_converse, good_session, good_talk
from tests.fuzz.near import UNREAD, good_files, packets
from tests.hostile import corpus

AT_ONCE = 8
START_SECONDS = 600.0
OWN = re.compile(r"^(4\d\d|error|[A-Z_]+) [a-z_]+$")  # a name that an attack gives to an error of ours
SETTLED = 0.4  # of the requests, after which memory is looked at: by then everything has been used once
MOST_GROWTH = 0.1  # of the memory from then on; some megabytes come and go
KINDS = ("rest", "websocket", "grpc")
ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True)
class Target:
    rest: str
    grpc: str
    process: int | None = None


@dataclass(slots=True)
class Figures:
    answers: dict[str, Counter[str]] = field(default_factory=lambda: {kind: Counter() for kind in KINDS})
    faults: list[str] = field(default_factory=list)
    good: Counter[str] = field(default_factory=Counter)
    harmed: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)  # MB of the server alone: at the start, when settled, at the end
    files: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def told(self) -> str:
        sent = sum(sum(answers.values()) for answers in self.answers.values())
        lines = [f"{sent} malformed requests in {self.seconds:.0f} s; faults: {len(self.faults)}"]
        known = Counter(what for answers in self.answers.values() for what in answers.elements() if OWN.search(what))
        past = sum(known.values()) - sum(n for what, n in known.items() if UNREAD in what)
        codes: Counter[str] = Counter()
        for what, n in known.items():
            codes[what.split()[-1]] += n
        lines.append(
            f"refused with an error of ours: {sum(known.values())}, of them {past} ({past / sent:.0%} of all) after the "
            "message as a whole was read: " + ", ".join(f"{n} {code}" for code, n in codes.most_common())
        )
        lines += [f"  {kind}: " + ", ".join(f"{n} {what}" for what, n in self.answers[kind].most_common()) for kind in KINDS]
        lines.append(f"{sum(self.good.values())} good requests beside them ({dict(self.good)}); harmed: {len(self.harmed)}")
        if self.memory:
            lines.append(
                "memory of the server in MB, at the start, when settled, at the end: "
                + ", ".join(f"{m:.0f}" for m in self.memory)
            )
            lines.append(f"growth from settled to the end: {self.growth:.3f} of what it was; open files: {self.files}")
        return "\n".join([*lines, *self.faults[:20], *self.harmed[:20]])

    @property
    def growth(self) -> float:
        return self.memory[-1] / self.memory[1] - 1


@asynccontextmanager
async def real_server() -> AsyncIterator[Target]:
    """One of our own, with the checkpoint inside and a real engine, as `omni-server serve` starts it."""
    ports = free_ports(2)
    limits = (
        "--max-body-bytes",
        "8000000",
        "--max-media-bytes",
        "4000000",
        "--max-audio-seconds",
        "30",
        "--shutdown-seconds",
        "5",
    )
    flags = ("--port", str(ports[0]), "--grpc-port", str(ports[1]), "--allow-media-urls", "--max-queue-seconds", "60", *limits)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "clients")])}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "omni_server", "serve", *flags, cwd=ROOT, env=environ)
    url = f"http://127.0.0.1:{ports[0]}"
    try:
        async with asyncio.timeout(START_SECONDS), httpx.AsyncClient() as client:
            while True:
                assert process.returncode is None, "the server did not start"
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get(f"{url}/ready")).status_code == 200:
                        break
                await asyncio.sleep(0.5)
        yield Target(url, f"127.0.0.1:{ports[1]}", process.pid)
        assert process.returncode is None, "the server died"
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in sockets]


@asynccontextmanager
async def scripted_server() -> AsyncIterator[Target]:
    """One of our own, over a scripted model."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "clients")])}
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "tests.fuzz.server")
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, cwd=ROOT, env=environ)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield Target(**json.loads(await process.stdout.readline()), process=process.pid)
        assert process.returncode is None, "the server died"
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 30)
        finally:
            if process.returncode is None:
                process.kill()


def memory_of(process: int) -> float:
    """MB that are the server's own; its decoders are processes of their own, with a limit of their own."""
    (line,) = [line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1024


async def attack(target: Target, requests: int, seed: int = 0, first: int = 0, seconds: float = math.inf) -> Figures:
    corpus(), good_files(), packets()  # which take seconds to make, in which nobody would read an answer
    figures, began = Figures(), time.monotonic()
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(base_url=target.rest, timeout=SECONDS, limits=limits) as client,
        httpx.AsyncClient(base_url=target.rest, timeout=SECONDS) as friend,
        grpc.aio.insecure_channel(target.grpc) as channel,
        grpc.aio.insecure_channel(target.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as friendly,
    ):
        document = (await client.get("/openapi.json")).json()
        model = (await client.get("/v1/models")).json()["data"][0]["id"]
        voice = next(each["id"] for each in (await client.get("/v1/audio/voices")).json()["data"] if each["type"] == "built_in")
        attacks: dict[str, Callable[[random.Random], Awaitable[str]]] = {
            "rest": RestAttack(client, document, model, voice),
            "websocket": SocketAttack(target.rest, model, voice),
            "grpc": RpcAttack(channel, voice),
        }
        over = asyncio.Event()
        friends: dict[str, Callable[[], Awaitable[None]]] = {
            "rest": lambda: good_chat(friend),
            "grpc": lambda: good_call(friendly),
            "websocket": lambda: good_talk(target.rest),
            "live": lambda: good_session(target.rest, model, voice),
            "converse": lambda: good_converse(friendly),
        }
        await asyncio.gather(*(good() for good in friends.values()))
        measure(figures, target)
        watching = [asyncio.create_task(befriend(kind, good, figures, over)) for kind, good in friends.items()]
        numbers = iter(range(first, first + requests))

        async def work() -> None:
            for number in numbers:
                gone = time.monotonic() - began
                if gone > seconds:
                    return
                if len(figures.memory) == 1 and (number >= first + int(requests * SETTLED) or gone > seconds * SETTLED):
                    measure(figures, target)
                chance = random.Random(f"{seed}/{number}")
                kind = chance.choices(KINDS, (6, 2, 3))[0]
                try:
                    figures.answers[kind][await attacks[kind](chance)] += 1
                except Exception as fault:  # noqa: BLE001 - whatever it is, it is counted
                    figures.answers[kind]["fault"] += 1
                    figures.faults.append(f"request {number} ({kind}): {fault!r}")

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        over.set()
        await asyncio.gather(*watching)
        await asyncio.sleep(1)
        measure(figures, target)
    figures.seconds = time.monotonic() - began
    return figures


async def befriend(kind: str, good: Callable[[], Awaitable[None]], figures: Figures, over: asyncio.Event) -> None:
    """Good requests, one after another, until the attack is over."""
    while not over.is_set():
        try:
            await good()
            figures.good[kind] += 1
        except Exception as fault:  # noqa: BLE001 - whatever it is, it is counted
            figures.harmed.append(f"a good request ({kind}): {fault!r}")
        await asyncio.sleep(0.05)


def measure(figures: Figures, target: Target) -> None:
    if target.process is not None:
        figures.memory.append(memory_of(target.process))
        figures.files.append(len(os.listdir(f"/proc/{target.process}/fd")))


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first request, where they are sent in pieces")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no more are sent")
    parser.add_argument("--scripted", action="store_true", help="over a scripted model")
    parser.add_argument("--rest", help="URL of a server that is there")
    parser.add_argument("--grpc", help="its gRPC address")
    parser.add_argument("--process", type=int, help="its process, for its memory")
    given: Any = parser.parse_args()
    if given.rest:
        figures = await attack(
            Target(given.rest, given.grpc, given.process), given.requests, given.seed, given.first, given.minutes * 60
        )
    else:
        async with (scripted_server if given.scripted else real_server)() as target:
            figures = await attack(target, given.requests, given.seed, given.first, given.minutes * 60)
    print(figures.told())
    return 1 if figures.faults or figures.harmed or (figures.memory and figures.growth > MOST_GROWTH) else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
