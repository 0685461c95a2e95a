"""Step 5. vLLM (imported nowhere else but in its plug-in): a prompt in, chunks of token ids out. Knows no text and no media."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import lru_cache
from pathlib import Path
from typing import Any

from omni_server.checkpoint import Checkpoint
from omni_server.config import Settings
from omni_server.errors import EngineUnavailable, Overloaded, RequestError
from omni_server.grammar import span_grammar
from omni_server.placement import Placement, share_of_gpu
from omni_server.types import Modality, Prompt, Sampling, TokenChunk, TokenScore
from omni_server.vllm_plugin import ARCHITECTURE, SEED, WORKER

# Measured on 2 cores: a compiled, multi-process engine takes over a minute to start and gains nothing at this size.
_CPU_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # engine and decoders share the cores; threads that spin starve the other
    "HF_HUB_OFFLINE": "1",
}


class VllmBackbone:
    """One AsyncLLM over the checkpoint's `backbone/` folder, on CPU or GPU."""

    def __init__(self, checkpoint: Checkpoint, settings: Settings, placement: Placement) -> None:
        """Starts the engine's process and waits for it: seconds on a CPU, minutes for a large model.

        Raises EngineUnavailable where vLLM cannot start, with its own message.
        """
        self._on_cpu = _prepare_environment(settings)
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self._checkpoint = checkpoint
        self._adapters = _adapters(settings)
        self._defaults = _generation_defaults(checkpoint.folders["backbone"])
        self._grammar = lru_cache(maxsize=None)(lambda media, may_call: span_grammar(checkpoint, media, may_call=may_call))
        try:
            self._engine: Any = AsyncLLM.from_engine_args(
                AsyncEngineArgs(**_engine_arguments(checkpoint, settings, placement, on_cpu=self._on_cpu))
            )
        except Exception as error:
            raise EngineUnavailable(f"the engine did not start: {error}") from error

    async def stream(
        self, request_id: str, prompt: Prompt, sampling: Sampling, modalities: frozenset[Modality]
    ) -> AsyncGenerator[TokenChunk, None]:
        """Token ids of one reply, in chunks as the engine makes them. Closing the generator aborts the request.

        Raises Overloaded, EngineUnavailable, or RequestError where the engine refuses the parameters.
        """
        from vllm.exceptions import QueueOverflowError, VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        parameters = self._sampling_parameters(prompt, sampling, modalities)
        try:
            adapter = self._adapters.get(sampling.adapter) if sampling.adapter is not None else None
            generated = self._engine.generate(_engine_input(prompt), parameters, request_id, lora_request=adapter)
            async with aclosing(generated) as outputs:
                async for output in outputs:
                    reply = output.outputs[0]
                    scores = _scores(reply, sampling.logprobs)
                    yield TokenChunk(tuple(reply.token_ids), reply.finish_reason, output.num_cached_tokens or 0, scores)
        except QueueOverflowError as error:
            raise Overloaded("too many requests are waiting for the backbone; try again later") from error
        except VLLMClientError as error:
            raise RequestError(str(error)) from error
        except EngineDeadError as error:
            raise EngineUnavailable("the engine has stopped; try again later") from error
        except EngineGenerateError as error:
            raise EngineUnavailable(f"the engine failed in this request: {error.__cause__ or error}") from error

    def unfinished_requests(self) -> int:
        """How many requests the engine still works on."""
        return int(self._engine.output_processor.get_num_unfinished_requests())

    @property
    def cache_tokens(self) -> int:
        cache = self._engine.vllm_config.cache_config
        return int(cache.num_gpu_blocks * cache.block_size)

    async def check(self) -> None:
        if self._engine is None or self._engine.errored:
            raise EngineUnavailable("the engine has stopped; try again later")

    async def close(self) -> None:
        from vllm.v1.engine.exceptions import EngineDeadError

        engine, self._engine = self._engine, None
        engine.output_processor.propagate_error(EngineDeadError())  # shutting down leaves those who wait to wait forever
        await asyncio.to_thread(engine.shutdown)
        del engine  # at interpreter exit its `__del__` would find half of vLLM gone and print a traceback

    def _sampling_parameters(self, prompt: Prompt, sampling: Sampling, modalities: frozenset[Modality]) -> Any:
        from vllm.sampling_params import RequestOutputKind

        from omni_server.vllm_bias import BiasedSampling

        room = self._checkpoint.context_length - len(prompt.token_ids)
        chosen = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
        }
        return BiasedSampling(
            **(self._defaults | {name: value for name, value in chosen.items() if value is not None}),
            **self._constraints(sampling, modalities),
            **self._noise(secrets.randbits(63) if sampling.seed is None else sampling.seed),
            max_tokens=min(sampling.max_tokens or room, room),
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            logprobs=sampling.logprobs,
            logit_bias=dict(sampling.logit_bias) or None,
            output_kind=RequestOutputKind.DELTA,
            detokenize=False,
        )

    def _noise(self, seed: int) -> dict[str, Any]:
        """vLLM's second model runner, for GPUs, reads the seed where vLLM has it; the first one samples as we say."""
        return {"seed": seed} if self._engine.vllm_config.use_v2_model_runner else {"extra_args": {SEED: seed}}

    def _constraints(self, sampling: Sampling, modalities: frozenset[Modality]) -> dict[str, Any]:
        """What may be said at all. A schema speaks of letters, and the names of media tokens are letters too, so a reply in a
        form, or of calls, is held to the ids of text beside it."""
        from vllm.sampling_params import StructuredOutputsParams

        if sampling.form is None and sampling.calls is None:
            grammar = self._grammar(modalities, sampling.may_call)
            return {"structured_outputs": StructuredOutputsParams(grammar=grammar) if grammar is not None else None}
        if sampling.calls is not None:
            form = StructuredOutputsParams(**sampling.calls)
        else:
            form = StructuredOutputsParams(json=dict(sampling.form or {}))
        if not self._checkpoint.bands:
            return {"structured_outputs": form}
        text = [token for first, size in self._checkpoint.text_ranges for token in range(first, first + size)]
        return {"structured_outputs": form, "allowed_token_ids": [*text, *self._defaults["stop_token_ids"]]}


