"""Whether there are as many devices as are asked for, and what a process holds fits on one."""

from __future__ import annotations

from collections.abc import Iterable

from training.accelerators import GIB
from training.preflight import Check, Derived, Facts, Silent
from training.problems import Problem

CHECK = "devices"
FULL = 0.92
"""Of a device's memory: what is estimated must leave room for what was not thought of."""


class _Devices(Silent):
    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def problems(self, derived: Derived) -> Iterable[Problem]:
        parallelism, machine = self._facts.spec.parallelism, self._facts.machine
        if machine is None:
            return
        kind = "processors" if machine.is_cpu else "GPUs"
        if machine.devices is not None and parallelism.devices_per_node > machine.devices:
            yield Problem(
                CHECK,
                "parallelism.devices_per_node",
                f"{parallelism.devices_per_node} {kind} are asked for, {machine.devices} are here",
            )
        if self._facts.spec.runtime.launcher == "local" and parallelism.nodes > 1:
            yield Problem(
                CHECK,
                "parallelism.nodes",
                f"the launcher 'local' has one machine, not {parallelism.nodes}; use slurm, "
                "kubernetes or ray",
            )
        if derived.memory is None or machine.device_memory is None:
            return
        processes = parallelism.devices_per_node if machine.is_cpu else 1
        needed = derived.memory.total * processes
        if needed > FULL * machine.device_memory:
            yield Problem(
                CHECK,
                "schedule.rows_per_device",
                f"a step is estimated to take {needed / GIB:.1f} GiB, more than {FULL:.0%} of "
                f"{machine.device_memory / GIB:.1f} GiB; shorten data.max_length, quantise the "
                "base, shard it, or let gradient_checkpointing be auto",
            )


def build(facts: Facts) -> Check:
    return _Devices(facts)
