"""The checkpoint format: reads and verifies `omni.json`, token bands and component folders. Loads no weights.

A checkpoint is a folder: `omni.json` beside one folder per component (see COMPONENTS). A component that is absent means that
its modality is off. `omni.json` holds facts of the checkpoint only; deployment settings are in config.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omni_server.dialect import Dialect, read_dialect, read_prompts
from omni_server.draft import draft_tokens
from omni_server.errors import CheckpointError
from omni_server.types import Band, Modality

FORMAT = "omni-checkpoint"
VERSION = 1
COMPONENTS = (
    "backbone",
    "backbone_draft",
    "image_encoder",
    "image_codebook",
    "image_decoder",
    "audio_encoder",
    "audio_codebook",
    "sound_compressor",
    "audio_decoder",
    "voice_cloner",
)


@dataclass(frozen=True, slots=True)
class ImageGrid:
    """How a picture's codes stand in the token stream: ratio, `rows` lines of `columns` codes, each closed, a frame end."""

    rows: int
    columns: int
    ratios: Mapping[str, int]
    end_of_line: int
    end_of_frame: int

    @property
    def codes(self) -> int:
        return self.rows * self.columns


@dataclass(frozen=True, slots=True)
class Pads:
    """Ids that stand for media in a rendered chat template, before they are expanded."""

    image: int | None = None
    discrete_image: int | None = None
    audio: int | None = None
    discrete_audio: int | None = None
    video: int | None = None
    video_audio: int | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified checkpoint. `folders` maps each component that is present to its folder; `prompts` maps what is asked for to
    a language to a wording, see PROMPT_SLOTS; `draft_tokens` is how many tokens are drafted at a time where nobody says;
    `turns` is how many turns of a person a live conversation shows it at a time, 0 for as many as its context holds."""

    name: str
    root: Path
    folders: Mapping[str, Path]
    text_ranges: tuple[tuple[int, int], ...]
    bands: Mapping[Modality, Band]
    pads: Pads
    image: ImageGrid | None
    sample_rate: int
    units_per_second: int
    voices: tuple[str, ...]
    prompts: Mapping[str, Mapping[str, str]]
    vocabulary: int
    context_length: int
    dialect: Dialect = field(default_factory=Dialect)
    draft_tokens: int = 0
    turns: int = 0

    @property
    def modalities_in(self) -> frozenset[Modality]:
        return self._modalities("encoder")

    @property
    def modalities_out(self) -> frozenset[Modality]:
        return self._modalities("decoder")

    @property
    def clones_voices(self) -> bool:
        """Whether it speaks with the voice of a recording."""
        return "voice_cloner" in self.folders

    def _modalities(self, direction: str) -> frozenset[Modality]:
        media = {m for m in (Modality.IMAGE, Modality.AUDIO) if f"{m}_{direction}" in self.folders}
        if direction == "encoder" and Modality.IMAGE in media and self.pads.video is not None:
            media.add(Modality.VIDEO)
        return frozenset(media | {Modality.TEXT})


def read_checkpoint(root: Path, *, verify_hashes: bool = True) -> Checkpoint:
    """Read and verify the checkpoint at `root`.

    Raises CheckpointError: no or malformed omni.json, unknown format or version, missing component, wrong hash, bands that
    overlap or do not fit the vocabulary, tokens that the tokenizer does not have, a draft that does not fit the backbone.
    """
    facts = read_json(root / "omni.json")
    _check_version(facts, root)
    folders = _component_folders(facts, root)
    if verify_hashes:
        _check_hashes(facts, root)
    backbone = read_json(root / "backbone" / "config.json")
    vocabulary = _integer(backbone, "vocab_size", "backbone/config.json")
    tokens = token_ids(root / "backbone" / "tokenizer.json")
    bands = _bands(facts, tokens)
    text_ranges = tuple((int(first), int(size)) for first, size in _field(facts, "text_ranges", list))
    _check_bands(bands, text_ranges, vocabulary)
    audio = facts.get("audio", {})
    return Checkpoint(
        name=str(_field(facts, "name", str)),
        root=root,
        folders=folders,
        text_ranges=text_ranges,
        bands=bands,
        pads=Pads(**{key: _token(tokens, value, f"pads.{key}") for key, value in facts.get("pads", {}).items()}),
        image=_image_grid(facts, tokens, folders),
        sample_rate=int(audio.get("sample_rate", 24000)),
        units_per_second=int(audio.get("units_per_second", 25)),
        voices=_voices(folders),
        prompts=read_prompts(facts),
        vocabulary=vocabulary,
        context_length=_integer(backbone, "max_position_embeddings", "backbone/config.json"),
        dialect=read_dialect(facts),
        draft_tokens=draft_tokens(folders["backbone_draft"], backbone) if "backbone_draft" in folders else 0,
        turns=_integer(facts, "turns", "omni.json") if "turns" in facts else 0,
    )


def write_hashes(root: Path, facts: dict[str, Any]) -> None:
    """Write `omni.json` at `root` from `facts`, with the components found there and the SHA-256 of each weight file."""
    hashes = {}
    for name in COMPONENTS:
        weights = sorted((root / name).rglob("*.safetensors")) if (root / name).is_dir() else []
        if weights:
            hashes[name] = {file.relative_to(root / name).as_posix(): sha256_of(file) for file in weights}
    write_facts(root, facts, hashes)


def write_facts(root: Path, facts: Mapping[str, Any], hashes: Mapping[str, Mapping[str, str]]) -> None:
    """Write `omni.json` where the hashes of the components' weight files are known."""
    document = {"format": FORMAT, "version": VERSION, **facts, "components": {n: hashes[n] for n in COMPONENTS if n in hashes}}
    (root / "omni.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def sha256_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"`{path}` is missing; expected a checkpoint folder with `{path.name}`") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"`{path}` cannot be read as JSON: {error}") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"`{path}` holds a JSON {type(document).__name__}; expected an object")
    return document


def _field(facts: Mapping[str, Any], name: str, kind: type) -> Any:
    value = facts.get(name)
    if not isinstance(value, kind):
        raise CheckpointError(f"omni.json: `{name}` is `{value!r}`; expected a {kind.__name__}")
    return value


def _integer(document: Mapping[str, Any], name: str, where: str) -> int:
    value = document.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise CheckpointError(f"{where}: `{name}` is `{value!r}`; expected a non-negative integer")
    return value


def _check_version(facts: Mapping[str, Any], root: Path) -> None:
    if facts.get("format") != FORMAT:
        raise CheckpointError(f"`{root}`: format is `{facts.get('format')}`; expected `{FORMAT}`")
    if facts.get("version") != VERSION:
        raise CheckpointError(f"`{root}`: version is `{facts.get('version')}`; this server reads version `{VERSION}`")


def _component_folders(facts: Mapping[str, Any], root: Path) -> dict[str, Path]:
    named = _field(facts, "components", dict)
    unknown = sorted(set(named) - set(COMPONENTS))
    if unknown:
        raise CheckpointError(f"omni.json: unknown component `{unknown[0]}`; expected one of {', '.join(COMPONENTS)}")
    if "backbone" not in named:
        raise CheckpointError("omni.json: `components` has no `backbone`; a checkpoint cannot do without")
    for name in named:
        if not (root / name).is_dir():
            raise CheckpointError(f"component `{name}` is listed in omni.json, but the folder `{root / name}` is missing")
    for medium in ("image", "audio"):
        pair = [f"{medium}_{part}" in named for part in ("encoder", "codebook")]
        if any(pair) and not all(pair):
            raise CheckpointError(f"omni.json: `{medium}_encoder` and `{medium}_codebook` come together; only one is listed")
    return {name: root / name for name in COMPONENTS if name in named}


def _check_hashes(facts: Mapping[str, Any], root: Path) -> None:
    for name, files in facts["components"].items():
        for file, expected in files.items():
            path = (root / name / file).resolve()
            if not path.is_relative_to((root / name).resolve()) or path.suffix != ".safetensors":
                raise CheckpointError(f"omni.json: `{name}/{file}` is not a safetensors file inside its component")
            if not path.is_file():
                raise CheckpointError(f"weight file `{path}` is missing")
            found = sha256_of(path)
            if found != expected:
                raise CheckpointError(f"weight file `{path}`: SHA-256 is `{found}`; omni.json says `{expected}`")


def token_ids(path: Path) -> dict[str, int]:
    document = read_json(path)
    tokens = dict(document.get("model", {}).get("vocab", {}))
    tokens.update({added["content"]: added["id"] for added in document.get("added_tokens", [])})
    return tokens


def _token(tokens: Mapping[str, int], name: Any, where: str) -> int:
    if name not in tokens:
        raise CheckpointError(f"omni.json: `{where}` names the token `{name}`, which the tokenizer does not have")
    return tokens[name]


def _bands(facts: Mapping[str, Any], tokens: Mapping[str, int]) -> dict[Modality, Band]:
    bands: dict[Modality, Band] = {}
    for number, row in enumerate(_field(facts, "bands", list)):
        where = f"bands[{number}]"
        try:
            modality = Modality(row["modality"])
            first, size = int(row["first"]), int(row["size"])
            opens, closes = row["open"], row["close"]
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"omni.json: `{where}` is malformed: {error!r}") from None
        if modality in bands or modality is Modality.TEXT:
            raise CheckpointError(f"omni.json: `{where}`: modality `{modality}` cannot have (another) band")
        bands[modality] = Band(
            modality, first, size, _token(tokens, opens, f"{where}.open"), _token(tokens, closes, f"{where}.close")
        )
    return bands


