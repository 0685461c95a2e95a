"""Every figure of the decoders, in one run: the vocoder's, then the picture decoder's, each beside the machine's peaks.

python -m bench.decoders
"""

from __future__ import annotations

import subprocess
import sys


def main() -> None:
    for name in ("vocoder", "image_decoder"):
        print(f"# bench.{name}", flush=True)
        # Each in a process of its own, so that neither finds the other's threads and caches.
        subprocess.run([sys.executable, "-m", f"bench.{name}", *sys.argv[1:]], check=True)


if __name__ == "__main__":
    main()
