"""The composition root: the only place that names concrete model classes. Reads a checkpoint, builds a Pipeline, closes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from omni_server.access import Access, open_access
from omni_server.admission import Admission, Scarce
from omni_server.backoff import Backoff
from omni_server.checkpoint import Checkpoint
from omni_server.cloned_voices import ClonedVoices
from omni_server.config import Settings
from omni_server.door import Door
from omni_server.errors import CheckpointError, ConfigError
from omni_server.fetch import UrlFetcher
from omni_server.gate import Gate
from omni_server.interfaces import Backbone, TextParsers
from omni_server.live import live_router
from omni_server.maker import Maker
from omni_server.measures import Measures
from omni_server.media import MediaLoader
from omni_server.metered import Metered
from omni_server.packets import PacketProcesses
from omni_server.pipeline import Pipeline
from omni_server.placement import CPU, Placement, place
from omni_server.profile import open_checkpoint
from omni_server.prompt import Prompter
from omni_server.quarantine import Quarantine
from omni_server.realtime import realtime_router
from omni_server.rest import create_app
from omni_server.revival import Revival
from omni_server.rpc import RpcServer
from omni_server.senses import Sense, VideoSense
from omni_server.text import TextCodec
from omni_server.types import Modality
from omni_server.vad import Ears, SileroEars
from omni_server.watch import Watch


@asynccontextmanager
async def open_pipeline(settings: Settings) -> AsyncIterator[Pipeline]:
    """A pipeline that is ready to answer. Components are loaded and checked before the engine starts, so a bad checkpoint
    is refused in a second. Raises CheckpointError, ConfigError or EngineUnavailable."""
    checkpoint = await asyncio.to_thread(_checkpoint, settings)
    watch = _watch(settings, settings.served_name or checkpoint.name)
    placement = place(_gpus(settings), settings.tensor_parallel_size, settings.encoder_device, settings.decoder_device)
    senses, makers = await asyncio.to_thread(_load_components, checkpoint, settings, placement)
    codec = TextCodec(checkpoint.folders["backbone"] / "tokenizer.json")

    fetcher = UrlFetcher(settings.url_policy)
    quarantine = Quarantine(settings.media_decode_seconds)

    from omni_server.backbone import VllmBackbone

    cloned = await asyncio.to_thread(ClonedVoices, settings.voice_store)
    parsers = await asyncio.to_thread(_parsers, checkpoint, codec, settings)
    build = partial(VllmBackbone, checkpoint, settings, placement)
    backbone = Revival(build, settings.engine_stall_seconds, Backoff(most=settings.engine_backoff_seconds))
    pipeline = Pipeline(
        checkpoint=checkpoint,
        loader=MediaLoader(settings.media_limits, fetcher, quarantine),
        senses=senses,
        prompter=Prompter(checkpoint, codec),
        backbone=backbone,
        codec=codec,
        makers=makers,
        end_of_turn=_end_of_turn(checkpoint.folders["backbone"]),
        watch=watch,
        stage_seconds=settings.stage_seconds,
        gate=Gate(_admission(settings, backbone, makers), watch.measures, hurries=settings.voice_look_ahead == "exact"),
        cloned=cloned,
        parsers=parsers,
    )
    try:
        yield pipeline
    finally:
        await pipeline.close()
        fetcher.close()
        quarantine.close()


@asynccontextmanager
async def open_ears(settings: Settings) -> AsyncIterator[Ears]:
    """What finds voices in live sound, for every live door."""
    ears = SileroEars(settings.max_live_calls)
    try:
        yield ears
    finally:
        ears.lane.close()


def build_app(pipeline: Pipeline, settings: Settings, ears: Ears, access: Access | None = None) -> Any:
    """All that is answered over HTTP: REST, and the WebSockets of live conversations."""
    live = (partial(realtime_router, ears=ears), partial(live_router, ears=ears))
    return create_app(pipeline, settings, access, live, ears)


@asynccontextmanager
async def open_rpc(
    pipeline: Pipeline, settings: Settings, ears: Ears, access: Access | None = None
) -> AsyncIterator[RpcServer]:
    """The gRPC door, answering unless the settings turn it off; it is drained on leaving. `access` is shared with the other
    doors; without it, this one has its own by the settings."""
    packets = PacketProcesses()
    server = RpcServer(Door(Metered(pipeline), settings, access or open_access(settings), packets=packets), ears)
    if settings.rpc_port is not None:
        packets.start()
        await server.start(settings.rpc_port)
    try:
        yield server
    finally:
        await server.drain(0.0)


def _admission(settings: Settings, backbone: Backbone, makers: Mapping[Modality, Maker]) -> Admission:
    """By what is scarce: the engine's memory and its places, and those of the decoders."""
    capacity: dict[Scarce, float] = {Scarce.TOKENS: backbone.cache_tokens, Scarce.REPLIES: settings.max_num_seqs}
    if Modality.AUDIO in makers:
        capacity[Scarce.VOICES] = makers[Modality.AUDIO].spans_at_once
    if Modality.IMAGE in makers:
        capacity[Scarce.PICTURES] = settings.picture_slots
    return Admission(capacity, settings.max_queued, settings.max_queue_seconds)


