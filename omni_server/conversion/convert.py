"""Offline. `omni-server convert SRC DST`: the published folder to our format. The order of the work, and what is done."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omni_server.checkpoint import sha256_of, write_facts
from omni_server.conversion.archives import Archive, read_archive, read_weights
from omni_server.conversion.configs import component_configs, image_codebook_config
from omni_server.conversion.expected import check_shapes
from omni_server.conversion.facts import omni_facts, turn_ends
from omni_server.conversion.parts import Plan, plan_parts
from omni_server.conversion.pictures import PictureFolder, read_picture_folder
from omni_server.conversion.published import Published, read_published
from omni_server.conversion.tensors import FLOATS, Placed, Stored, write_file
from omni_server.errors import CheckpointError

RECORD = "conversion.json"
SHARD_BYTES = 4 << 30
ARCHIVES = {"audio_decoder": "NCCosybigvganDecoder.mar", "voice_cloner": "NCZSCosybigvganDecoder.mar"}
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "chat_template.jinja",
)  # fmt: skip

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What the published folder does not say. The picture's size, steps and guidance are those of the published server."""

    narrow: bool = False  # store as bfloat16 what may be
    picture_pixels: int = 768 * 768
    picture_steps: int = 30
    picture_guidance: float = 0.75
    default_speaker: str = "fkms"
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything that was read and checked, before anything is written."""

    published: Published
    plan: Plan
    configs: Mapping[str, Mapping[str, Any]]
    pictures: PictureFolder | None
    archives: Mapping[str, Archive]


def convert(source: Path, target: Path, options: Options, begin: Callable[[int], Progress]) -> dict[str, Any]:
    """Converts `source` into `target`, goes on where an earlier run stopped, and returns the record of what became of what.

    `begin(bytes)` is told how much there is to do and returns what is told of each step. Raises CheckpointError.
    """
    # 1 read and check everything, before a byte is written
    sources = read_sources(source, options)
    facts = omni_facts(sources.published, options.name or source.resolve().name, sources.configs, _speakers(sources.archives))
    # 2 what is there already
    record = _open_record(target, sources, options)
    # 3 write each weight file that is not there yet
    files = _weight_files(sources, options)
    progress = begin(sum(tensor.stored.length for tensors in files.values() for tensor in tensors))
    for relative, tensors in files.items():
        if relative in record["files"] and (target / relative).is_file():
            progress(sum(tensor.stored.length for tensor in tensors))
            continue
        record["files"][relative] = write_file(target / relative, tensors, progress)
        _save(target, record)
    _write_vocoders(target, sources.archives, record)
    # 4 the small files beside the weights
    _write_configs(target, sources, options)
    _write_backbone(target, sources.published, [name for name in files if name.startswith("backbone/")], files)
    # 5 the facts, last: a checkpoint without omni.json is none
    write_facts(target, facts, _hashes(record["files"]))
    return record


def read_sources(source: Path, options: Options) -> Sources:
    published = read_published(source)
    codebook = image_codebook_config(published)
    layers = range(codebook["num_hidden_layers"] + 1)[codebook["select_layer"]]
    plan = plan_parts(published.tensors, layers)
    configs = component_configs(published)
    for component, tensors in plan.used.items():
        check_shapes(component, configs[component], tensors)
    folder = source / "decoder" / "vision"
    pictures = read_picture_folder(folder) if folder.is_dir() else None
    if pictures is not None and pictures.codes != codebook["codebook_size"]:
        raise CheckpointError(
            f"`{folder}` draws `{pictures.codes}` codes; the image codebook has `{codebook['codebook_size']}`"
        )
    archives = {}
    for component, name in ARCHIVES.items():
        path = source / "decoder" / "audio" / name
        if path.is_file():
            archives[component] = read_archive(path, options.default_speaker)
            units, size = archives[component].config.get("num_units"), configs["audio_codebook"]["n_codebook_size"]
            if units != size:
                raise CheckpointError(f"`{path}`: `num_units` is `{units}`; the speech codebook has `{size}`")
    return Sources(published, plan, configs, pictures, archives)


def _weight_files(sources: Sources, options: Options) -> dict[str, list[Placed]]:
    """Relative path -> the tensors in it, in the order in which they lie on disk."""
    files: dict[str, list[Placed]] = {}
    for component, tensors in sources.plan.used.items():
        narrow = options.narrow and sources.plan.narrows[component]
        placed = [_placed(name, stored, narrow) for name, stored in tensors.items()]
        placed.sort(key=lambda tensor: (str(tensor.stored.file), tensor.stored.start))
        shards = _shards(placed) if component == "backbone" else [placed]
        for number, shard in enumerate(shards, start=1):
            single = len(shards) == 1
            file = "model.safetensors" if single else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            files[f"{component}/{file}"] = shard
    if sources.pictures is not None:
        for relative, stored_tensors in sources.pictures.files.items():
            narrow = options.narrow and relative.startswith("transformer")
            files[f"image_decoder/{relative}"] = [_placed(name, stored, narrow) for name, stored in stored_tensors.items()]
    return files


def _placed(name: str, stored: Stored, narrow: bool) -> Placed:
    shape = tuple(size for size in stored.shape if size != 1) if name == "query_token" else stored.shape
    return Placed(name, stored, "BF16" if narrow and stored.dtype in FLOATS else stored.dtype, shape)


def _shards(placed: Sequence[Placed]) -> list[list[Placed]]:
    shards: list[list[Placed]] = [[]]
    size = 0
    for tensor in placed:
        if shards[-1] and size + tensor.length > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.length
    return shards


def _write_vocoders(target: Path, archives: Mapping[str, Archive], record: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    for component, archive in archives.items():
        relative = f"{component}/model.safetensors"
        if relative in record["files"] and (target / relative).is_file():
            continue
        (target / component).mkdir(parents=True, exist_ok=True)
        partial = target / f"{relative}.partial"
        save_file(read_weights(archive, component), partial)
        record["files"][relative] = sha256_of(partial)
        partial.replace(target / relative)
        _save(target, record)


def _write_configs(target: Path, sources: Sources, options: Options) -> None:
    configs = dict(sources.configs) | {name: archive.config for name, archive in sources.archives.items()}
    if options.narrow:  # the engine goes by what the config says, not by what it finds
        backbone = {name: value for name, value in configs["backbone"].items() if name != "torch_dtype"}
        configs["backbone"] = backbone | {"dtype": "bfloat16"}
    for component, config in configs.items():
        _write_json(target / component / "config.json", config)
    if sources.pictures is not None:
        for relative in sources.pictures.documents:
            (target / "image_decoder" / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(sources.pictures.folder / relative, target / "image_decoder" / relative)
        decoder = {
            "pixels": options.picture_pixels,
            "multiple": sources.pictures.multiple,
            "steps": options.picture_steps,
            "guidance": options.picture_guidance if sources.pictures.guided else 0.0,
        }
        _write_json(target / "image_decoder" / "decoder.json", decoder)


def _write_backbone(target: Path, published: Published, shards: list[str], files: Mapping[str, list[Placed]]) -> None:
    folder = target / "backbone"
    for name in TOKENIZER_FILES:
        if (published.folder / name).is_file():
            shutil.copyfile(published.folder / name, folder / name)
    template = published.document("tokenizer_config.json").get("chat_template")
    if not (folder / "chat_template.jinja").is_file():
        if not isinstance(template, str):
            raise CheckpointError("the published folder has no chat_template.jinja and no template in tokenizer_config.json")
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    generation = published.document("generation_config.json")
    _write_json(folder / "generation_config.json", {**generation, "eos_token_id": turn_ends(published, generation)})
    if len(shards) > 1:
        places = {tensor.name: shard.removeprefix("backbone/") for shard in shards for tensor in files[shard]}
        size = sum(tensor.length for shard in shards for tensor in files[shard])
        _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": places})


def _open_record(target: Path, sources: Sources, options: Options) -> dict[str, Any]:
    """The record of an earlier run of the same conversion, or a new one. Raises CheckpointError where DST holds another."""
    record = {
        "source": _fingerprint(sources),
        "options": asdict(options),
        "files": {},
        "used": {name: len(tensors) for name, tensors in sources.plan.used.items()},
        "left_out": sources.plan.left_out,
    }
    path = target / RECORD
    if path.is_file():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        for name, words in (("source", "another checkpoint"), ("options", "other options")):
            if earlier.get(name) != record[name]:
                raise CheckpointError(f"`{target}` holds a conversion of {words}; expected an empty folder or the same one")
        record["files"] = earlier["files"]
    elif target.exists() and any(target.iterdir()):
        raise CheckpointError(f"`{target}` is not empty and holds no `{RECORD}`; expected a new folder, or one to go on with")
    target.mkdir(parents=True, exist_ok=True)
    _save(target, record)
    return record


def _fingerprint(sources: Sources) -> str:
    """Of the config and of the names and sizes of all weight files: cheap, and changes when the source does."""
    files = {stored.file for stored in sources.published.tensors.values()} | {a.path for a in sources.archives.values()}
    sizes = sorted((file.name, file.stat().st_size) for file in files)
    return hashlib.sha256(json.dumps([sources.published.config, sizes], sort_keys=True).encode()).hexdigest()


def _speakers(archives: Mapping[str, Archive]) -> tuple[str, ...]:
    return archives["audio_decoder"].speakers if "audio_decoder" in archives else ()


def _hashes(files: Mapping[str, str]) -> dict[str, dict[str, str]]:
    hashes: dict[str, dict[str, str]] = {}
    for relative, digest in files.items():
        component, _, name = relative.partition("/")
        hashes.setdefault(component, {})[name] = digest
    return hashes


def _save(target: Path, record: Mapping[str, Any]) -> None:
    partial = target / f"{RECORD}.partial"
    partial.write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
    partial.replace(target / RECORD)


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