def _scores(reply: Any, wanted: int | None) -> tuple[TokenScore, ...]:
    """vLLM tells the sampled token beside the likeliest, where it is not one of them."""
    if wanted is None or reply.logprobs is None:
        return ()
    scores = []
    for token, told in zip(reply.token_ids, reply.logprobs, strict=True):
        likeliest = sorted(told.items(), key=lambda item: -item[1].logprob)[:wanted]
        scores.append(TokenScore(told[token].logprob, tuple((other, its.logprob) for other, its in likeliest)))
    return tuple(scores)


def _prepare_environment(settings: Settings) -> bool:
    """vLLM reads these when it is imported, in this process and in the engine's; what the user has set stays."""
    import torch

    os.environ.setdefault("OMP_NUM_THREADS", str(settings.model_threads))
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    on_cpu = settings.device == "cpu" or (settings.device == "auto" and not torch.cuda.is_available())
    if on_cpu:
        for name, value in _CPU_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
    return on_cpu


def _engine_arguments(checkpoint: Checkpoint, settings: Settings, placement: Placement, *, on_cpu: bool) -> dict[str, Any]:
    folder = checkpoint.folders["backbone"]
    arguments: dict[str, Any] = {
        "model": str(folder),
        "worker_cls": WORKER,
        "served_model_name": checkpoint.name,
        "max_model_len": checkpoint.context_length,
        "max_num_seqs": settings.max_num_seqs,
        "enable_prefix_caching": True,
        # White space without end is JSON too, and small models like it.
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        "generation_config": "vllm",
        "mm_processor_cache_gb": 0,
        "disable_log_stats": True,
        "max_num_queued_reqs": settings.max_queued,
    }
    if checkpoint.modalities_in - {Modality.TEXT}:
        arguments["hf_overrides"] = {
            "architectures": [ARCHITECTURE],
            "language_model_architectures": _language_architectures(folder),
            "image_token_index": checkpoint.pads.image,  # a draft asks for it
        }
    if drafted := _drafted(checkpoint, settings):
        arguments["speculative_config"] = {
            "method": "mtp",
            "model": str(checkpoint.folders["backbone_draft"]),
            "num_speculative_tokens": drafted,
        }
    if on_cpu:
        arguments |= {
            "dtype": "float32",
            "enforce_eager": True,
            "distributed_executor_backend": "uni",
            "block_size": 32,
            "kv_cache_memory_bytes": settings.kv_cache_bytes or _cache_for(folder, checkpoint, settings),
        }
        if settings.processes > 1:
            del arguments["distributed_executor_backend"]
    else:
        arguments["tensor_parallel_size"] = placement.backbone
        if placement.shares:
            arguments["gpu_memory_utilization"] = _free_share()
    # What is said in vLLM's own words wins over what was found out here.
    return arguments | settings.engine_arguments


