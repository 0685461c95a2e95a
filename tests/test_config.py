"""Deployment settings: flags over variables over defaults, and a bad value refuses to start."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from omni_server.cli import main
from omni_server.config import Settings, flag_of, read_settings, variable_of
from omni_server.errors import ConfigError


def test_flags_win_over_variables_over_defaults() -> None:
    """Catches a flag that an environment variable overrules in secret."""
    environ = {"OMNI_PORT": "9000", "OMNI_HOST": "0.0.0.0", "OMNI_DEVICE": ""}
    settings = read_settings({"port": "9001"}, environ)
    assert (settings.port, settings.host, settings.device) == (9001, "0.0.0.0", "auto")


def test_values_are_read() -> None:
    """Catches `false` that counts as true, and sizes without their unit."""
    environ = {
        "OMNI_MAX_MEDIA_BYTES": "1.5MiB",
        "OMNI_KV_CACHE_BYTES": "2GB",
        "OMNI_ALLOW_MEDIA_URLS": "false",
        "OMNI_MEDIA_HOSTS": "A.example, b.example",
        "OMNI_CHECKPOINT": "some/folder",
    }
    settings = read_settings({}, environ)
    assert (settings.max_media_bytes, settings.kv_cache_bytes) == (3 << 19, 2 * 10**9)
    assert settings.url_policy.hosts == ("a.example", "b.example")
    assert not settings.url_policy.allowed
    assert settings.checkpoint == Path("some/folder")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("port", "x", "from 0 to 65535"),
        ("port", "65536", "from 0 to 65535"),
        ("device", "tpu", "one of auto, cpu, cuda"),
        ("threads", "0", "from 1 to"),
        ("max_body_bytes", "many", "number of bytes"),
        ("max_body_bytes", "12 parsecs", "number of bytes"),
        ("max_body_bytes", "0", "number of bytes"),
        ("max_audio_seconds", "-1", "seconds above 0"),
        ("max_audio_seconds", "nan", "seconds above 0"),
        ("allow_media_urls", "maybe", "true or false"),
        ("media_hosts", "http://a", "host names"),
        ("host", " ", "some text"),
        ("media_store", "ftp://bucket", "s3://bucket/prefix"),
        ("media_store", "s3://", "s3://bucket/prefix"),
        ("media_store", "/nowhere/at/all", "a folder that is there"),
        ("public_url", "omni.example", "https://omni.example"),
    ],
)
def test_bad_values_are_refused(name: str, value: str, expected: str) -> None:
    """Catches a limit that is silently the default because its value could not be read."""
    setting = next(field for field in fields(Settings) if field.name == name)
    with pytest.raises(ConfigError, match=expected) as caught:
        read_settings({}, {variable_of(setting): value})
    assert caught.value.message.startswith(f"{variable_of(setting)} is `")
    with pytest.raises(ConfigError) as caught:
        read_settings({name: value}, {})
    assert caught.value.param == flag_of(setting)


def test_limits_agree() -> None:
    """Catches a media limit that no body can reach."""
    with pytest.raises(ConfigError, match="--max-body-bytes"):
        read_settings({"max_media_bytes": "1GiB"}, {})


def test_command_line_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a traceback where an operator made a typing error."""
    assert main(["serve", "--port", "x"]) == 2
    assert "--port is `x`" in capsys.readouterr().err


def test_every_setting_has_its_flag(capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a setting that only the environment can reach, and help that breaks on a percent sign."""
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    shown = capsys.readouterr().out
    assert all(flag_of(field) in shown for field in fields(Settings))


def test_importing_brings_no_torch() -> None:
    """Catches an import that makes `--help` take ten seconds, and a light client that needs torch."""
    program = (
        "import sys, omni_server.cli, omni_server.config, omni_server.media, omni_server.fetch, omni_server.rest; "
        "print([name for name in ('torch', 'vllm', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_engine_settings_pass_by_vllms_own_names() -> None:
    """Would catch a setting that is read and never reaches the engine, and one that was not said and overrides it."""
    assert Settings().engine_arguments == {}
    flags = {
        "tensor_parallel_size": "2",
        "enable_expert_parallel": "yes",
        "quantization": "fp8",
        "gpu_memory_utilization": "0.5",
        "speculative_config": '{"method": "mtp", "num_speculative_tokens": 1}',
        "lora_modules": '{"fine": "/adapters/fine"}',
        "engine_args": '{"block_size": 16}',
    }
    assert read_settings(flags, {}).engine_arguments == {
        "tensor_parallel_size": 2,
        "enable_expert_parallel": True,
        "quantization": "fp8",
        "gpu_memory_utilization": 0.5,
        "speculative_config": {"method": "mtp", "num_speculative_tokens": 1},
        "enable_lora": True,
        "block_size": 16,
    }
