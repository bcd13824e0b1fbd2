"""How many bytes tensors take at most while something runs, on a GPU or on processors."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from infra.plugins import require

MEMORY_EVENT = "[memory]"
"""The name that PyTorch's profiler gives to what is allocated (bytes) and given back (negative)."""


@dataclass(slots=True)
class Peak:
    """The bytes of all tensors at the worst moment."""

    bytes: int = 0


def make_ready(device: str) -> None:
    """Let measuring be done in any thread: PyTorch's profiler wants to be begun by the first."""
    if device == "cpu":
        torch = require("torch", extra="finetune")
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
            pass


@contextmanager
def measured(model: Any) -> Iterator[Peak]:
    """Measure what is done with a model that is there already; its weights count.

    On a GPU it is what PyTorch reserves, with what is lost between tensors; on processors, where
    nobody keeps account, each allocation of tensors is followed.
    """
    torch = require("torch", extra="finetune")
    peak = Peak()
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
        yield peak
        peak.bytes = torch.cuda.max_memory_reserved(model.device)
        return
    gc.collect()  # or what was let go of before would be given back meanwhile, and count as less
    held = _held(model)
    activity = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity], profile_memory=True) as profile:
        yield peak
    peak.bytes = held + _most(profile)


def own(weight: Any) -> Any:
    """Return the part of a weight that this process holds: all of it, unless it is sharded."""
    tensor = require("torch.distributed.tensor", extra="finetune")
    return weight.to_local() if isinstance(weight, tensor.DTensor) else weight


def _held(model: Any) -> int:
    storages = [own(each).untyped_storage() for each in (*model.parameters(), *model.buffers())]
    return sum({each.data_ptr(): each.nbytes() for each in storages}.values())


def _most(profile: Any) -> int:
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in profile.profiler.kineto_results.events()
        if event.name() == MEMORY_EVENT
    )
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most
