"""How processes share a model: the strategy in force, and the sizes of its mesh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from training.specification.machines import Parallelism


@dataclass(frozen=True, slots=True)
class Topology:
    """`replicate * shard * tensor * context * sequence` is the number of processes."""

    strategy: Literal["single", "ddp", "fsdp2", "zero3"]
    replicate: int
    shard: int
    tensor: int
    context: int
    sequence: int

    @property
    def data_ranks(self) -> int:
        """Processes that see different rows."""
        return self.replicate * self.shard


def choose(asked: Parallelism, *, fits: bool) -> Topology:
    """Return what is asked for, with what was left open filled in.

    A base that fits on a device is copied to each, any other is sharded: within nodes, which are
    copies of each other, if several devices of a node are asked for, else over all.

    Args:
        asked: of which the product divides the number of devices.
        fits: whether one device holds the whole step.

    >>> choose(Parallelism(nodes=2, devices_per_node=8), fits=False)
    ... # doctest: +NORMALIZE_WHITESPACE
    Topology(strategy='fsdp2', replicate=2, shard=8, tensor=1, context=1, sequence=1)
    """
    parts = (asked.tensor, asked.context, asked.sequence)
    data = asked.data_ranks
    strategy: Literal["single", "ddp", "fsdp2", "zero3"]
    if asked.strategy != "auto":
        strategy = asked.strategy
    elif asked.world == 1:
        strategy = "single"
    elif fits and parts == (1, 1, 1) and (asked.shard or 1) == 1:
        strategy = "ddp"
    else:
        strategy = "fsdp2"
    if strategy in {"single", "ddp"}:
        return Topology(strategy, data, 1, *parts)
    if asked.shard is not None:
        return Topology(strategy, max(1, data // asked.shard), asked.shard, *parts)
    replicate = asked.replicate
    if replicate is None:
        within = asked.nodes > 1 and asked.devices_per_node > 1 and data % asked.nodes == 0
        replicate = asked.nodes if within and strategy == "fsdp2" else 1
    return Topology(strategy, replicate, max(1, data // replicate), *parts)
