"""Hugging Face folders in miniature, as `transformers` writes them: random weights, a tokenizer of numbered words."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from omni_server.checkpoint import write_hashes

WORDS = 192
SPECIAL = ("<|im_start|>", "<|im_end|>", "<|image_start|>", "<|image_end|>", "<|IMAGE_PAD|>", "<|VIDEO_PAD|>")
ID_OF = {name: number for number, name in enumerate((*(f"w{number}" for number in range(WORDS)), *SPECIAL))}
TEMPLATE = (
    "{%- for m in messages -%}<|im_start|>"
    "{%- if m.content is string -%}{{- m.content -}}{%- else -%}{%- for p in m.content -%}"
    "{%- if p.type == 'text' -%}{{- p.text -}}{%- elif p.type == 'video' -%}<|image_start|><|VIDEO_PAD|><|image_end|>"
    "{%- else -%}<|image_start|><|IMAGE_PAD|><|image_end|>{%- endif -%}"
    "{%- endfor -%}{%- endif -%}<|im_end|>{%- endfor -%}<|im_start|>"
)
TEXT: dict[str, Any] = {
    "vocab_size": WORDS + len(SPECIAL),
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": WORDS + 1,
    "pad_token_id": None,
    "initializer_range": 0.2,
}
# As the published text models have them: each a different number, so that one in another's place shows.
MUP = {"embedding_multiplier": 3.0, "residual_multiplier": 0.4, "attention_multiplier": 0.09, "logits_scaling": 0.7}


def write_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({f"w{number}": number for number in range(WORDS)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "unk_token": "w0"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


def save(model: Any, folder: Path) -> Any:
    """Writes model and tokenizer; returns the model, ready to generate."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:  # all ones would hide a norm in the wrong place
                parameter.add_(torch.rand_like(parameter) - 0.5)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return model.eval()


def text_folder(folder: Path) -> Any:
    from transformers import HyperCLOVAXConfig, HyperCLOVAXForCausalLM

    torch.manual_seed(3)
    return save(HyperCLOVAXForCausalLM(HyperCLOVAXConfig(**TEXT, **MUP, use_post_norm=True)), folder)


THOUGHT = "{%- if enable_thinking is false -%}<think>\n\n</think>\n\n{%- else -%}<think>\n{%- endif -%}"
AS_JSON = (
    '<tool_call>\n{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n</tool_call>\n'
)
KEYED = (
    "<tool_call>{{ call.function.name }}\n{%- for key, value in call.function.arguments.items() -%}"
    "{{ '\n' }}<arg_key>{{ key }}</arg_key>\n<arg_value>{{ value }}</arg_value>{%- endfor -%}{{ '\n' }}</tool_call>"
)


def calling_folder(folder: Path, call: str) -> None:
    """A text model whose tokens are letters, and whose template writes calls as `call` says, behind thoughts."""
    from transformers import HyperCLOVAXConfig, HyperCLOVAXForCausalLM

    torch.manual_seed(8)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tags = ("<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "</tool_call>")
    size = {"vocab_size": len(letters) + len(tags), "eos_token_id": len(letters) + 1, "max_position_embeddings": 2048}
    save(HyperCLOVAXForCausalLM(HyperCLOVAXConfig(**TEXT | size, **MUP)), folder)
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(tags[:2]))
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in tags[2:]])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    template = (
        "{%- if tools -%}{{- tools | tojson -}}{%- endif -%}{%- for m in messages -%}<|im_start|>{{- m.content -}}"
        f"{{%- for call in m.tool_calls or [] -%}}{call}{{%- endfor -%}}<|im_end|>{{%- endfor -%}}"
        f"{{%- if add_generation_prompt -%}}<|im_start|>{THOUGHT}{{%- endif -%}}"
    )
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def adapter_folder(folder: Path, model: Any) -> Any:
    """An adapter of the text model as PEFT writes it; returns the model with the adapter merged into it."""
    merged = copy.deepcopy(model)
    rank, alpha = 4, 8
    tensors: dict[str, torch.Tensor] = {}
    torch.manual_seed(6)
    for name, parameter in merged.named_parameters():
        if name.endswith(("q_proj.weight", "down_proj.weight")):
            down = torch.randn(rank, parameter.shape[1]) * 0.2
            up = torch.randn(parameter.shape[0], rank) * 0.2
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            tensors |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
            with torch.no_grad():
                parameter.add_(alpha / rank * up @ down)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": ["q_proj", "down_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return merged


