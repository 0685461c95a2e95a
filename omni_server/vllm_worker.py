"""Step 5. The worker inside vLLM, by name (`worker_cls`): its own for this machine, with our sampling in it."""

from __future__ import annotations

from typing import Any

from vllm.platforms import current_platform

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as Worker
else:
    from vllm.v1.worker.gpu_worker import Worker


class OmniWorker(Worker):  # type: ignore[misc]
    """Its second model runner, for GPUs, has noise by seed and place already and is left as it is."""

    model_runner: Any

    def init_device(self) -> None:
        from omni_server.vllm_sampling import place_noise  # what a CPU's worker changes in torch must be changed first

        super().init_device()
        if not self.use_v2_model_runner:
            place_noise(self.model_runner)