def _watch(settings: Settings, model: str) -> Watch:
    if settings.otlp_endpoint is None:
        return Watch(Measures(model))
    from omni_server.traces import open_tracer

    return Watch(Measures(model), open_tracer(settings.otlp_endpoint, model))


def _checkpoint(settings: Settings) -> Checkpoint:
    checkpoint = open_checkpoint(settings.checkpoint, verify_hashes=settings.verify_hashes)
    if settings.draft_tokens and "backbone_draft" not in checkpoint.folders:
        raise ConfigError(
            f"--draft-tokens is `{settings.draft_tokens}`; expected 0, for `{checkpoint.root}` has no `backbone_draft/`",
            param="--draft-tokens",
        )
    if settings.max_model_len is not None:
        checkpoint = replace(checkpoint, context_length=settings.max_model_len)
    return checkpoint


def _parsers(checkpoint: Checkpoint, codec: TextCodec, settings: Settings) -> TextParsers | None:
    """vLLM's, where they are asked for by name."""
    if settings.tool_call_parser is None and settings.reasoning_parser is None:
        return None
    from omni_server.vllm_parsers import VllmParsers

    return VllmParsers(checkpoint.folders["backbone"], codec, settings.tool_call_parser, settings.reasoning_parser)


def _gpus(settings: Settings) -> int:
    import torch

    return 0 if settings.device == "cpu" else torch.cuda.device_count()


def _load_components(
    checkpoint: Checkpoint, settings: Settings, placement: Placement
) -> tuple[dict[Modality, Sense], dict[Modality, Maker]]:
    """Every encoder, codebook and decoder of the checkpoint, each checked against the facts in omni.json."""
    import torch

    torch.set_num_threads(settings.model_threads)
    return _load_senses(checkpoint, settings, placement), _load_makers(checkpoint, settings, placement)


def _load_senses(checkpoint: Checkpoint, settings: Settings, placement: Placement) -> dict[Modality, Sense]:
    folders = checkpoint.folders
    config = json.loads((folders["backbone"] / "config.json").read_text(encoding="utf-8"))
    hidden = int((config.get("text_config") or config)["hidden_size"])
    senses: dict[Modality, Sense] = {}
    where = placement.encoders
    eye: Any = None
    ear: Any = None
    if "image_encoder" in folders:
        from omni_server.encoders.vision import ImageCodebook, ImageEncoder

        beside = folders["image_encoder"] == folders["backbone"]
        codebook = None if beside else _load(ImageCodebook.from_pretrained, folders["image_codebook"], where)
        eye = _load(ImageEncoder.from_backbone if beside else ImageEncoder.from_pretrained, folders["image_encoder"], where)
        senses[Modality.IMAGE] = _sense(checkpoint, Modality.IMAGE, eye, codebook, hidden, settings.stage_seconds)
    if "audio_encoder" in folders:
        from omni_server.encoders.audio import AudioCodebook, AudioEncoder

        codebook = _load(AudioCodebook.from_pretrained, folders["audio_codebook"], where)
        ear = _load(AudioEncoder.from_pretrained, folders["audio_encoder"], where)
        senses[Modality.AUDIO] = _sense(checkpoint, Modality.AUDIO, ear, codebook, hidden, settings.stage_seconds)
    if Modality.VIDEO in checkpoint.modalities_in:
        compressor = None
        if "sound_compressor" in folders:
            from omni_server.encoders.mambamia import SoundCompressor

            compressor = _load(SoundCompressor.from_pretrained, folders["sound_compressor"], where)
        senses[Modality.VIDEO] = VideoSense(eye, ear, compressor, seconds=settings.stage_seconds)
    return senses


