"""Where a run ran: Python, packages, machine and GPUs; of variables only those that are named."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from infra.tracking.limits import cut, storable
from infra.tracking.redaction import hide

VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "LOCAL_RANK",
    "OMP_NUM_THREADS",
    "PYTHONHASHSEED",
    "RANK",
    "SLURM_JOB_ID",
    "SLURM_NODELIST",
    "TORCHELASTIC_RUN_ID",
    "WORLD_SIZE",
)
"""The only ones that are recorded: the others may hold secrets."""
GPU_SECONDS = 10
_GPU_FIELDS = "name,uuid,memory.total,driver_version"


@dataclass(frozen=True, slots=True)
class Environment:
    described: dict[str, Any]
    packages: tuple[str, ...]
    """`name==version`, sorted."""

    @property
    def digest(self) -> str:
        """The same for the same Python with the same packages."""
        text = "\n".join([self.described["python"], *self.packages])
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def read_environment() -> Environment:
    """Return what can be said about this process and its machine."""
    found = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "executable": sys.executable,
        "platform": platform.platform(),
        "host": platform.node(),
        "cpus": os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "gpus": _gpus(),
        "variables": _variables(),
    }
    return Environment(found, _packages())


def _variables() -> dict[str, str]:
    return {name: cut(storable(hide(os.environ[name]))) for name in VARIABLES if name in os.environ}


def _packages() -> tuple[str, ...]:
    found = set()
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:  # a folder that an interrupted removal left has none
            found.add(f"{name.lower().replace('_', '-')}=={distribution.version}")
    return tuple(sorted(found))


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _gpus() -> list[dict[str, str]]:
    """Ask the driver's own tool: asking through torch would take memory on every GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        done = subprocess.run(
            [program, f"--query-gpu={_GPU_FIELDS}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=GPU_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    names = ("name", "uuid", "memory", "driver")
    rows = [line.split(", ") for line in done.stdout.splitlines() if done.returncode == 0]
    return [dict(zip(names, row, strict=True)) for row in rows if len(row) == len(names)]
