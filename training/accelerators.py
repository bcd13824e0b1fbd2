"""Devices that training runs on: their memory and arithmetic, by the makers' data sheets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.errors import NotFound
from infra.plugins import require
from training.launchers import local
from training.specification.machines import Runtime

if TYPE_CHECKING:
    from training.spec import FineTuning

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One kind of device."""

    memory_gib: float
    bfloat16_tflops: float | None
    """Of dense matrices; `None` where no data sheet says."""


KNOWN: Mapping[str, Accelerator] = {
    "t4-16gb": Accelerator(15.0, 65),
    "v100-32gb": Accelerator(31.7, 125),
    "rtx3090-24gb": Accelerator(23.7, 71),
    "rtx4090-24gb": Accelerator(23.6, 165),
    "a10-24gb": Accelerator(22.5, 125),
    "a10g-24gb": Accelerator(22.5, 70),
    "l4-24gb": Accelerator(22.5, 121),
    "l40s-48gb": Accelerator(44.5, 362),
    "a6000-48gb": Accelerator(47.5, 155),
    "a100-40gb": Accelerator(39.5, 312),
    "a100-80gb": Accelerator(79.2, 312),
    "h100pcie-80gb": Accelerator(79.6, 756),
    "h100-80gb": Accelerator(79.6, 989),
    "h200-141gb": Accelerator(139.8, 989),
    "b200-180gb": Accelerator(178.0, 2250),
}
"""Memory as the driver tells it, which is less than on the box. T4 and V100 have no bfloat16: their
figure is of float16."""
SAME_MEMORY = 0.1
"""By how much a device's memory may be off. Of names that begin alike, as A10 and A10G, the longer
one is looked for first."""


@dataclass(frozen=True, slots=True)
class Device:
    """One that is here, by what its driver says."""

    name: str
    memory: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a plan counts on, on each node."""

    devices: int | None
    """`None`: nobody can say, as on a cluster that is asked for them."""
    device_memory: int | None
    """Bytes of one device; on the CPU those of the whole node, which its processes share."""
    tflops: float | None
    is_cpu: bool
    has_flash_attention: bool | None
    """`None`: not looked at, since it trains elsewhere."""


def recognised(name: str, memory_bytes: int) -> Accelerator | None:
    """Return what is known of a device by what its driver calls it; None of any other.

    >>> recognised("NVIDIA H200", 150_000_000_000)
    Accelerator(memory_gib=139.8, bfloat16_tflops=989)
    """
    plain = name.lower().replace(" ", "")
    named = ((key.partition("-")[0], known) for key, known in KNOWN.items())
    for kind, known in sorted(named, key=lambda each: -len(each[0])):
        off = abs(memory_bytes / GIB / known.memory_gib - 1)
        if kind in plain and off < SAME_MEMORY:
            return known
    return None


def gpus_for(spec: FineTuning, launcher: str) -> int:
    """Return how many GPUs of each node a run asks a launcher for."""
    is_anything_well = spec.runtime.device == "auto" and launcher == local.NAME
    if spec.runtime.device == "cpu" or (is_anything_well and not local.devices()):
        return 0
    return spec.parallelism.devices_per_node


def device_here() -> Device | None:
    """Return the GPU of this process; None where it has none."""
    torch = require("torch", extra="finetune")
    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(torch.cuda.current_device())
    return Device(found.name, found.total_memory)


def tflops_of(runtime: Runtime, device: Device | None) -> float | None:
    """Return what a device that trains makes, whatever it was planned to be, as far as is known.

    What the specification names counts where there is none, or one of a kind of its own.
    """
    if device is not None and runtime.device != "cpu":
        found = recognised(device.name, device.memory)
        if found is not None:
            return found.bfloat16_tflops
    return machine_for(runtime).tflops


def machine_for(runtime: Runtime) -> Machine:
    """Return what it will run on: this machine if the launcher is `local`, or else what it says.

    Raises:
        NotFound: there is no such accelerator; suggests those near it.
    """
    named = None
    if runtime.accelerator is not None:
        named = KNOWN.get(runtime.accelerator.lower())
        if named is None:
            raise NotFound("accelerator", runtime.accelerator, among=KNOWN, are_few=True)
    memory = _bytes(runtime.memory_gib or (named.memory_gib if named else None))
    tflops = named.bfloat16_tflops if named else None
    if runtime.launcher != "local":
        is_cpu = runtime.device == "cpu"
        if is_cpu:
            memory = _bytes(runtime.node_memory_gib)
        return Machine(None, memory, tflops, is_cpu, None)
    torch = require("torch", extra="finetune")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if runtime.device == "cpu" or (runtime.device == "auto" and count == 0 and named is None):
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Machine(
            os.cpu_count() or 1,
            _bytes(runtime.memory_gib) or whole,
            None,
            is_cpu=True,
            has_flash_attention=False,
        )
    if here := device_here() if count else None:
        memory = memory or here.memory
        named = named or recognised(here.name, here.memory)
    tflops = named.bfloat16_tflops if named else None
    return Machine(count, memory, tflops, False, has_flash_attention())


def has_flash_attention() -> bool:
    """Whether transformers finds a FlashAttention on this machine."""
    found = require("transformers.utils", extra="finetune")
    return bool(found.is_flash_attn_2_available())


def _bytes(gib: float | None) -> int | None:
    return None if gib is None else int(gib * GIB)
