"""Runs a file or a command line of the SDK in a process of its own, the way its user does."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str


async def run(*command: str, url: str, folder: Path, typed: bytes = b"") -> Ran:
    """`command` after `python`, in `folder`, with the server at `url` and `typed` as its standard input."""
    environ = {
        **os.environ,
        "OMNI_BASE_URL": url,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "clients")]),
        "PYTHONIOENCODING": "utf-8",
    }
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=folder, env=environ
    )
    out, err = await process.communicate(typed)
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())
