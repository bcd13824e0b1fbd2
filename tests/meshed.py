"""Grids of processes that do not exist: one of them is here, and nothing reaches the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from training.topology import Topology


@contextmanager
def as_rank(number: int, world: int) -> Iterator[None]:
    """Be one process of many, of which the others do not exist."""
    import torch
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", rank=number, world_size=world, store=FakeStore())
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def mesh_of(sizes: tuple[int, int, int, int]) -> Topology:
    replicate, shard, context, tensor = sizes
    return Topology("fsdp2", replicate, shard, tensor, context, 1)
