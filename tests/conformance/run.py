"""Drives the server on the embedded checkpoint with stock clients, each in an environment of its own, and writes
docs/conformance.md. `python -m tests.conformance.run` (or `make conformance`) does all; names of clients limit it to these,
and then nothing is written.

The environments stand in a cache folder outside of the repository, because what the clients ask for contradicts itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import wave
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from tests.conformance.secure import secured
from tests.profiles.folders import KEYED, calling_folder
from tests.rpc.test_server import certificate

ROOT = Path(__file__).parent.parent.parent
HERE = Path(__file__).parent
DOCUMENT = ROOT / "docs" / "conformance.md"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "omni-server" / "conformance"
EXAMPLES = ROOT / "clients" / "examples" / "media"
MODEL = "omni-tiny"
TOOLS_MODEL = "calls"  # the embedded checkpoint has not learned to call tools, so random weights stand for one that has
SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Client:
    """One stock client: what its column is called, what is installed for it, and the script that drives it."""

    name: str
    packages: tuple[str, ...]
    script: str


CLIENTS = (
    Client("openai 3.57.0", ("openai[realtime]==3.57.0",), "openai_python.py"),
    Client("openai 1.109.1", ("openai[realtime]==1.109.1",), "openai_python.py"),
    Client("openai (npm) 7.57.0", ("openai@7.57.0", "ws@8"), "openai_node.mjs"),
    Client("litellm 1.110.2", ("litellm==1.110.2",), "litellm_python.py"),
    Client("langchain-openai 1.7.4", ("langchain-openai==1.7.4",), "langchain_python.py"),
    Client("livekit-plugins-openai 1.8.9", ("livekit-plugins-openai==1.8.9",), "livekit_realtime.py"),
    Client("pipecat-ai 1.14.0", ("pipecat-ai[openai]==1.14.0",), "pipecat_realtime.py"),
)


@dataclass(frozen=True, slots=True)
class Result:
    """`outcome`: `works`, `fails`, or `missing` where the client's own version has no such thing."""

    feature: str
    outcome: str
    note: str


def main(names: list[str]) -> int:
    wanted = [client for client in CLIENTS if not names or client.name in names]
    commands = {client.name: command_of(client) for client in wanted}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other, ExitStack() as servers:
        media, calls = Path(folder), Path(other) / TOOLS_MODEL
        calling_folder(calls, KEYED)
        url = servers.enter_context(serving())
        tools = servers.enter_context(serving("--checkpoint", str(calls), "--threads", "1"))
        write_media(media)
        cert, key = certificate(media)
        with secured(int(url.split(":")[2].split("/")[0]), cert, key) as port:
            told = {"OMNI_BASE_URL": url, "OMNI_TOOLS_URL": tools, "OMNI_TOOLS_MODEL": TOOLS_MODEL}
            told |= {"OMNI_TLS_URL": f"https://localhost:{port}/v1", "NODE_EXTRA_CA_CERTS": str(cert)}
            around = {**environment(), **told, "OMNI_MODEL": MODEL, "OMNI_MEDIA": folder}
            results = {name: driven(name, command, around) for name, command in commands.items()}
    failed = [(name, result) for name, all in results.items() for result in all if result.outcome == "fails"]
    for name, result in failed:
        print(f"{name}: {result.feature}: {result.note}")
    if not names:
        DOCUMENT.write_text(document(results), encoding="utf-8")
    return 1 if failed else 0


def command_of(client: Client) -> list[str]:
    """What runs the client's script; its environment is made once."""
    folder = CACHE / client.name.replace(" ", "-").replace("(", "").replace(")", "")
    script = str(HERE / "clients" / client.script)
    if client.script.endswith(".mjs"):
        if not (folder / "node_modules").is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), *client.packages], check=True)
        # Node looks for packages beside the script.
        return ["node", shutil.copy(script, folder / client.script)]
    python = folder / "bin" / "python"
    if not (folder / ".installed").is_file():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *client.packages], check=True)
        (folder / ".installed").touch()
    return [str(python), script]


@contextmanager
def serving(*flags: str) -> Iterator[str]:
    """The server in a process of its own, on a free port."""
    command = [sys.executable, "-m", "omni_server", "serve", "--port", "0", "--grpc-port", "0", *flags]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert server.stdout is not None
    try:
        line = next(line for line in server.stdout if "is ready on" in line)
        yield line.split()[-1] + "/v1"
    finally:
        server.terminate()
        server.wait()


def write_media(folder: Path) -> None:
    """What the scripts say and show."""
    shutil.copy(EXAMPLES / "banana.png", folder / "picture.png")
    samples, rate = soundfile.read(EXAMPLES / "en-question.flac", dtype="int16")
    samples = np.concatenate([samples, np.zeros(rate, np.int16)])
    with wave.open(str(folder / "question-24000.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(24_000)
        file.writeframes(soxr.resample(samples, rate, 24_000).astype("<i2").tobytes())


def environment() -> dict[str, str]:
    """This process's own, without what leads Python to the server's packages."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def driven(name: str, command: list[str], around: dict[str, str]) -> list[Result]:
    print(f"{name} ...", flush=True)
    ran = subprocess.run(command, env=around, capture_output=True, text=True, timeout=SECONDS)
    results = read_results(ran.stdout)
    if not results or any(result.outcome == "fails" for result in results):
        print(ran.stderr[-6000:])
    return results or [
        Result("starts", "fails", ran.stderr.strip().splitlines()[-1] if ran.stderr.strip() else "it said nothing")
    ]


def read_results(printed: str) -> list[Result]:
    lines = (line.removeprefix("RESULT ") for line in printed.splitlines() if line.startswith("RESULT "))
    return [Result(**json.loads(line)) for line in lines]


def document(results: dict[str, list[Result]]) -> str:
    features = list(dict.fromkeys(result.feature for all in results.values() for result in all))
    by_place = {(name, result.feature): result for name, all in results.items() for result in all}
    notes = [(name, result) for name, all in results.items() for result in all if result.note]
    lines = [
        "# Stock clients",
        "",
        "Written by `make conformance`, which drives a server on the embedded checkpoint with each client as its registry has",
        "it, in an environment of its own; nothing here is written by hand. What a row asks: `tests/conformance/clients/`. The",
        "rows of tools ask a second server, of random weights that speak the dialect, for the embedded checkpoint calls none.",
        "",
        "| | " + " | ".join(results) + " |",
        "|---" * (len(results) + 1) + "|",
    ]
    for feature in features:
        cells = [by_place.get((name, feature)) for name in results]
        shown = [cell.outcome if cell is not None else "" for cell in cells]
        lines.append(f"| {feature} | " + " | ".join(shown) + " |")
    lines += ["", "An empty cell: the script of that client does not ask for it. `missing`: its own version has no such thing."]
    if notes:
        lines += ["", *(f"- {name}, {result.feature}: {result.outcome}. {result.note}" for name, result in notes)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
