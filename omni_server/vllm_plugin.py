"""Step 5. vLLM's plug-in entry point (`vllm.general_plugins`): names our architectures in every process of the engine."""

from __future__ import annotations

ARCHITECTURE = "OmniForCausalLM"
DRAFT_ARCHITECTURE = "OmniDraft"
DRAFT_TYPE = "mtp"  # the model type by which vLLM knows a draft of the next tokens


def register() -> None:
    """Called once in each engine process, so it must be idempotent; the models are imported only when they are built."""
    from transformers import AutoConfig, LlamaConfig
    from vllm import ModelRegistry
    from vllm.v1.sample import logits_processor

    from omni_server.vllm_bias import BiasBesideDraft

    for architecture, place in (
        (ARCHITECTURE, "omni_server.vllm_model:OmniForCausalLM"),
        (DRAFT_ARCHITECTURE, "omni_server.vllm_draft:OmniDraft"),
    ):
        if architecture not in ModelRegistry.get_supported_archs():
            ModelRegistry.register_model(architecture, place)
    # The only processor that vLLM builds beside a draft; elsewhere it has one of its own for the bias.
    logits_processor.MinTokensLogitsProcessor = BiasBesideDraft  # type: ignore[misc]
    draft = type("OmniDraftConfig", (LlamaConfig,), {"model_type": DRAFT_TYPE})
    AutoConfig.register(DRAFT_TYPE, draft, exist_ok=True)
