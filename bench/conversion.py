"""What converting a checkpoint of the published sizes takes: peak memory and time, on weights that are holes in sparse files.

python -m bench.conversion --folder DIR        needs 22 GB of disk for the result, which is removed afterwards
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import time
from math import prod
from pathlib import Path

from omni_server.conversion.convert import Options, convert
from tests.conversion.manifest import read_manifest
from tests.conversion.miniature import RATIOS, STRUCTURE, TAGS
from tests.conversion.test_manifest import PREFIXES, REAL_CONFIG

SHARD_BYTES = 5 * 10**9
AUDIO, VISION, VOCABULARY = 128_606, 135_168, 200_704


def write_hollow(folder: Path) -> int:
    """The published layout at its real sizes, every number 0; returns the bytes that it seems to have."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(REAL_CONFIG))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    names = {
        name: 128_000 + place for place, name in enumerate((*STRUCTURE, *(f"<|vision_ratio_{r}|>" for r in RATIOS), *TAGS))
    }
    names |= {f"<|audio{code:04d}|>": AUDIO + code for code in range(6562)}
    names |= {f"<|vision{code:05d}|>": VISION + code for code in range(65_536)}
    added = [{"content": name, "id": place} for name, place in names.items()]
    vocabulary = {f"word{number}": number for number in range(128_000)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": added}))
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    size = total = 0
    for prefix in PREFIXES:
        for name, shape in read_manifest()[prefix][2].items():
            if size > SHARD_BYTES:
                shards.append({})
                size = 0
            shards[-1][prefix + name] = shape
            size += 4 * prod(shape)
            total += 4 * prod(shape)
    places = {}
    for number, shard in enumerate(shards, start=1):
        file = folder / f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_holes(file, shard)
        places |= dict.fromkeys(shard, file.name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return total


def write_holes(file: Path, shard: dict[str, tuple[int, ...]]) -> None:
    header, at = {}, 0
    for name, shape in shard.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at := at + 4 * prod(shape)]}
    text = json.dumps(header).encode()
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + at)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    folder = parser.parse_args().folder
    total = write_hollow(folder / "source")
    begun = time.perf_counter()
    try:
        convert(folder / "source", folder / "target", Options(narrow=True), lambda total: lambda done: None)
        seconds = time.perf_counter() - begun
        written = sum(file.stat().st_size for file in (folder / "target").rglob("*.safetensors"))
    finally:
        shutil.rmtree(folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(f"source {total / 1e9:.2f} GB, result {written / 1e9:.2f} GB, {seconds:.0f} s, peak memory {peak / 1e9:.2f} GB")
    print(f"peak memory : source = {peak / total:.3f}")


if __name__ == "__main__":
    main()
