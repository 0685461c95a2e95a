"""`convert`: the published layout in miniature becomes a checkpoint of ours, and what must not be converted is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from omni_server.checkpoint import read_checkpoint
from omni_server.cli import main
from omni_server.conversion.convert import Options, convert
from omni_server.conversion.published import read_commented
from omni_server.errors import CheckpointError
from omni_server.types import Modality
from tests.conversion.miniature import write_archive, write_published

OPTIONS = Options(picture_pixels=64 * 64, picture_steps=2, name="omni-miniature")


def quiet(total: int) -> Callable[[int], None]:
    return lambda done: None


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_published(tmp_path_factory.mktemp("published") / "seed")


@pytest.fixture(scope="module")
def converted(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By the command itself."""
    target = tmp_path_factory.mktemp("converted") / "omni"
    flags = ["--picture-pixels", str(64 * 64), "--picture-steps", "2", "--name", "omni-miniature"]
    assert main(["convert", str(published), str(target), *flags]) == 0
    return target


def test_the_checkpoint_is_whole(published: Path, converted: Path) -> None:
    """Would catch a component, a band or a voice that is lost on the way, and hashes that do not hold."""
    checkpoint = read_checkpoint(converted)
    assert checkpoint.name == "omni-miniature"
    assert checkpoint.modalities_out == {Modality.TEXT, Modality.IMAGE, Modality.AUDIO}
    assert checkpoint.bands[Modality.AUDIO].size == 243 and checkpoint.bands[Modality.IMAGE].size == 128
    assert checkpoint.image is not None and (checkpoint.image.codes, len(checkpoint.image.ratios)) == (729, 13)
    assert checkpoint.voices == ("fkms", "mhwj", "fphj")
    config = read_commented(published / "config.json")
    assert checkpoint.bands[Modality.AUDIO].first == config["discrete_audio_unit_0_id"]


