"""Step 5. A draft of the tokens to come, inside vLLM: one Llama block over the backbone's own hidden states (multi-token
prediction). It shares the backbone's embeddings and head, so a draft weighs one block; the backbone judges every token.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import ReplicatedLinear
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.models.llama import LlamaDecoderLayer
from vllm.model_executor.models.utils import AutoWeightsLoader, WeightsMapper, maybe_prefix


class DraftBlock(nn.Module):
    """The next token's embedding and the hidden state before it, joined, through one block."""

    def __init__(self, vllm_config: VllmConfig, prefix: str) -> None:
        super().__init__()
        assert vllm_config.speculative_config is not None  # a draft is built for nothing else
        draft = vllm_config.speculative_config.draft_model_config
        config: Any = draft.hf_config
        width = config.hidden_size
        self.embed_tokens = VocabParallelEmbedding(config.vocab_size, width)
        self.pre_fc_norm_embedding = RMSNorm(width, eps=config.rms_norm_eps)
        self.pre_fc_norm_hidden = RMSNorm(width, eps=config.rms_norm_eps)
        self.fc = ReplicatedLinear(2 * width, width, bias=False, return_bias=False)
        # Its cache stands beside those of the backbone's layers, so it is numbered behind them.
        self.layer = LlamaDecoderLayer(vllm_config, prefix=f"{prefix}.layers.{config.num_hidden_layers}", config=config)
        self.norm = RMSNorm(width, eps=config.rms_norm_eps)

    def forward(self, positions: torch.Tensor, hidden: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
        """All [tokens, width], but positions [tokens]."""
        joined = torch.cat([self.pre_fc_norm_embedding(embedded), self.pre_fc_norm_hidden(hidden)], dim=-1)
        mixed, residual = self.layer(positions, self.fc(joined), None)
        normed, _ = self.norm(mixed, residual)
        return normed


class OmniDraft(nn.Module):
    """What vLLM asks of a draft."""

    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_stacked={
            ".q_proj": (".qkv_proj", "q"),
            ".k_proj": (".qkv_proj", "k"),
            ".v_proj": (".qkv_proj", "v"),
            ".gate_proj": (".gate_up_proj", 0),
            ".up_proj": (".gate_up_proj", 1),
        }
    )

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        assert vllm_config.speculative_config is not None
        config: Any = vllm_config.speculative_config.draft_model_config.hf_config
        self.config = config
        self.model = DraftBlock(vllm_config, maybe_prefix(prefix, "model"))
        self.lm_head = ParallelLMHead(config.vocab_size, config.hidden_size, prefix=maybe_prefix(prefix, "lm_head"))
        self.logits_processor = LogitsProcessor(config.vocab_size)

    def embed_input_ids(
        self, input_ids: torch.Tensor, multimodal_embeddings: Any = None, is_multimodal: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Media in the prompt are drafted over by their pads: a draft that is wrong there costs a token, and changes none."""
        return self.model.embed_tokens(input_ids)

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        hidden_states: torch.Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        spec_step_idx: int = 0,
        **_: object,
    ) -> torch.Tensor:
        embedded = self.embed_input_ids(input_ids) if inputs_embeds is None else inputs_embeds
        return self.model(positions, hidden_states, embedded)

    def compute_logits(self, hidden_states: torch.Tensor, spec_step_idx: int = 0) -> torch.Tensor | None:
        return self.logits_processor(self.lm_head, hidden_states)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        loader = AutoWeightsLoader(self)
        named = ((f"model.{name}", tensor) for name, tensor in weights)
        loaded = loader.load_weights(named, mapper=self.hf_to_vllm_mapper)
        return loaded | {"model.embed_tokens.weight", "lm_head.weight"}  # the backbone's own, shared afterwards