def expert_folder(folder: Path) -> Any:
    """A mixture of experts, with a draft of one more token beside it that `transformers` does not read."""
    from transformers import ExaoneMoeConfig, ExaoneMoeForCausalLM

    torch.manual_seed(4)
    config = ExaoneMoeConfig(
        **TEXT,
        sliding_window=8,
        sliding_window_pattern=3,
        moe_intermediate_size=32,
        num_experts=4,
        num_experts_per_tok=2,
        num_shared_experts=1,
        num_nextn_predict_layers=1,
    )
    model = save(ExaoneMoeForCausalLM(config), folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    wide = {"fc.weight": torch.randn(64, 128) * 0.1, **{f"{name}.weight": torch.ones(64) for name in DRAFT_NORMS}}
    layer = {name: tensor for name, tensor in tensors.items() if name.startswith("model.layers.0.")}
    draft = wide | {name.removeprefix("model."): tensor.clone() for name, tensor in layer.items()}
    save_file(tensors | {f"mtp.{name}": tensor for name, tensor in draft.items()}, file, metadata={"format": "pt"})
    return model


DRAFT_NORMS = ("norm", "pre_fc_norm_hidden", "pre_fc_norm_embedding")


def vision_folder(folder: Path) -> Any:
    from transformers import HyperCLOVAXVisionV2Config, HyperCLOVAXVisionV2ForConditionalGeneration

    torch.manual_seed(5)
    vision = {
        "model_type": "qwen2_5_vl_vision",
        "depth": 2,
        "hidden_size": 32,
        "num_heads": 2,
        "intermediate_size": 48,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [1],
        "out_hidden_size": 96,
        "initializer_range": 0.2,
    }
    config = HyperCLOVAXVisionV2Config(
        text_config={"model_type": "hyperclovax", **TEXT, **MUP},
        vision_config=vision,
        image_token_id=WORDS + SPECIAL.index("<|IMAGE_PAD|>"),
        video_token_id=WORDS + SPECIAL.index("<|VIDEO_PAD|>"),
        tie_word_embeddings=False,
    )
    model = save(HyperCLOVAXVisionV2ForConditionalGeneration(config), folder)
    pictures = {"min_pixels": 56 * 56, "max_pixels": 28 * 28 * 64}
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures), encoding="utf-8")
    return model


def draft_beside(root: Path) -> None:
    """A random draft of the next token beside the backbone of a checkpoint of ours."""
    torch.manual_seed(7)
    config = json.loads((root / "backbone" / "config.json").read_text(encoding="utf-8"))
    folder = root / "backbone_draft"
    folder.mkdir()
    config |= {"model_type": "mtp", "architectures": ["OmniDraft"], "n_predict": 1, "num_nextn_predict_layers": 1}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    width = config["hidden_size"]
    backbone = load_file(root / "backbone" / "model.safetensors")
    first = "model.layers.0."
    tensors = {f"layer.{n.removeprefix(first)}": t.clone() for n, t in backbone.items() if n.startswith(first)}
    tensors |= {f"{name}.weight": torch.ones(width) for name in DRAFT_NORMS}
    tensors["fc.weight"] = torch.randn(width, 2 * width) * 0.1
    save_file(tensors, folder / "model.safetensors")
    facts = json.loads((root / "omni.json").read_text(encoding="utf-8"))
    write_hashes(root, {name: fact for name, fact in facts.items() if name not in ("format", "version", "components")})