def test_every_tensor_is_accounted_for_and_unchanged(published: Path, converted: Path) -> None:
    """Would catch a tensor that vanishes without a word, or numbers that change when nothing asked for it."""
    record = json.loads((converted / "conversion.json").read_text(encoding="utf-8"))
    sources: dict[str, torch.Tensor] = {}
    for shard in published.glob("model-*.safetensors"):
        sources |= load_file(shard)
    assert sum(record["used"].values()) + len(record["left_out"]) == len(sources)
    assert all(record["left_out"].values())
    with safe_open(converted / "image_encoder" / "model.safetensors", "pt") as file:
        name = "blocks.1.attn.qkv.weight"
        assert torch.equal(file.get_tensor(f"vision_model.{name}"), sources[f"model.vision_model.{name}"])
    with safe_open(converted / "backbone" / "model.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("lm_head.weight"), sources["model.language_model.lm_head.weight"])


def test_a_refusal_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch a traceback where a mistyped path deserves a sentence."""
    assert main(["convert", str(tmp_path / "none"), str(tmp_path / "omni")]) == 2
    assert capsys.readouterr().err.startswith("omni-server: `")


def test_narrowing_leaves_the_codes_alone(published: Path, tmp_path: Path) -> None:
    """Would catch code networks in bfloat16, which choose other codes, and an option that narrows nothing."""
    convert(published, tmp_path / "omni", replace(OPTIONS, narrow=True), quiet)
    kinds = {}
    for component in ("backbone", "image_encoder", "audio_encoder", "image_codebook", "audio_codebook", "audio_decoder"):
        tensors = load_file(tmp_path / "omni" / component / "model.safetensors")
        kinds[component] = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    assert kinds.pop("image_codebook") == kinds.pop("audio_codebook") == kinds.pop("audio_decoder") == {torch.float32}
    assert set.union(*kinds.values()) == {torch.bfloat16}


def test_goes_on_where_it_stopped(published: Path, tmp_path: Path) -> None:
    """Would catch a run that starts over, or that trusts a half-written file."""
    target = tmp_path / "omni"

    class Stopped(Exception):
        pass

    def stops(total: int) -> Callable[[int], None]:
        left = [total // 3]

        def step(done: int) -> None:
            left[0] -= done
            if left[0] < 0:
                raise Stopped

        return step

    with pytest.raises(Stopped):
        convert(published, target, OPTIONS, stops)
    with pytest.raises(CheckpointError, match=r"omni\.json"):
        read_checkpoint(target)
    done = json.loads((target / "conversion.json").read_text(encoding="utf-8"))["files"]
    times = {name: (target / name).stat().st_mtime_ns for name in done}
    assert done and list(target.rglob("*.partial"))
    convert(published, target, OPTIONS, quiet)
    assert times == {name: (target / name).stat().st_mtime_ns for name in done}
    assert read_checkpoint(target).modalities_in >= {Modality.IMAGE, Modality.AUDIO}
    with pytest.raises(CheckpointError, match="other options"):
        convert(published, target, replace(OPTIONS, narrow=True), quiet)


def drop_shard(root: Path) -> None:
    (root / "model-00002-of-00003.safetensors").unlink()


def cut_shard(root: Path) -> None:
    path = root / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def cut_archive(root: Path) -> None:
    path = root / "decoder" / "audio" / "NCCosybigvganDecoder.mar"
    path.write_bytes(path.read_bytes()[:-3000])


def hostile_archive(root: Path) -> None:
    path = root / "decoder" / "audio" / "NCCosybigvganDecoder.mar"
    config = {"upsample_rates": [5, 4, 4, 3, 2, 2], "num_units": 243}
    write_archive(path, config, {"generator": Path("not a weight")}, ("fkms",))


def change_tensors(root: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = root / "model-00001-of-00003.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    index = root / "model.safetensors.index.json"
    places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    places = {name: file for name, file in places.items() if file != path.name} | dict.fromkeys(tensors, path.name)
    index.write_text(json.dumps({"weight_map": places}), encoding="utf-8")


def misshapen(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name in tensors if name.endswith("mlp.down_proj.weight") and "language" in name)
    tensors[name] = torch.zeros(3, 5)


def edit_config(root: Path, old: str, new: str) -> None:
    path = root / "config.json"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (drop_shard, "lacks 1 of 3 shards"),
        (cut_shard, "cut short"),
        (cut_archive, "cut short"),
        (hostile_archive, "more than weights"),
        (lambda root: change_tensors(root, misshapen), r"`\[3, 5\]`"),
        (lambda root: change_tensors(root, lambda t: t.update({"model.nose.weight": torch.zeros(1)})), "none of the expected"),
        (lambda root: change_tensors(root, lambda t: t.pop(next(n for n in t if "audio_model" in n))), "1 tensors missing"),
        (lambda root: edit_config(root, '"llama"', '"gpt2"'), "`gpt2`; expected `llama`"),
        (lambda root: edit_config(root, '"ta_tok"', '"vqgan"'), "`vqgan`; expected `ta_tok`"),
        (lambda root: edit_config(root, '"discrete_audio_unit_0_id": ', '"discrete_audio_unit_0_id": 9'), "the tokenizer has"),
        (lambda root: edit_config(root, '"depth": 2', '"depth": 3'), "image_encoder"),
        (lambda root: (root / "config.json").write_text("{,}"), "cannot be read as JSON"),
        (lambda root: (root / "config.json").unlink(), "is missing"),
        (lambda root: (root / "decoder/vision/vae/config.json").write_text("{}"), "vae"),
    ],
)
def test_what_must_not_be_converted_is_refused(
    published: Path, tmp_path: Path, spoil: Callable[[Path], Any], words: str
) -> None:
    """Would catch a damaged or foreign checkpoint that is converted, or refused without the reason, or after hours."""
    source = tmp_path / "seed"
    shutil.copytree(published, source)
    spoil(source)
    with pytest.raises(CheckpointError, match=words):
        convert(source, tmp_path / "omni", OPTIONS, quiet)
    assert not (tmp_path / "omni" / "omni.json").exists()
