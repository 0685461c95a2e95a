"""Deployment settings, from command-line flags and OMNI_* variables; a bad value refuses to start.

Only what belongs to this deployment is here. Facts of the model are in the checkpoint, wishes of a user in the request.
"""
# ruff: noqa: RUF009 (`_setting` is `dataclasses.field` with its reader beside it)

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from omni_server import setting_readers as read
from omni_server.errors import ConfigError
from omni_server.wording import shown

EMBEDDED_CHECKPOINT = Path(__file__).parent / "embedded"
ENGINE_SETTINGS = (
    "dtype", "max_model_len", "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size",
    "enable_expert_parallel", "quantization", "gpu_memory_utilization", "speculative_config", "enable_lora", "max_lora_rank",
)  # fmt: skip


def _setting(default: Any, reader: Callable[[str], object], help: str) -> Any:
    """A field that knows how it is read from text; the default stands here and nowhere else."""
    return field(default=default, metadata={"read": reader, "help": help})


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """What one picture, utterance or film of a request may cost."""

    bytes: int
    pixels: int
    seconds: float
    film_pixels: int = 300_000_000


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """Which http(s) URLs this server fetches for a client. `hosts` empty means every public host."""

    allowed: bool = False
    hosts: tuple[str, ...] = ()
    private: bool = False
    seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class StorePolicy:
    """Where media are kept that replies name by URL, and within which bounds. `place` is a folder, an `s3://` URL, or None
    for a temporary folder."""

    place: str | None = None
    bytes: int = 1 << 30
    files: int = 1000
    seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class Settings:
    """One deployment. `None` means: found out when the server starts."""

    host: str = _setting("127.0.0.1", read.text, "address to listen on")
    port: int = _setting(8000, read.whole(0, 65535), "port to listen on; 0 takes a free one")
    grpc_port: int | None = _setting(None, read.whole(0, 65535), "port for gRPC; 0 for no gRPC; one above --port by default")
    grpc_reflection: bool = _setting(True, read.switch, "tell gRPC clients which methods there are")
    grpc_keepalive_seconds: float = _setting(
        30.0, read.seconds, "silence after which a gRPC client is asked whether it is there"
    )
    grpc_connection_seconds: float | None = _setting(
        None,
        read.seconds,
        "age at which a gRPC client is asked to connect anew, so that load spreads; calls go on; never by default",
    )
    tls_cert: Path | None = _setting(None, Path, "PEM file of the certificate chain; with it, REST and gRPC speak TLS only")
    tls_key: Path | None = _setting(None, Path, "PEM file of the certificate's private key")
    keys_file: Path | None = _setting(
        None, Path, "file of API keys, made by `omni-server keys add`; without it everyone may call"
    )
    allowed_origins: tuple[str, ...] = _setting(
        (), read.origins, "web pages that may call, by origin, separated by commas; * for all; by default only the server's own"
    )
    checkpoint: Path = _setting(EMBEDDED_CHECKPOINT, Path, "checkpoint folder with omni.json; the one inside by default")
    served_name: str | None = _setting(None, read.text, "model name that clients use; the checkpoint's own by default")
    device: str = _setting("auto", read.one_of("auto", "cpu", "cuda"), "where the models run: auto, cpu or cuda")
    encoder_device: str = _setting("auto", read.device, "where encoders run: auto, cpu or cuda:N")
    decoder_device: str = _setting("auto", read.device, "where pictures are drawn: auto, cpu or cuda:N; voices run on the CPU")
    threads: int | None = _setting(None, read.whole(1, 1024), "CPU threads of each model; all cores but one by default")
    voice_look_ahead: str = _setting(
        "low_latency",
        read.one_of("low_latency", "exact"),
        "how far a voice waits for the units to come: low_latency as the checkpoint says, exact for all that a sample can hear",
    )
    voice_precision: str = _setting(
        "auto",
        read.one_of("auto", "bfloat16", "float32"),
        "numbers that the vocoder multiplies: bfloat16, float32, or auto, which is bfloat16 where the CPU multiplies it",
    )
    kv_cache_bytes: int | None = _setting(None, read.size, "memory for the backbone's key-value cache")
    max_num_seqs: int = _setting(16, read.whole(1, 4096), "replies that the backbone writes at the same time")
    draft_tokens: int | None = _setting(
        None,
        read.whole(0, 16),
        "tokens that the checkpoint's draft writes ahead; 0 for none; the checkpoint's own by default",
    )
    picture_slots: int = _setting(8, read.whole(1, 1024), "pictures that are drawn at the same time")
    picture_precision: str = _setting(
        "float32", read.one_of("float32", "bfloat16"), "of the picture transformer; bfloat16 is faster on CPUs that have it"
    )
    max_queued: int = _setting(256, read.whole(1, 1 << 20), "requests that may be in, running or waiting for room")
    max_queue_seconds: float = _setting(
        10.0, read.seconds, "longest time that a request may be expected to wait for room; else it is refused at once"
    )
    max_live_calls: int = _setting(
        256, read.whole(1, 1 << 20), "live calls, and recordings that are cut into utterances, at the same time"
    )
    max_body_bytes: int = _setting(64 << 20, read.size, "largest request body")
    max_media_bytes: int = _setting(20 << 20, read.size, "largest picture or utterance, as a file")
    max_pixels: int = _setting(32_000_000, read.whole(1, 1 << 30), "largest picture, width times height")
    max_film_pixels: int = _setting(
        300_000_000, read.whole(1, 1 << 34), "largest film: pixels of all frames that are looked at"
    )
    max_audio_seconds: float = _setting(600.0, read.seconds, "longest utterance")
    media_decode_seconds: float = _setting(30.0, read.seconds, "time limit for decoding one picture, utterance or film")
    max_turn_seconds: float = _setting(60.0, read.seconds, "longest turn of a live conversation; it ends there")
    allow_media_urls: bool = _setting(False, read.switch, "fetch pictures and utterances from http(s) URLs")
    media_hosts: tuple[str, ...] = _setting((), read.hosts, "only fetch from these hosts, separated by commas")
    allow_private_media_urls: bool = _setting(False, read.switch, "also fetch from private and loopback addresses")
    media_store: str | None = _setting(None, read.place, "folder or s3:// URL for media that replies name by URL")
    media_store_bytes: int = _setting(1 << 30, read.size, "most that is stored at a time; the oldest makes room")
    media_store_files: int = _setting(1000, read.whole(1, 1 << 20), "most files that are stored at a time")
    media_store_seconds: float = _setting(3600.0, read.seconds, "time after which a stored file is gone")
    voice_store: Path | None = _setting(None, Path, "folder where voices made of recordings outlive this server")
    public_url: str | None = _setting(None, read.web_address, "how clients reach this server; else as the request came")
    media_url_seconds: float = _setting(10.0, read.seconds, "time limit for fetching one URL")
    engine_stall_seconds: float = _setting(
        120.0, read.seconds, "time without any token, while requests wait for one, after which the engine is started again"
    )
    engine_backoff_seconds: float = _setting(
        60.0, read.seconds, "longest pause between two tries to start an engine that has died"
    )
    reader_seconds: float = _setting(
        60.0, read.seconds, "time that one write of an answer may wait for its client to read, after which it is given up"
    )
    stage_seconds: float = _setting(
        120.0, read.seconds, "time for one call of a reader, an encoder or a decoder, after which it counts as hung"
    )
    shutdown_seconds: int = _setting(30, read.whole(0, 3600), "time that running replies get when the server stops")
    log_format: str = _setting("text", read.one_of("text", "json"), "log lines: text, or one JSON object each")
    log_level: str = _setting("info", read.one_of("debug", "info", "warning", "error"), "least weight of a line that is logged")
    otlp_endpoint: str | None = _setting(
        None, read.text, "OpenTelemetry collector that gets the traces, such as http://localhost:4318/v1/traces"
    )
    verify_hashes: bool = _setting(True, read.switch, "compare each weight file with its SHA-256 before it is loaded")
    # Passed on to vLLM under its own names.
    dtype: str | None = _setting(None, read.text, "vLLM: type of the backbone's weights")
    max_model_len: int | None = _setting(
        None, read.whole(16, 1 << 24), "vLLM: context in tokens; the checkpoint's own by default"
    )
    tensor_parallel_size: int | None = _setting(None, read.whole(1, 1024), "vLLM: GPUs that share each layer")
    pipeline_parallel_size: int | None = _setting(None, read.whole(1, 1024), "vLLM: groups of GPUs that share the layers")
    data_parallel_size: int | None = _setting(None, read.whole(1, 1024), "vLLM: whole copies of the backbone")
    enable_expert_parallel: bool | None = _setting(None, read.switch, "vLLM: spread experts, and not their slices, over GPUs")
    quantization: str | None = _setting(None, read.text, "vLLM: how the weights are quantised")
    gpu_memory_utilization: float | None = _setting(None, read.ratio, "vLLM: share of a GPU's memory for the backbone")
    speculative_config: dict[str, Any] | None = _setting(None, read.json_object, "vLLM: how tokens are drafted, as JSON")
    enable_lora: bool | None = _setting(None, read.switch, "vLLM: serve adapters beside the model")
    max_lora_rank: int | None = _setting(None, read.whole(1, 4096), "vLLM: largest rank of an adapter")
    lora_modules: dict[str, Any] | None = _setting(None, read.json_object, "adapters by name, as JSON: their folders")
    tool_call_parser: str | None = _setting(
        None, read.text, "vLLM: its parser of tool calls, by name, in place of our own reader"
    )
    reasoning_parser: str | None = _setting(
        None, read.text, "vLLM: its parser of thoughts, by name, in place of our own reader"
    )
    engine_args: dict[str, Any] | None = _setting(None, read.json_object, "vLLM: any other engine argument, as JSON")

    @property
    def rpc_port(self) -> int | None:
        """The port to listen on for gRPC, 0 for a free one; None for no gRPC."""
        if self.grpc_port is None:
            return self.port + 1 if self.port else 0
        return self.grpc_port or None

    @property
    def model_threads(self) -> int:
        """One core stays free for the models that work beside the backbone: on two cores that doubled tokens per second."""
        return self.threads or max(1, (os.cpu_count() or 1) - 1)

    @property
    def engine_arguments(self) -> dict[str, Any]:
        """What was said in vLLM's words; what was not said is left to vLLM and to backbone.py."""
        said = {name: getattr(self, name) for name in ENGINE_SETTINGS}
        if self.lora_modules and said["enable_lora"] is None:
            said["enable_lora"] = True
        return {name: value for name, value in said.items() if value is not None} | (self.engine_args or {})

    @property
    def processes(self) -> int:
        """How many processes one copy of the backbone takes."""
        return (self.tensor_parallel_size or 1) * (self.pipeline_parallel_size or 1)

    @property
    def media_limits(self) -> MediaLimits:
        return MediaLimits(self.max_media_bytes, self.max_pixels, self.max_audio_seconds, self.max_film_pixels)

    @property
    def store_policy(self) -> StorePolicy:
        return StorePolicy(self.media_store, self.media_store_bytes, self.media_store_files, self.media_store_seconds)

    @property
    def url_policy(self) -> UrlPolicy:
        return UrlPolicy(
            allowed=self.allow_media_urls,
            hosts=self.media_hosts,
            private=self.allow_private_media_urls,
            seconds=self.media_url_seconds,
        )


