"""The wire's definition: the committed stubs are what the compiler writes, and every word of the wire is explained."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_stubs_are_fresh(tmp_path: Path) -> None:
    """Would catch a proto that was changed without its stubs, or stubs that were edited by hand."""
    runpy.run_path(str(ROOT / "protos" / "generate.py"))["generate"](tmp_path)
    written = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.py*")}
    committed = {
        path.relative_to(ROOT): path.read_bytes() for path in (ROOT / "omni").rglob("*.py*") if "__pycache__" not in path.parts
    }
    assert written == committed
