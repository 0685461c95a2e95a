"""Training step: the draft beside the backbone, one Llama block that looks a few tokens ahead. Knows no data.

`omni_server/vllm_draft.py` is the same network inside the engine; the names of the tensors are its names.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import (
    LlamaDecoderLayer,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
)

from omni_server.checkpoint import sha256_of
from omni_server.vllm_plugin import DRAFT_ARCHITECTURE, DRAFT_TYPE


class Draft(nn.Module):
    """The next token's embedding and the hidden state before it, joined, through one block: a hidden state one token on."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        self.pre_fc_norm_embedding = LlamaRMSNorm(width, eps)
        self.pre_fc_norm_hidden = LlamaRMSNorm(width, eps)
        self.fc = nn.Linear(2 * width, width, bias=False)
        self.layer = LlamaDecoderLayer(config, 0)
        self.norm = LlamaRMSNorm(width, eps)
        self.rotary = LlamaRotaryEmbedding(config)

    def begin_as(self, backbone: LlamaForCausalLM) -> None:
        """Not at random: the backbone's last block and norm, over the mean of both inputs."""
        self.layer.load_state_dict(backbone.model.layers[-1].state_dict())
        self.norm.load_state_dict(backbone.model.norm.state_dict())
        nn.init.normal_(self.fc.weight, std=0.02)
        with torch.no_grad():
            self.fc.weight += 0.5 * torch.eye(self.fc.out_features).repeat(1, 2)

    def ahead(self, hidden: Tensor, embedded: Tensor, steps: int) -> list[Tensor]:
        """Hidden states 1..`steps` tokens on, [batch, length, width] each.

        `hidden` is the backbone's at t, `embedded` the token t + 1. As in the engine, a later step goes on from the hidden
        state of the step before it, and hears the first step of every earlier place, for there the backbone has spoken since.
        """
        batch, length, _ = hidden.shape
        places = torch.arange(length, device=hidden.device)[None]
        past = places[0][:, None] >= places[0][None]  # [length, length]
        keys: list[Tensor] = []
        values: list[Tensor] = []
        states: list[Tensor] = []
        for step in range(steps):
            joined = torch.cat([self.pre_fc_norm_embedding(embedded), self.pre_fc_norm_hidden(hidden)], dim=-1)
            mixed = self.fc(joined)
            attention = self.layer.self_attn
            normed = self.layer.input_layernorm(mixed)
            shape = (batch, length, -1, attention.head_dim)
            query, key, value = (
                project(normed).view(shape).transpose(1, 2)
                for project in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            query, key = apply_rotary_pos_emb(query, key, *self.rotary(mixed, places + step))
            keys, values = [*keys, key], [*values, value]
            mask = torch.cat([past, *[torch.eye(length, dtype=torch.bool)] * step], dim=1)  # [length, (step + 1) * length]
            heard = functional.scaled_dot_product_attention(
                query, torch.cat(keys, dim=2), torch.cat(values, dim=2), attn_mask=mask, enable_gqa=True
            )
            mixed = mixed + attention.o_proj(heard.transpose(1, 2).reshape(batch, length, -1))
            mixed = mixed + self.layer.mlp(self.layer.post_attention_layernorm(mixed))
            hidden = self.norm(mixed)
            states.append(hidden)
            embedded = functional.pad(embedded[:, 1:], (0, 0, 0, 1))  # the token after
        return states


def export_draft(draft: Draft, backbone: Path, folder: Path, ahead: int) -> None:
    """Half floats, and the backbone's sizes; `ahead` is how many tokens the server drafts unless it is told otherwise."""
    config: dict[str, Any] = json.loads((backbone / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": DRAFT_TYPE, "architectures": [DRAFT_ARCHITECTURE]}
    config |= {"n_predict": 1, "num_nextn_predict_layers": 1, "draft_tokens": ahead}
    config["trained_beside"] = sha256_of(backbone / "model.safetensors")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file({name: value.half().contiguous() for name, value in draft.state_dict().items()}, folder / "model.safetensors")


def load_draft(draft: Draft, folder: Path) -> None:
    draft.load_state_dict({name: value.float() for name, value in load_file(folder / "model.safetensors").items()})