def _check_bands(bands: Mapping[Modality, Band], text: tuple[tuple[int, int], ...], vocabulary: int) -> None:
    ranges = [(band.first, band.size, str(band.modality)) for band in bands.values()]
    ranges += [(first, size, "text") for first, size in text]
    end, previous = 0, "the start"
    for first, size, name in sorted(ranges):
        if size < 1 or first < end:
            raise CheckpointError(f"omni.json: band `{name}` ({first}, size {size}) overlaps {previous}, which ends at `{end}`")
        end, previous = first + size, f"band `{name}`"
    if end > vocabulary:
        raise CheckpointError(f"omni.json: {previous} ends at `{end}`; the backbone's vocabulary has `{vocabulary}` ids")
    for band in bands.values():
        for marker in (band.open, band.close):
            if any(first <= marker < first + size for first, size, _ in ranges):
                raise CheckpointError(f"omni.json: marker id `{marker}` of band `{band.modality}` lies inside a band")


def _image_grid(facts: Mapping[str, Any], tokens: Mapping[str, int], folders: Mapping[str, Path]) -> ImageGrid | None:
    if not {"image_codebook", "image_decoder"} & set(folders):
        return None
    image = _field(facts, "image", dict)
    ratios = image.get("ratios") or {}
    if not ratios:
        raise CheckpointError("omni.json: `image.ratios` is empty; expected at least one ratio and its token")
    return ImageGrid(
        rows=_integer(image, "rows", "omni.json: image"),
        columns=_integer(image, "columns", "omni.json: image"),
        ratios={ratio: _token(tokens, token, f"image.ratios.{ratio}") for ratio, token in ratios.items()},
        end_of_line=_token(tokens, image.get("end_of_line"), "image.end_of_line"),
        end_of_frame=_token(tokens, image.get("end_of_frame"), "image.end_of_frame"),
    )


def _voices(folders: Mapping[str, Path]) -> tuple[str, ...]:
    if "audio_decoder" not in folders:
        return ()
    config = read_json(folders["audio_decoder"] / "config.json")
    return tuple(str(name) for name in config.get("speakers", ()))
