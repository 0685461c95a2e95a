"""`omni-server doctor`: its lines and its exit code."""

from pathlib import Path

import pytest

from omni_server import doctor
from omni_server.config import Settings

# Importing torch and vLLM takes ten seconds, so `_packages` and `_gpu` are left to whoever runs the command.
QUICK = (doctor._python, doctor._processor, doctor._memory, doctor._cache, doctor._checkpoint)


def test_a_missing_checkpoint_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a doctor who finds everything well where the server would not start."""
    assert doctor.examine(Settings(checkpoint=tmp_path), QUICK) == 1
    shown = capsys.readouterr().out
    assert "missing  checkpoint" in shown
    assert "omni.json" in shown
    assert "ok       python" in shown
    assert shown.endswith("This machine cannot serve yet: checkpoint.\n")


def test_a_missing_package_is_told() -> None:
    """Catches a traceback for the very thing that the doctor is asked about."""
    finding = doctor._package("no_such_package")
    assert finding.state == "missing"
    assert "no_such_package" in finding.reason
    assert doctor._package("av", "av").state == "ok"


def test_a_read_only_cache_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a machine whose every start takes half a minute longer, and nobody knows why."""
    monkeypatch.setenv("VLLM_CACHE_ROOT", "/proc/nowhere")
    doctor.examine(Settings(), QUICK)
    assert "set VLLM_CACHE_ROOT" in capsys.readouterr().out
