"""Reads omni_8b.manifest: prefix -> (tensors, parameters, name -> shape)."""

from __future__ import annotations

import re
from pathlib import Path

Section = tuple[int, int, dict[str, tuple[int, ...]]]


def read_manifest() -> dict[str, Section]:
    sections: dict[str, Section] = {}
    for line in (Path(__file__).parent / "omni_8b.manifest").read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("["):
            prefix, count, parameters = line.removeprefix("[").replace("]", "").split()
            sections[prefix] = (int(count), int(parameters), {})
            tensors = sections[prefix][2]
            continue
        name, sizes = line.split()
        shape = tuple(int(size) for size in sizes.split(","))
        repeated = re.search(r"\{(\d+)\}", name)
        for number in range(int(repeated[1]) if repeated else 1):
            tensors[re.sub(r"\{\d+\}", str(number), name)] = shape
    return sections
