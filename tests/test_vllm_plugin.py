"""What the plug-in does in the engine's own process, without an engine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection

import psutil

from omni_server.vllm_plugin import _end_with_server

SPAWN = multiprocessing.get_context("spawn")


def engine(told: Connection) -> None:
    _end_with_server()
    told.send(os.getpid())
    time.sleep(300)


def server(told: Connection, name: str) -> None:
    SPAWN.Process(target=engine, args=(told,), name=name).start()
    time.sleep(300)


def test_a_killed_server_leaves_no_engine() -> None:
    """Would catch an engine that holds a GPU's memory after the kernel has killed its server, and other children that end."""
    engines = []
    for name in ("EngineCore", "Somebody"):
        here, there = SPAWN.Pipe()
        process = SPAWN.Process(target=server, args=(there, name))
        process.start()
        assert here.poll(60)
        engines.append(psutil.Process(here.recv()))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    ending, staying = engines
    ending.wait(10)
    assert staying.is_running()
    staying.kill()
