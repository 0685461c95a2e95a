"""tensors.py: byte ranges are copied and narrowed as `safetensors` and `torch` would, in little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from omni_server.checkpoint import sha256_of
from omni_server.conversion.tensors import Placed, read_header, write_file
from omni_server.errors import CheckpointError


def test_copies_and_narrows_like_torch(tmp_path: Path) -> None:
    """Would catch shifted offsets, a tensor of no elements, and rounding that is not torch's."""
    tensors = {
        "a": torch.randn(3, 5),
        "empty": torch.zeros(0, 4),
        "b": torch.randn(7, dtype=torch.float16),
        "scalar": torch.tensor(3),
        "c": torch.randn(2, 2).bfloat16(),
    }
    save_file(tensors, tmp_path / "in.safetensors")
    stored = read_header(tmp_path / "in.safetensors")
    floats = ("F32", "F16", "BF16")
    placed = [Placed(f"x.{n}", s, "BF16" if s.dtype in floats else s.dtype, s.shape) for n, s in stored.items()]
    counted: list[int] = []
    digest = write_file(tmp_path / "out.safetensors", placed, counted.append)
    assert digest == sha256_of(tmp_path / "out.safetensors")
    assert sum(counted) == sum(s.length for s in stored.values())
    for name, tensor in load_file(tmp_path / "out.safetensors").items():
        source = tensors[name.removeprefix("x.")]
        assert torch.equal(tensor, source.bfloat16() if source.is_floating_point() else source)


def test_a_large_tensor_takes_little_memory(tmp_path: Path) -> None:
    """Would catch a table of embeddings that is read whole."""
    rows = 160 << 20
    with (tmp_path / "in.safetensors").open("wb") as file:
        header = f'{{"t":{{"dtype":"F32","shape":[{rows // 4}],"data_offsets":[0,{rows}]}}}}'.encode()
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + rows)  # a hole: no disk, but as long to read
    code = (
        "import resource, sys, torch; from pathlib import Path;"
        "from omni_server.conversion.tensors import *;"
        "s = read_header(Path(sys.argv[1]) / 'in.safetensors')['t'];"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "write_file(Path(sys.argv[1]) / 'out.safetensors', [Placed('t', s, 'BF16', s.shape)], lambda n: None);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 150 << 10  # kilobytes
    assert read_header(tmp_path / "out.safetensors")["t"].length == rows // 2


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64, (8).to_bytes(8, "little") + b"not json"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    """Would catch a bare struct or JSON error on a file that is none."""
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        read_header(tmp_path / "x.safetensors")
