"""The wire's definition: the committed stubs are what the compiler writes, and every word of the wire is explained."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_stubs_are_fresh(tmp_path: Path) -> None:
    """Would catch a proto that was changed without its stubs, or stubs that were edited by hand."""
    # In a process of its own: the compiler and the voice network each bring a C++ protobuf, and one process bears only one.
    subprocess.run([sys.executable, ROOT / "protos" / "generate.py", tmp_path], check=True)
    written = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.py*")}
    committed = {
        path.relative_to(ROOT): path.read_bytes() for path in (ROOT / "omni").rglob("*.py*") if "__pycache__" not in path.parts
    }
    assert written == committed
