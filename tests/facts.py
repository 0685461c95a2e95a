"""A miniature checkpoint on disk, without weights that mean anything: for tests of what reads facts only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from omni_server.checkpoint import write_hashes

MARKERS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|image_start|>",
    "<|image_end|>",
    "<|IMAGE_PAD|>",
    "<|DISCRETE_IMAGE_PAD|>",
    "<|audio_start|>",
    "<|audio_end|>",
    "<|AUDIO_PAD|>",
    "<|DISCRETE_AUDIO_PAD|>",
    "<|discrete_image_start|>",
    "<|discrete_image_end|>",
    "<|discrete_audio_start|>",
    "<|discrete_audio_end|>",
    "<|ratio_1:1|>",
    "<|ratio_2:1|>",
    "<|eol|>",
    "<|eof|>",
)
AUDIO_CODES, IMAGE_CODES, ROWS, COLUMNS = 12, 10, 2, 3
TEMPLATE = r"""
{%- for m in messages -%}
{{- '<|im_start|>' ~ m.role ~ '\n' -}}
{%- for part in m.content -%}
{%- if part.type == 'text' -%}{{- part.text -}}
{%- elif part.type == 'image' -%}
{{- '<|discrete_image_start|><|DISCRETE_IMAGE_PAD|><|discrete_image_end|>' -}}
{{- '<|image_start|><|IMAGE_PAD|><|image_end|>' -}}
{%- else -%}
{{- '<|discrete_audio_start|><|DISCRETE_AUDIO_PAD|><|discrete_audio_end|>' -}}
{{- '<|audio_start|><|AUDIO_PAD|><|audio_end|>' -}}
{%- endif -%}
{%- endfor -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}
"""


def write_tokenizer(folder: Path) -> dict[str, int]:
    """A byte-level tokenizer: 256 text ids, then markers, audio codes and image codes. Returns name -> id."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = [*MARKERS, *(f"<|a{n}|>" for n in range(AUDIO_CODES)), *(f"<|v{n}|>" for n in range(IMAGE_CODES))]
    tokenizer.add_special_tokens(names)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return {name: tokenizer.token_to_id(name) for name in names}


def write_checkpoint(root: Path, prompts: Mapping[str, Mapping[str, str]] | None = None) -> dict[str, Any]:
    """Writes the miniature at `root` and returns the facts that went into its omni.json."""
    ids = write_tokenizer(root / "backbone")
    (root / "backbone" / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    config = {"vocab_size": 320, "max_position_embeddings": 200, "hidden_size": 8}
    (root / "backbone" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in ("backbone", "image_encoder", "image_codebook", "image_decoder", "audio_encoder", "audio_codebook"):
        (root / name).mkdir(exist_ok=True)
        (root / name / "model.safetensors").write_bytes(name.encode())
    (root / "audio_decoder").mkdir()
    (root / "audio_decoder" / "model.safetensors").write_bytes(b"voice")
    (root / "audio_decoder" / "config.json").write_text(json.dumps({"speakers": ["mint"]}), encoding="utf-8")
    facts = {
        "name": "miniature",
        "text_ranges": [[0, 256]],
        "bands": [
            {
                "modality": "audio",
                "first": ids["<|a0|>"],
                "size": AUDIO_CODES,
                "open": "<|discrete_audio_start|>",
                "close": "<|discrete_audio_end|>",
            },
            {
                "modality": "image",
                "first": ids["<|v0|>"],
                "size": IMAGE_CODES,
                "open": "<|discrete_image_start|>",
                "close": "<|discrete_image_end|>",
            },
        ],
        "pads": {
            "image": "<|IMAGE_PAD|>",
            "discrete_image": "<|DISCRETE_IMAGE_PAD|>",
            "audio": "<|AUDIO_PAD|>",
            "discrete_audio": "<|DISCRETE_AUDIO_PAD|>",
        },
        "image": {
            "rows": ROWS,
            "columns": COLUMNS,
            "ratios": {"1:1": "<|ratio_1:1|>", "2:1": "<|ratio_2:1|>"},
            "end_of_line": "<|eol|>",
            "end_of_frame": "<|eof|>",
        },
        "audio": {"sample_rate": 24000, "units_per_second": 25},
        "prompts": {
            "speech": {"en": "say {input}"},
            "transcription": {"en": "write it down", "ko": "적어줘"},
            **(prompts or {}),
        },
    }
    write_hashes(root, facts)
    return facts
