"""omni_server/vllm_plugin.py, in a process of its own, as the engine has it: what it changes there is changed for good."""

from __future__ import annotations

import subprocess
import sys

GROUPS = """
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
names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
options = groups[-1]._get_backend(torch.device("cpu")).options
print(names.count("gloo_tcp_loop"), numbers.tolist(), options._timeout.seconds)
"""


def test_all_groups_of_an_engine_share_one_waking_thread() -> None:
    """Would catch an idle engine whose dozen groups wake 100 times a second each, or a group that was spoiled by sharing."""
    ran = subprocess.run([sys.executable, "-c", GROUPS], capture_output=True, text=True, check=True)
    assert ran.stdout.split("\n")[-2] == "1 [1.0, 1.0, 1.0] 77"
