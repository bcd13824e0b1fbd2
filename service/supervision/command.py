"""What a replica is started with: vLLM's flags and the variables of its process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from infra.engine_settings import EngineProcess

LOOPBACK = "127.0.0.1"
GUARD = "ragstone_guard"
"""The module's name in vLLM's process, and of its file in `guards`."""


def arguments(engine: EngineProcess, name: str, *, port: int) -> list[str]:
    """Return the command line of one replica."""
    command = [engine.python or sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", engine.model, "--served-model-name", engine.served_name or name]
    command += ["--host", LOOPBACK, "--port", str(port), "--middleware", f"{GUARD}.Guard"]
    command += ["--dtype", engine.dtype, "--tensor-parallel-size", str(engine.tensor_parallel)]
    if engine.max_model_len is not None:
        command += ["--max-model-len", str(engine.max_model_len)]
    if engine.lora:
        command += ["--enable-lora", "--max-lora-rank", str(engine.max_lora_rank)]
        command += ["--max-loras", str(engine.max_loras)]
    return [*command, *engine.flags]


def environment(engine: EngineProcess, *, index: int, key: str, guards: Path) -> Mapping[str, str]:
    """Return all variables of one replica; `guards` is the folder of the middleware."""
    chosen = {
        **os.environ,
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_HOST_IP": LOOPBACK,  # where its processes find each other
        **engine.environment,
        "VLLM_API_KEY": key,
        "PYTHONPATH": str(guards),
        "PYTHONUNBUFFERED": "1",
    }
    if engine.lora:
        chosen["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    if engine.gpus:
        first = index * engine.tensor_parallel
        chosen["CUDA_VISIBLE_DEVICES"] = ",".join(
            engine.gpus[first : first + engine.tensor_parallel]
        )
    return chosen
