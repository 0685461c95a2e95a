"""What a server costs that nobody uses: the share of one core that it and its engine take, scraped as Prometheus would.

python -m bench.idle --seconds 60
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time

import httpx
import psutil

SCRAPE_SECONDS = 5.0
SETTLING_SECONDS = 10.0  # after start-up, before anything is measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    command = [sys.executable, "-m", "omni_server", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as server:
        assert server.stdout is not None
        try:
            (url,) = next(found for line in server.stdout if (found := re.findall(r"ready on (\S+)", line)))
            time.sleep(SETTLING_SECONDS)
            before, started = used(server.pid), time.monotonic()
            while time.monotonic() < started + seconds:
                httpx.get(f"{url}/metrics").raise_for_status()
                time.sleep(SCRAPE_SECONDS)
            after, lasted = used(server.pid), time.monotonic() - started
        finally:
            server.terminate()
    total = 0.0
    for name, cpu in after.items():
        share = (cpu - before.get(name, 0.0)) / lasted
        total += share
        print(f"idle, {name}: {share:.2%} of a core")
    print(f"idle, all of it: {total:.2%} of a core (over {lasted:.0f} s, /metrics read every {SCRAPE_SECONDS:.0f} s)")


def used(pid: int) -> dict[str, float]:
    """CPU seconds of the server and of each process it started."""
    server = psutil.Process(pid)
    processes = {"the server": server, **{f"{child.name()} {child.pid}": child for child in server.children(recursive=True)}}
    times = {name: process.cpu_times() for name, process in processes.items()}
    return {name: each.user + each.system for name, each in times.items()}


if __name__ == "__main__":
    main()
