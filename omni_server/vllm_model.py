"""Step 5. The backbone inside vLLM: any registered causal language model, plus places in the prompt for media embeddings.

The encoders run outside (step 3), so a picture that was seen once is not encoded again, whatever the engine's own caches do;
here an item's "tower" is the identity. Knows nothing of spans, bands or checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.models.interfaces import MultiModalEmbeddings, SupportsLoRA, SupportsMultiModal, SupportsPP
from vllm.model_executor.models.utils import init_vllm_registered_model, maybe_prefix
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.processing import BaseDummyInputsBuilder, BaseMultiModalProcessor, BaseProcessingInfo
from vllm.sequence import IntermediateTensors

MODALITIES = ("image", "audio", "video")
# What stands beside the language model in a vision-language folder; the encoders load it themselves.
BESIDE = (
    "model.vision_model.",
    "vision_model.",
    "model.mm_projector.",
    "mm_projector.",
    "model.vision_projector.",
    "model.projector.",
)


class OmniProcessingInfo(BaseProcessingInfo):
    """Limits only: prompts arrive ready made, so no processor of Hugging Face is ever loaded."""

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return dict.fromkeys(MODALITIES)

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int] | None:
        return dict.fromkeys(MODALITIES, seq_len)


class OmniDummyInputs(BaseDummyInputsBuilder[OmniProcessingInfo]):
    """Never asked for media, since the limits above are stated without a dry run."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return ""

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Mapping[str, Any]) -> Any:
        return {}


class OmniProcessor(BaseMultiModalProcessor[OmniProcessingInfo]):
    """Required by the registry; `backbone.py` builds the engine's input itself and does not pass through here."""

    def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Any) -> Mapping[str, MultiModalFieldConfig]:
        return {f"{modality}_embeds": MultiModalFieldConfig.batched(modality) for modality in MODALITIES}

    def _get_prompt_updates(self, mm_items: Any, hf_processor_mm_kwargs: Any, out_mm_kwargs: Any) -> Sequence[Any]:
        return []


@MULTIMODAL_REGISTRY.register_processor(OmniProcessor, info=OmniProcessingInfo, dummy_inputs=OmniDummyInputs)
class OmniForCausalLM(nn.Module, SupportsMultiModal, SupportsLoRA, SupportsPP):
    """A registered causal language model that takes media embeddings [n, hidden] in its prompt."""

    packed_modules_mapping = {
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config = vllm_config.model_config.hf_config
        text = config.get_text_config()
        self.config = config  # a draft beside this model reads it
        with self._mark_language_model(vllm_config):
            self.language_model = init_vllm_registered_model(
                vllm_config,
                hf_config=text,
                architectures=list(config.language_model_architectures),
                prefix=maybe_prefix(prefix, "language_model"),
            )
        self.make_empty_intermediate_tensors = self.language_model.make_empty_intermediate_tensors

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        return None

    def embed_multimodal(self, **kwargs: Any) -> MultiModalEmbeddings:
        """The embeddings as they came, one [n, hidden] tensor an item; vLLM calls this once per modality."""
        weight_type = next(self.language_model.parameters()).dtype
        items: list[torch.Tensor] = []
        for modality in MODALITIES:
            batch = kwargs.get(f"{modality}_embeds", ())  # [items, n, hidden], or a list where lengths differ
            items.extend(item.to(weight_type) for item in batch)
        return items

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **_: object,
    ) -> torch.Tensor | IntermediateTensors:
        return self.language_model.model(input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        return self.language_model.compute_logits(hidden_states)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Of a folder that holds more than the language model, only its part, under the names of a causal model."""
        return {f"language_model.{name}" for name in self.language_model.load_weights(_of_language_model(weights))}


def _of_language_model(weights: Iterable[tuple[str, torch.Tensor]]) -> Iterable[tuple[str, torch.Tensor]]:
    for name, tensor in weights:
        for prefix in ("model.language_model.", "language_model."):
            if name.startswith(prefix):
                rest = name.removeprefix(prefix)
                yield (rest if rest.startswith(("model.", "lm_head.")) else f"model.{rest}"), tensor
                break
        else:
            if not name.startswith(BESIDE):
                yield name, tensor
