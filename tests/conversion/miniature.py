"""A published checkpoint in miniature: every name and file of the real layout, small sizes, random weights.

Its tensors are named by omni_8b.manifest, not by our modules. The backbone's weights are a table of which token follows
which, with noise, so that a random model still says something: after a line break a voice, else a picture, else `ok`.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

GOLDEN = Path(__file__).parents[1] / "golden"
MANIFEST = Path(__file__).parent / "omni_8b.manifest"
AUDIO_CODES, IMAGE_CODES, HIDDEN, SIDE = 243, 128, 64, 27
STRUCTURE = (
    "<|im_start|>", "<|im_end|>", "<|endofturn|>", "<|stop|>", "<|mime_start|>", "<|mime_end|>", "<|image_start|>",
    "<|image_end|>", "<|video_start|>", "<|video_end|>", "<|audio_start|>", "<|audio_end|>", "<|discrete_image_start|>",
    "<|discrete_image_end|>", "<|discrete_audio_start|>", "<|discrete_audio_end|>", "<|video_aux_start|>", "<|video_aux_end|>",
    "<|audio_aux_start|>", "<|audio_aux_end|>", "<|video_meta_duration|>", "<|audio_meta_duration|>", "<|vision_eol|>",
    "<|vision_eof|>", "<|IMAGE_PAD|>", "<|VIDEO_PAD|>", "<|DISCRETE_IMAGE_PAD|>", "<|VIDEO_AUDIO_PAD|>", "<|AUDIO_PAD|>",
    "<|DISCRETE_AUDIO_PAD|>",
)  # fmt: skip
RATIOS = ("1:1", "1:2", "2:1", "3:4", "4:3", "3:5", "5:3", "4:5", "5:4", "6:9", "9:6", "9:16", "16:9")
TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
# Published size -> size here, by prefix; the counts of layers shrink too.
LAYERS = {"36": "2", "32": "2", "27": "3", "6": "2", "3": "1"}
SIZES: dict[str, dict[int, int]] = {
    "model.language_model.": {4096: HIDDEN, 1024: 32, 12288: 96},
    "model.vision_model.": {1280: 32, 3840: 96, 3456: 48, 5120: 128},
    "model.mm_projector.": {4096: HIDDEN, 5120: 128},
    "model.discrete_vision_model.": {
        1152: 32, 3456: 96, 4304: 48, 1536: 16, 65536: IMAGE_CODES, 14: 2, 729: SIDE * SIDE, 3072: 40, 256: 16,
    },
    "model.audio_model.": {1280: 32, 5120: 64, 1500: 250, 128: 16},
    "model.audio_projector.": {1280: 32, 4096: HIDDEN},
    "model.discrete_audio_model.": {1280: 32, 5120: 128, 128: 16, 8: 5},
    "model.video_audio_compressor.": {4096: HIDDEN, 3072: 32, 6144: 64, 6400: 80, 12640: 148, 96: 4},
}  # fmt: skip
CONFIG = """{
  # what the published file may look like: comments, and legacy names that hold pad ids
  "model_type": "vlm",
  "text_config": {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 32, "intermediate_size": 96, "vocab_size": %(vocabulary)d,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-05, "tie_word_embeddings": false, "bos_token_id": null,
    "eos_token_id": %(end)d, "rope_parameters": {"rope_type": "default", "rope_theta": 5000000.0}},
  "vision_config": {"model_type": "qwen2_5_vl_visual", "depth": 2, "hidden_size": 32, "num_heads": 2,
    "intermediate_size": 48, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112,
    "fullatt_block_indexes": [1], "out_hidden_size": 128, "tokens_per_second": 2, "in_channels": 3},
  "audio_config": {"model_type": "qwen2_audio_encoder", "num_mel_bins": 16, "d_model": 32, "encoder_layers": 2,
    "encoder_attention_heads": 2, "encoder_ffn_dim": 64, "max_source_positions": 250},
  "discrete_vision_config": {"model_type": "ta_tok", "args": {"select_layer_id": -2, "input_size": 55},
    "vision_config": {"num_attention_heads": 2}},
  "discrete_audio_config": {"model_type": "cosyvoice2", "n_audio_head": 1},  # "#" in here is no comment
  "mm_projector_type": "linear", "audio_projector_type": "mlp", "video_audio_compressor_type": "mambamia",
  "img_start_id": %(pad)d,
  "discrete_audio_unit_0_id": %(audio)d, "discrete_image_unit_0_id": %(vision)d
}
"""
TEMPLATE = r"""
{%- set count = namespace(image=0, video=0, audio=0) -%}
{%- if tools -%}
{{- '<|im_start|>system\n' -}}
{%- if messages[0].role == 'system' -%}{{- messages[0].content ~ '\n' -}}{%- endif -%}
{{- 'Tools: ' -}}{%- for tool in tools -%}{{- tool | tojson -}}{%- endfor -%}{{- '<|im_end|>\n' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'system' and tools and loop.first -%}{%- continue -%}{%- endif -%}
{{- '<|im_start|>' ~ message.role ~ '\n' -}}
{%- if message.role != 'user' -%}
{{- message.content if message.content -}}
{%- for call in message.tool_calls or [] -%}
{{- '<tool_call>' ~ call.function.name ~ '\n' -}}
{%- for key, value in call.function.arguments.items() -%}
{{- '<arg_key>' ~ key ~ '</arg_key>\n<arg_value>' ~ value ~ '</arg_value>\n' -}}
{%- endfor -%}{{- '</tool_call>' -}}
{%- endfor -%}
{%- elif message.content is string -%}{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{{- '\n' if not loop.first -}}
{%- if part.type == 'text' -%}{{- part.text -}}
{%- elif part.type == 'input_audio' -%}
{{- '<|mime_start|>{"id": "audio_%02d", "type": "audio/mpeg"}<|mime_end|>\n' % count.audio -}}
{%- set count.audio = count.audio + 1 -%}
{{- '<|audio_aux_start|>{"audio_duration": "<|audio_meta_duration|>"}<|audio_aux_end|>\n' -}}
{{- '<|discrete_audio_start|><|DISCRETE_AUDIO_PAD|><|discrete_audio_end|>\n<|audio_start|><|AUDIO_PAD|><|audio_end|>' -}}
{%- elif part.image_url.url.endswith('.mp4') -%}
{{- '<|video_aux_start|>{"video_duration": "<|video_meta_duration|>"}<|video_aux_end|>\n' -}}
{{- '<|video_start|><|VIDEO_PAD|><|video_end|>' -}}
{%- else -%}
{{- '<|mime_start|>{"id": "image_%02d", "type": "image/jpeg"}<|mime_end|>\n' % count.image -}}
{%- set count.image = count.image + 1 -%}
{{- '<|discrete_image_start|><|DISCRETE_IMAGE_PAD|><|discrete_image_end|>\n<|image_start|><|IMAGE_PAD|><|image_end|>' -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\n<think>\n' -}}{%- if skip_reasoning is true -%}{{- '\n</think>\n\n' -}}{%- endif -%}
{%- endif -%}
"""


def write_published(root: Path, shards: int = 3) -> Path:
    """Writes the whole folder and returns it."""
    torch.manual_seed(1)
    root.mkdir(parents=True)
    ids = write_tokenizer(root)
    vocabulary = 256 + len(ids) + 5  # rows beyond the tokenizer, as padded tables have
    facts = {
        "vocabulary": vocabulary,
        "end": ids["<|im_end|>"],
        "pad": ids["<|IMAGE_PAD|>"],
        "audio": ids["<|audio0000|>"],
        "vision": ids["<|vision00000|>"],
    }
    (root / "config.json").write_text(CONFIG % facts, encoding="utf-8")
    (root / "chat_template.jinja").write_text(TEMPLATE.strip(), encoding="utf-8")
    (root / "generation_config.json").write_text(json.dumps({"eos_token_id": ids["<|im_end|>"]}), encoding="utf-8")
    (root / "preprocessor_config.json").write_text(json.dumps({"min_pixels": 3136, "max_pixels": 50176}), encoding="utf-8")
    write_shards(root, published_tensors(ids, vocabulary), shards)
    write_picture_decoder(root / "decoder" / "vision")
    write_archives(root / "decoder" / "audio")
    return root


def write_tokenizer(folder: Path) -> dict[str, int]:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    structure = [*STRUCTURE, *(f"<|vision_ratio_{ratio}|>" for ratio in RATIOS)]
    units = [f"<|audio{code:04d}|>" for code in range(AUDIO_CODES + 1)]  # one to spare, as published
    units += [f"<|vision{code:05d}|>" for code in range(IMAGE_CODES)]
    tokenizer.add_special_tokens(structure)
    tokenizer.add_tokens([AddedToken(name, normalized=False, special=False) for name in (*TAGS, *units)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return {name: tokenizer.token_to_id(name) for name in (*structure, *TAGS, *units)}


def published_tensors(ids: dict[str, int], vocabulary: int) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    prefix = ""
    for line in MANIFEST.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            prefix = line[1 : line.index("]")]
        if not line or line[0] in "[#" or prefix not in SIZES:
            continue
        name, sizes = line.split()
        smaller = SIZES[prefix] | {200704: vocabulary}
        shape = [smaller.get(int(size), int(size)) for size in sizes.split(",")]
        repeated = re.search(r"\{(\d+)\}", name)
        for number in range(int(LAYERS[repeated[1]]) if repeated else 1):
            tensors[prefix + re.sub(r"\{\d+\}", str(number), name)] = random_tensor(name, shape)
    embeddings, head = token_table(ids, vocabulary)
    tensors["model.language_model.model.embed_tokens.weight"] = embeddings
    tensors["model.language_model.lm_head.weight"] = head
    return tensors


def random_tensor(name: str, shape: list[int]) -> torch.Tensor:
    if "norm" in name and name.endswith("weight"):
        return torch.ones(shape)
    if name.startswith("scale_layer"):
        return torch.full(shape, 0.5)
    tensor = torch.randn(shape)
    fans = max(1, tensor.numel() // shape[0])
    small = name.endswith(("self_attn.o_proj.weight", "mlp.down_proj.weight")) and "layers" in name
    return tensor * (0.01 if small or name.endswith("bias") else fans**-0.5)


def token_table(ids: dict[str, int], vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings and a head in which `after` points to `then`, the stronger the larger the weight."""
    letter = {char: number for number, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    newline = letter["Ċ"]
    audio, end = ids["<|audio0000|>"], ids["<|im_end|>"]
    follows = [
        (newline, ids["<|discrete_audio_start|>"], 3.0),
        (newline, ids["<|discrete_image_start|>"], 2.0),
        (newline, letter["o"], 1.0),
        (letter["o"], letter["k"], 1.0),
        (letter["k"], end, 1.0),
        (ids["<|discrete_audio_start|>"], audio, 1.0),
        *((audio + code, audio + code + 1, 1.0) for code in range(30)),
        (audio + 30, ids["<|discrete_audio_end|>"], 2.0),
        (ids["<|discrete_audio_end|>"], end, 1.0),
        (ids["<|discrete_image_end|>"], end, 1.0),
    ]
    embeddings = torch.randn(vocabulary, HIDDEN)
    head = torch.randn(vocabulary, HIDDEN) * 0.05
    for after, then, weight in follows:
        head[then] += weight * embeddings[after]
    return embeddings, head


def write_shards(root: Path, tensors: dict[str, torch.Tensor], count: int) -> None:
    names = list(tensors)
    places = {}
    for number in range(count):
        file = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
        mine = names[number::count]
        save_file({name: tensors[name].contiguous() for name in mine}, root / file)
        places |= dict.fromkeys(mine, file)
    (root / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}), encoding="utf-8")


def write_picture_decoder(folder: Path) -> None:
    from diffusers import AutoencoderKL

    with safe_open(GOLDEN / "image_decoder_autoguidance.safetensors", "pt") as archive:
        config = json.loads(archive.metadata()["config"])
        weights = {name.removeprefix("weights."): archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118
    config["token_embedder"] |= {"token_length": SIDE * SIDE}
    vae = AutoencoderKL.from_config(config["vae"])
    for part in ("transformer", "transformer2", "vae", "token_embedder"):
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(config[part]), encoding="utf-8")
        mine = {n.removeprefix(part + "."): t.contiguous() for n, t in weights.items() if n.startswith(part + ".")}
        state = {name: tensor.contiguous() for name, tensor in vae.state_dict().items()} if part == "vae" else mine
        save_file(state, folder / part / "diffusion_pytorch_model.safetensors")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config["scheduler"]), encoding="utf-8")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "VisionTokenToImagePipeline"}), encoding="utf-8")


def write_archives(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, golden, voices in (
        ("NCCosybigvganDecoder.mar", "vocoder_speaker_table", ("fkms", "mhwj", "fphj")),
        ("NCZSCosybigvganDecoder.mar", "vocoder_zero_shot", ()),
    ):
        with safe_open(GOLDEN / f"{golden}.safetensors", "pt") as archive:
            config = json.loads(archive.metadata()["config"]) | {"num_units": AUDIO_CODES}
            keys = [key for key in archive.keys() if key.startswith("weights.")]  # noqa: SIM118
            weights = {key.removeprefix("weights."): archive.get_tensor(key) for key in keys}
        weights["unit_emb.weight"] = torch.randn(AUDIO_CODES, config["unit_emb_dim"])
        write_archive(folder / name, config, {"generator": weights}, voices)


def write_archive(path: Path, config: dict[str, Any], checkpoint: Any, voices: tuple[str, ...]) -> None:
    pickled = io.BytesIO()
    torch.save(checkpoint, pickled)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"serializedFile": "g_00000000.pt"}}))
        archive.writestr("g_00000000.pt", pickled.getvalue())
        archive.writestr("config.json", json.dumps(config))
        if voices:
            archive.writestr("spk_list.txt", "\n".join(voices) + "\n")
