"""Step 5. vLLM's plug-in entry point (`vllm.general_plugins`): names our architectures in every process of the engine."""

from __future__ import annotations

import multiprocessing
import os
import signal
from datetime import timedelta
from functools import cache
from multiprocessing import connection
from threading import Thread
from typing import Any

ARCHITECTURE = "OmniForCausalLM"
DRAFT_ARCHITECTURE = "OmniDraft"
DRAFT_TYPE = "mtp"  # the model type by which vLLM knows a draft of the next tokens
WORKER = "omni_server.vllm_worker.OmniWorker"
SEED = "omni_seed"  # of `SamplingParams.extra_args`; of its own `seed` vLLM would make a generator


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
    _share_devices()
    _end_with_server()


@cache
def _end_with_server() -> None:
    """Ends the engine's own process when the server is gone, killed even: it would hold its memory for ever, and the next
    server on this machine would find none. vLLM's workers look after their own parent."""
    server = multiprocessing.parent_process()
    if server is not None and multiprocessing.current_process().name.startswith("EngineCore"):
        Thread(target=_end_after, args=(server.sentinel,), name="server's end", daemon=True).start()


def _end_after(sentinel: int) -> None:
    """Blocks until a process is over."""
    connection.wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


@cache
def _share_devices() -> None:
    """Lets every Gloo group of this process use the network devices of its first.

    vLLM makes a dozen groups, even for one process, and each device has a thread that wakes 100 times a second.
    """
    from torch.distributed import ProcessGroupGloo

    make = ProcessGroupGloo.__init__
    devices: list[Any] = []

    def init(group: Any, store: Any, rank: int, size: int, timeout: timedelta) -> None:
        if not devices:
            make(group, store, rank, size, timeout)
            devices.extend(group.options._devices)
            return
        options = ProcessGroupGloo._Options()
        options._devices, options._threads, options._timeout = devices, 2 * len(devices), timeout
        make(group, store, rank, size, options)

    ProcessGroupGloo.__init__ = init
