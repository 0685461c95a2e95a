"""Step 5. vLLM's plug-in entry point (`vllm.general_plugins`): names our architecture in every process of the engine."""

from __future__ import annotations

ARCHITECTURE = "OmniForCausalLM"


def register() -> None:
    """Called once in each engine process, so it must be idempotent; the model is imported only when it is built."""
    from vllm import ModelRegistry

    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, "omni_server.vllm_model:OmniForCausalLM")
