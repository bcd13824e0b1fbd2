"""Describes the machine and the packages that a figure was measured with."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "ragstone",
    "faiss-cpu",
    "numpy",
    "onnxruntime",
    "sentence-transformers",
    "sqlalchemy",
    "tantivy",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
)


def describe() -> dict[str, Any]:
    """Return cores, memory in GiB, CPU model, GPUs, load, operating system and package versions.

    The load average is part of it: a figure taken while others work is not comparable.
    """
    return {
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "cpu": _cpu_model(),
        "devices": _devices(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _devices() -> list[str]:
    """Return the GPUs, if what was measured has brought PyTorch with it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(each) for each in range(torch.cuda.device_count())]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
