"""omni_server/vllm_plugin.py, in a process of its own, as the engine has it: what it changes there is changed for good."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection

import psutil

from omni_server.vllm_plugin import _end_with_server

SPAWN = multiprocessing.get_context("spawn")
GROUPS = """
import time
from datetime import timedelta
from pathlib import Path
import torch
from torch import distributed
from omni_server.vllm_plugin import register
register(), register()
distributed.init_process_group("gloo", store=distributed.HashStore(), world_size=1, rank=0)
groups = [distributed.new_group([0], backend="gloo", timeout=timedelta(seconds=77)) for _ in range(4)]
numbers = torch.ones(3)
distributed.all_reduce(numbers, group=groups[-1])
def waking():
    return [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()].count("gloo_tcp_loop")
for _ in range(200):  # a thread names itself some time after it was made
    if waking():
        break
    time.sleep(0.1)
time.sleep(1)  # by when any others have their names too
options = groups[-1]._get_backend(torch.device("cpu")).options
print(waking(), numbers.tolist(), options._timeout.seconds)
"""


def test_all_groups_of_an_engine_share_one_waking_thread() -> None:
    """Would catch an idle engine whose dozen groups wake 100 times a second each, or a group that was spoiled by sharing."""
    ran = subprocess.run([sys.executable, "-c", GROUPS], capture_output=True, text=True, check=True)
    assert ran.stdout.split("\n")[-2] == "1 [1.0, 1.0, 1.0] 77"


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