def _drafted(checkpoint: Checkpoint, settings: Settings) -> int:
    if settings.draft_tokens is not None:
        return settings.draft_tokens
    # A draft reads the embeddings, which lie in another process where layers are split; beside adapters it was not tried.
    said = settings.engine_arguments
    return 0 if said.get("pipeline_parallel_size", 1) > 1 or said.get("enable_lora") else checkpoint.draft_tokens


def _free_share() -> float:
    """The encoders and decoders are loaded by now; the engine may take what they have left."""
    import torch

    return share_of_gpu(*torch.cuda.mem_get_info(0))


def _language_architectures(folder: Path) -> list[str]:
    """The architecture of the language model itself: that of the folder, or of the text model inside of it."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "text_config" not in config:
        return list(config["architectures"])
    from transformers import AutoConfig, AutoModelForCausalLM

    text = AutoConfig.for_model(**config["text_config"])
    return [AutoModelForCausalLM._model_mapping[type(text)].__name__]


def _cache_for(folder: Path, checkpoint: Checkpoint, settings: Settings) -> int:
    """Bytes for every concurrent reply at full context, in float32, at most 4 GiB: the engine touches all of it at start."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = config.get("text_config") or config
    heads = config.get("num_key_value_heads", config["num_attention_heads"])
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    layers = config["num_hidden_layers"] + (1 if _drafted(checkpoint, settings) else 0)
    per_token = 2 * 4 * layers * heads * width
    return int(min(per_token * checkpoint.context_length * settings.max_num_seqs + (16 << 20), 4 << 30))


def _engine_input(prompt: Prompt) -> Any:
    """vLLM's own input type, hand built: no Hugging Face processor, and our content hash as the cache key."""
    from vllm.inputs.engine import mm_input, tokens_input
    from vllm.multimodal.inputs import (
        MultiModalBatchedField,
        MultiModalFieldElem,
        MultiModalKwargsItem,
        MultiModalKwargsItems,
        PlaceholderRange,
    )

    token_ids = list(prompt.token_ids)
    if not prompt.placeholders:
        return tokens_input(token_ids)
    items: dict[str, list[Any]] = {}
    hashes: dict[str, list[str]] = {}
    places: dict[str, list[Any]] = {}
    for place in prompt.placeholders:
        modality = str(place.encoding.modality)
        element = MultiModalFieldElem(data=place.encoding.embeddings, field=MultiModalBatchedField())
        items.setdefault(modality, []).append(MultiModalKwargsItem({f"{modality}_embeds": element}))
        hashes.setdefault(modality, []).append(place.encoding.digest)
        places.setdefault(modality, []).append(PlaceholderRange(offset=place.offset, length=place.length))
    return mm_input(token_ids, MultiModalKwargsItems(items), hashes, places)


def _adapters(settings: Settings) -> dict[str, Any]:
    """Adapters by name, in the engine's own form; their numbers only have to differ."""
    if not settings.lora_modules:
        return {}
    from vllm.lora.request import LoRARequest

    return {name: LoRARequest(name, number, str(path)) for number, (name, path) in enumerate(settings.lora_modules.items(), 1)}


def _generation_defaults(folder: Path) -> dict[str, Any]:
    path = folder / "generation_config.json"
    document = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    defaults = {name: document[name] for name in ("temperature", "top_p", "top_k", "repetition_penalty") if name in document}
    ends = document.get("eos_token_id") or []
    defaults["stop_token_ids"] = ends if isinstance(ends, list) else [ends]
    return defaults