def flag_of(setting: Field[Any]) -> str:
    return "--" + setting.name.replace("_", "-")


def variable_of(setting: Field[Any]) -> str:
    return "OMNI_" + setting.name.upper()


def read_settings(flags: Mapping[str, str], environ: Mapping[str, str]) -> Settings:
    """Settings from flags (by field name) and the environment; a flag wins, an empty variable counts as not set."""
    values: dict[str, Any] = {}
    for setting in fields(Settings):
        if setting.name in flags:
            name, text = flag_of(setting), flags[setting.name]
        elif environ.get(variable_of(setting)):
            name, text = variable_of(setting), environ[variable_of(setting)]
        else:
            continue
        try:
            values[setting.name] = setting.metadata["read"](text)
        except ValueError as problem:
            raise ConfigError(f"{name} is {shown(text)}; expected {problem}", param=name) from None
    settings = Settings(**values)
    if settings.max_media_bytes > settings.max_body_bytes:
        raise ConfigError(
            f"--max-media-bytes is `{settings.max_media_bytes}`; expected at most --max-body-bytes, "
            f"`{settings.max_body_bytes}`, for media arrive inside the body",
            param="--max-media-bytes",
        )
    if (settings.tls_cert is None) != (settings.tls_key is None):
        given, missing = ("--tls-key", "--tls-cert") if settings.tls_cert is None else ("--tls-cert", "--tls-key")
        raise ConfigError(f"{given} is set without {missing}; expected both, or neither for no TLS", param=missing)
    return settings
