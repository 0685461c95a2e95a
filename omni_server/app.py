"""The composition root: the only place that names concrete model classes. Reads a checkpoint, builds a Pipeline, closes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from omni_server.checkpoint import Checkpoint, read_checkpoint
from omni_server.config import Settings
from omni_server.door import Door
from omni_server.errors import CheckpointError
from omni_server.fetch import UrlFetcher
from omni_server.media import MediaLoader
from omni_server.pipeline import Pipeline
from omni_server.prompt import Prompter
from omni_server.rpc import RpcServer
from omni_server.senses import Sense
from omni_server.text import TextCodec
from omni_server.types import Modality
from omni_server.vad import SileroEars


@asynccontextmanager
async def open_pipeline(settings: Settings) -> AsyncIterator[Pipeline]:
    """A pipeline that is ready to answer. Components are loaded and checked before the engine starts, so a bad checkpoint
    is refused in a second. Raises CheckpointError, ConfigError or EngineUnavailable."""
    checkpoint = await asyncio.to_thread(read_checkpoint, settings.checkpoint)
    senses, decoders = await asyncio.to_thread(_load_components, checkpoint, settings)
    codec = TextCodec(checkpoint.folders["backbone"] / "tokenizer.json")

    from omni_server.backbone import VllmBackbone

    backbone = VllmBackbone(checkpoint, settings)
    pipeline = Pipeline(
        checkpoint=checkpoint,
        loader=MediaLoader(settings.media_limits, UrlFetcher(settings.url_policy)),
        senses=senses,
        prompter=Prompter(checkpoint, codec),
        backbone=backbone,
        codec=codec,
        decoders=decoders,
        end_of_turn=_end_of_turn(checkpoint.folders["backbone"]),
    )
    try:
        yield pipeline
    finally:
        await pipeline.close()


@asynccontextmanager
async def open_rpc(pipeline: Pipeline, settings: Settings) -> AsyncIterator[RpcServer]:
    """The gRPC door, answering unless the settings turn it off; it is drained on leaving."""
    ears = SileroEars()
    server = RpcServer(Door(pipeline, settings), ears)
    if settings.rpc_port is not None:
        await server.start(settings.rpc_port)
    try:
        yield server
    finally:
        await server.drain()
        ears.lane.close()


def _load_components(checkpoint: Checkpoint, settings: Settings) -> tuple[dict[Modality, Sense], dict[Modality, Any]]:
    """Every encoder, codebook and decoder of the checkpoint, each checked against the facts in omni.json."""
    import torch

    torch.set_num_threads(settings.model_threads)
    folders = checkpoint.folders
    hidden = int(json.loads((folders["backbone"] / "config.json").read_text(encoding="utf-8"))["hidden_size"])
    senses: dict[Modality, Sense] = {}
    decoders: dict[Modality, Any] = {}
    if "image_encoder" in folders:
        from omni_server.encoders.vision import ImageCodebook, ImageEncoder

        codebook = _load(ImageCodebook, folders["image_codebook"])
        encoder = _load(ImageEncoder, folders["image_encoder"])
        senses[Modality.IMAGE] = _sense(checkpoint, Modality.IMAGE, encoder, codebook, hidden)
    if "audio_encoder" in folders:
        from omni_server.encoders.audio import AudioCodebook, AudioEncoder

        codebook = _load(AudioCodebook, folders["audio_codebook"])
        encoder = _load(AudioEncoder, folders["audio_encoder"])
        senses[Modality.AUDIO] = _sense(checkpoint, Modality.AUDIO, encoder, codebook, hidden)
    if "image_decoder" in folders:
        from decoders.image.image import ImageDecoder

        decoders[Modality.IMAGE] = _load(
            ImageDecoder, folders["image_decoder"], precision=settings.picture_precision, slots=settings.picture_slots
        )
    if "audio_decoder" in folders:
        from decoders.audio.audio import AudioDecoder

        wished = {"precision": settings.voice_precision, "look_ahead": settings.voice_look_ahead}
        decoder = decoders[Modality.AUDIO] = _load(AudioDecoder, folders["audio_decoder"], **wished)
        _expect("audio_decoder: sample_rate", decoder.sample_rate, checkpoint.sample_rate)
    return senses, decoders


def _load(kind: Any, folder: Path, **options: Any) -> Any:
    """One component from its folder; whatever is wrong with it is told as a fault of the checkpoint."""
    try:
        return kind.from_pretrained(folder, **options)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"component `{folder.name}` cannot be loaded: {error}") from error


def _sense(checkpoint: Checkpoint, modality: Modality, encoder: Any, codebook: Any, hidden: int) -> Sense:
    _expect(f"{modality}_encoder: hidden size", encoder.hidden_size, hidden)
    band = checkpoint.bands.get(modality)
    _expect(f"{modality}_codebook: size", codebook.size, band.size if band else 0)
    if modality is Modality.IMAGE and checkpoint.image is not None:
        _expect("image_codebook: grid", tuple(codebook.grid), (checkpoint.image.rows, checkpoint.image.columns))
    return Sense(modality, encoder, codebook)


def _expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise CheckpointError(f"{what} is `{found}`; omni.json and the backbone say `{expected}`")


def _end_of_turn(folder: Path) -> list[int]:
    config: Mapping[str, Any] = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    ends = config.get("eos_token_id", [])
    return list(ends) if isinstance(ends, list) else [int(ends)]
