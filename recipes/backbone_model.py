"""Training step: the language model of the checkpoint and its export as a plain Llama folder. Knows no data."""

import json
import shutil
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from recipes.domain import cache_folder
from recipes.tokenizer import corpus, train_tokenizer, write_folder

EMBEDDED = Path(__file__).parent.parent / "omni_server" / "embedded"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
VOCABULARY_MULTIPLE = 64
EMBEDDING_DEVIATION = 0.25
GENERATION = {"do_sample": True, "temperature": 0.2, "top_p": 0.9}


def load_tokenizer() -> PreTrainedTokenizerBase:
    """The tokenizer in the cache, trained when it is first asked for."""
    folder = cache_folder() / "backbone" / "tokenizer"
    if not (folder / "chat_template.jinja").exists():
        write_folder(train_tokenizer(corpus()), folder)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return tokenizer


def new_model(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """Random weights; the rows above the tokenizer's last id are padding and never trained.

    The embeddings are not tied to the head and start large: tied ones were all pushed the same way by the softmax, until
    rare tokens such as names could hardly be told apart, and prompts were ignored.
    """
    config = LlamaConfig(
        vocab_size=-(-len(tokenizer) // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=1024,
        rope_theta=10_000.0,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="eager",  # of short sequences on a CPU a fifth faster to train than "sdpa"
    )
    model = LlamaForCausalLM(config)
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=EMBEDDING_DEVIATION)
    return model


def export_backbone(model: LlamaForCausalLM, weights: dict[str, Tensor], folder: Path) -> None:
    """Half floats; `weights` may be an average over training steps."""
    folder.mkdir(parents=True, exist_ok=True)
    half = LlamaForCausalLM(model.config)
    half.load_state_dict(weights)
    half.half().save_pretrained(folder)
    generation = {**GENERATION, "eos_token_id": model.config.eos_token_id, "pad_token_id": model.config.pad_token_id}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=1) + "\n", encoding="utf-8")
    for name in TOKENIZER_FILES:
        shutil.copy(cache_folder() / "backbone" / "tokenizer" / name, folder / name)


if __name__ == "__main__":
    torch.manual_seed(1)
    untrained = new_model(load_tokenizer())
    export_backbone(untrained, untrained.state_dict(), EMBEDDED / "backbone")
