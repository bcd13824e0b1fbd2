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


def _held(model: Any) -> int:
    storages = {
        each.untyped_storage().data_ptr(): each.untyped_storage().nbytes()
        for each in (*model.parameters(), *model.buffers())
    }
    return sum(storages.values())


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