def _load_makers(checkpoint: Checkpoint, settings: Settings, placement: Placement) -> dict[Modality, Maker]:
    loads: dict[Modality, Callable[[], Any]] = {}
    if "image_decoder" in checkpoint.folders:
        loads[Modality.IMAGE] = partial(_load_drawer, checkpoint, settings, placement)
    if "audio_decoder" in checkpoint.folders:
        loads[Modality.AUDIO] = partial(_load_vocoder, checkpoint, settings)
    codes = checkpoint.image.rows * checkpoint.image.columns if checkpoint.image is not None else 0
    return {modality: Maker(modality, load(), codes, load, settings.stage_seconds) for modality, load in loads.items()}


def _load_drawer(checkpoint: Checkpoint, settings: Settings, placement: Placement) -> Any:
    from decoders.image.image import ImageDecoder

    wished: dict[str, Any] = {"precision": settings.picture_precision, "slots": settings.picture_slots}
    drawer: Any = _load(ImageDecoder.from_pretrained, checkpoint.folders["image_decoder"], **wished)
    if placement.decoders != CPU:
        drawer.pipeline.to(placement.decoders)
    return drawer


def _load_vocoder(checkpoint: Checkpoint, settings: Settings) -> Any:
    from decoders.audio.audio import AudioDecoder

    wished = {"precision": settings.voice_precision, "look_ahead": settings.voice_look_ahead}
    decoder: Any = _load(AudioDecoder.from_pretrained, checkpoint.folders["audio_decoder"], **wished)
    _expect("audio_decoder: sample_rate", decoder.sample_rate, checkpoint.sample_rate)
    if "voice_cloner" in checkpoint.folders:
        from decoders.audio.voices import Voices

        decoder = Voices(decoder, _load(AudioDecoder.from_pretrained, checkpoint.folders["voice_cloner"]))
    return decoder


def _load(load: Callable[..., Any], folder: Path, device: str = CPU, **options: Any) -> Any:
    """One component from its folder; whatever is wrong with it is told as a fault of the checkpoint."""
    try:
        component = load(folder, **options)
        return component.to(device) if device != CPU else component
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"component `{folder.name}` cannot be loaded: {error}") from error


def _sense(checkpoint: Checkpoint, modality: Modality, encoder: Any, codebook: Any, hidden: int, seconds: float) -> Sense:
    _expect(f"{modality}_encoder: hidden size", encoder.hidden_size, hidden)
    band = checkpoint.bands.get(modality)
    if codebook is None:
        return Sense(modality, encoder, None, seconds=seconds)
    _expect(f"{modality}_codebook: size", codebook.size, band.size if band else 0)
    if modality is Modality.IMAGE and checkpoint.image is not None:
        _expect("image_codebook: grid", tuple(codebook.grid), (checkpoint.image.rows, checkpoint.image.columns))
    return Sense(modality, encoder, codebook, seconds=seconds)


def _expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise CheckpointError(f"{what} is `{found}`; omni.json and the backbone say `{expected}`")


def _end_of_turn(folder: Path) -> list[int]:
    """Ids that end the model's turn, from the first file that says it."""
    for name in ("generation_config.json", "config.json"):
        config: Mapping[str, Any] = json.loads((folder / name).read_text(encoding="utf-8")) if (folder / name).is_file() else {}
        ends = config.get("eos_token_id", (config.get("text_config") or {}).get("eos_token_id"))
        if ends is not None:
            return list(ends) if isinstance(ends, list) else [int(ends)]
    return []
