"""Writes the stubs of `protos/` into `omni/`. A test compares them with the committed ones.

python protos/generate.py
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

PROTOS = Path(__file__).resolve().parent
SOURCES = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))


def generate(target: Path) -> None:
    """Raises RuntimeError where the compiler refuses a file; it has told why by then."""
    from grpc_tools import protoc

    well_known = str(files("grpc_tools") / "_proto")
    outputs = [f"--{kind}={target}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
    if protoc.main(["protoc", f"-I{PROTOS}", f"-I{well_known}", *outputs, *SOURCES]):
        raise RuntimeError(f"protoc refused some of {', '.join(SOURCES)}")
    for empty in target.rglob("*_pb2_grpc.py"):  # files without a service get one all the same
        if "Stub" not in empty.read_text(encoding="utf-8"):
            empty.unlink()


if __name__ == "__main__":
    try:
        generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTOS.parent)
    except RuntimeError as refused:
        sys.exit(str(refused))
