"""What NVIDIA's driver says of the GPUs of this machine, within a bounded time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

from infra.errors import MissingDependency, NotReady
from infra.plugins import require
from monitoring.standing_metrics import Reading

logger = logging.getLogger(__name__)

WAIT_SECONDS = 1.0
"""That a scrape waits for the driver, which hangs when a GPU does."""
MILLIWATTS = 1_000
PERCENT = 100
TEMPERATURE = 0
"""NVML_TEMPERATURE_GPU: of the die."""
ABSENT = ("LibraryNotFound", "DriverNotLoaded", "NoPermission", "FunctionNotFound")
"""How NVML names that this machine has no GPU for this process; nothing is told then."""


class Gpus:
    """Asks NVML, the driver's own library, which takes no memory on a GPU as CUDA would."""

    def __init__(self, *, wait_seconds: float = WAIT_SECONDS) -> None:
        self._wait_seconds = wait_seconds
        self._thread: threading.Thread | None = None
        self._found: list[Reading] = []
        self._failure: str | None = None

    def readings(self) -> list[Reading]:
        """Return what holds now; nothing where there is no driver, or no package to ask it.

        Raises:
            NotReady: the driver fails, or does not answer in time; it is asked again once it has.
        """
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._read, name="gpus", daemon=True)
            self._thread.start()
        self._thread.join(self._wait_seconds)
        if self._thread.is_alive():
            raise NotReady(f"the driver of the GPUs has not answered in {self._wait_seconds:g} s")
        if self._failure is not None:
            raise NotReady(f"the driver of the GPUs fails: {self._failure}")
        return self._found

    def _read(self) -> None:
        self._found, self._failure = [], None
        try:
            nvml = require("pynvml", extra="gpu")
        except MissingDependency:
            return
        try:
            nvml.nvmlInit()
            try:
                for index in range(nvml.nvmlDeviceGetCount()):
                    self._found += _of(nvml, index)
            finally:
                nvml.nvmlShutdown()
        except nvml.NVMLError as error:
            self._found = []
            if not _is(nvml, error, *ABSENT):
                self._failure = str(error)


def _of(nvml: Any, index: int) -> Iterator[Reading]:
    """Yield what one GPU tells; what it does not know, as a part of a GPU its load, is left out."""
    gpu = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo
    asked: dict[str, Callable[[], float]] = {
        "utilization_ratio": lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / PERCENT,
        "memory_used_bytes": lambda: memory(gpu).used,
        "memory_size_bytes": lambda: memory(gpu).total,
        "temperature_celsius": lambda: nvml.nvmlDeviceGetTemperature(gpu, TEMPERATURE),
        "power_watts": lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / MILLIWATTS,
    }
    for name, ask in asked.items():
        try:
            yield Reading(f"ragstone_gpu_{name}", (str(index),), float(ask()))
        except nvml.NVMLError as error:
            if not _is(nvml, error, "NotSupported", *ABSENT):
                raise


def _is(nvml: Any, error: Exception, *names: str) -> bool:
    return any(isinstance(error, getattr(nvml, f"NVMLError_{name}")) for name in names)
