"""How processes share a model: the strategy in force, and the sizes of its mesh."""

from __future__ import annotations

from collections.abc import Iterator
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

    @property
    def readers(self) -> int:
        """Processes that read the same rows."""
        return self.context * self.sequence * self.tensor

    @property
    def is_shared(self) -> bool:
        """Whether processes share a base, or the rows that it learns from."""
        return self.strategy == "fsdp2" and self.shard * self.readers > 1

    @property
    def is_divided(self) -> bool:
        """Whether no process has the whole base."""
        return self.is_shared and self.shard * self.tensor > 1

    @property
    def grid(self) -> tuple[int, int, int, int]:
        """Its sizes: processes that are next to each other share matrices, then sequences."""
        return self.replicate, self.shard, self.context * self.sequence, self.tensor


def choose(asked: Parallelism, *, fits: bool) -> Topology:
    """Return what is asked for, with what was left open filled in.

    A base that fits on a device is copied to each, any other is sharded over all.

    Args:
        asked: of which the product divides the number of devices.
        fits: whether one device holds the whole step.

    >>> choose(Parallelism(nodes=2, devices_per_node=8), fits=False)
    ... # doctest: +NORMALIZE_WHITESPACE
    Topology(strategy='fsdp2', replicate=1, shard=16, tensor=1, context=1, sequence=1)
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
    replicate = asked.replicate or 1
    return Topology(strategy, replicate, max(1, data // replicate), *parts)


def untrained(asked: Parallelism) -> Iterator[tuple[str, str]]:
    """Return each key that asks for what can be planned and is not trained, with what is."""
    if asked.strategy == "zero3":
        yield (
            "parallelism.strategy",
            "'zero3' is not trained: use fsdp2, which shards the same of a base",
        )
    if asked.sequence > 1:
        yield (
            "parallelism.sequence",
            "is DeepSpeed's, which nothing is trained with; share sequences by context",
        )
