"""`omni-server convert`, `inspect` and `keys add`: the commands that need no engine and serve nothing."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from omni_server.errors import ConfigError
from omni_server.keys import Limits, add_key


def add_commands(commands: Any) -> None:
    does = "convert a published omni checkpoint, SRC, into this server's format, DST; goes on where it was stopped"
    command: argparse.ArgumentParser = commands.add_parser("convert", help=does, description=does, allow_abbrev=False)
    command.add_argument("source", metavar="SRC", type=Path)
    command.add_argument("target", metavar="DST", type=Path)
    command.add_argument("--bfloat16", action="store_true", help="store as bfloat16 what does not choose codes: half the size")
    command.add_argument("--name", help="model name that clients use; the name of SRC by default")
    command.add_argument("--picture-pixels", type=int, default=768 * 768, help="pixels of a drawn picture; default %(default)s")
    command.add_argument("--picture-steps", type=int, default=30, help="sampler steps of a picture; default %(default)s")
    command.add_argument("--picture-guidance", type=float, default=0.75, help="autoguidance; default %(default)s")
    command.add_argument("--default-speaker", default="fkms", help="voice where none is asked for; default %(default)s")
    does = "print what a checkpoint holds, what it can do, and the memory that it needs"
    command = commands.add_parser("inspect", help=does, description=does, allow_abbrev=False)
    command.add_argument("folder", metavar="DIR", type=Path)
    command.add_argument(
        "--sessions", type=int, default=16, help="replies at the same time, for the arithmetic; default %(default)s"
    )
    does = "make an API key, print it once, and write its hash to the keys file; a running server takes it at once"
    actions = commands.add_parser("keys", help="make API keys").add_subparsers(dest="action", required=True, metavar="ACTION")
    command = actions.add_parser("add", help=does, description=does, allow_abbrev=False)
    command.add_argument("name", metavar="NAME", help="whose key it is; keys of one name share its limits")
    command.add_argument("--keys-file", metavar="FILE", type=Path, help="OMNI_KEYS_FILE by default")
    for limit in fields(Limits):
        read = int if limit.name == "concurrency" else float
        does = f"limit of NAME: {limit.name.replace('_', ' ')}; none by default, 0 forbids"
        command.add_argument("--" + limit.name.replace("_", "-"), metavar="NUMBER", type=read, help=does)


def run(command: str, given: Mapping[str, Any]) -> int:
    if command == "convert":
        return _convert(given)
    if command == "keys":
        return _add_key(given)
    from omni_server.inspection import inspect

    print("\n".join(inspect(given["folder"], given["sessions"])))
    return 0


def _add_key(given: Mapping[str, Any]) -> int:
    path = given["keys_file"] or os.environ.get("OMNI_KEYS_FILE")
    if not path:
        raise ConfigError("there is no keys file; expected --keys-file FILE or OMNI_KEYS_FILE", param="--keys-file")
    print(add_key(Path(path), given["name"], Limits(**{limit.name: given[limit.name] for limit in fields(Limits)})))
    return 0


def _convert(given: Mapping[str, Any]) -> int:
    from omni_server.conversion.convert import Options, convert

    options = Options(
        narrow=given["bfloat16"],
        picture_pixels=given["picture_pixels"],
        picture_steps=given["picture_steps"],
        picture_guidance=given["picture_guidance"],
        default_speaker=given["default_speaker"],
        name=given["name"],
    )
    record = convert(given["source"], given["target"], options, _bar)
    print(f"{sum(record['used'].values())} tensors used: {', '.join(f'{n} {c}' for n, c in record['used'].items())}")
    for reason, count in Counter(record["left_out"].values()).items():
        print(f"{count} tensors left out: {reason}")
    print(f"`{given['target']}` is whole; each tensor's fate is in conversion.json")
    return 0


def _bar(total: int) -> Callable[[int], None]:
    from tqdm import tqdm

    bar = tqdm(total=total, unit="B", unit_scale=True, desc="converting", mininterval=0.5)

    def step(done: int) -> None:
        bar.update(done)
        if bar.n >= total:
            bar.close()

    return step
